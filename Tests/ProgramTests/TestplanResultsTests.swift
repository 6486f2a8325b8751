import Foundation
import Testing

@Suite("What scripts/testplan-results makes of a run") struct TestplanResultsTests {
  private struct Results: Decodable {
    struct Case: Decodable {
      let `case`: String
      let result: String
      let seconds: Double
    }
    let summary: [String: Int]
    let cases: [Case]
  }

  /// A test as the event stream introduces it.
  private func test(_ id: String, _ title: String) -> String {
    #"{"kind":"test","payload":{"kind":"function","id":"\#(id)","displayName":"\#(title)"},"version":0}"#
  }

  private func event(_ kind: String, _ id: String, at time: Double, symbol: String = "default") -> String {
    #"{"kind":"event","payload":{"kind":"\#(kind)","testID":"\#(id)","instant":{"absolute":\#(time)},"#
      + #""messages":[{"symbol":"\#(symbol)","text":""}]},"version":0}"#
  }

  private let passing = "LabTests.LabSuite/Handles/state()/Handles.swift:1:2"
  private let failing = "LabTests.LabSuite/Bulk/gigabytes(_:)/Bulk.swift:1:2"
  private let skipped = "EngineTests.LinkTests/order()/LinkTests.swift:1:2"
  private let crashed = "LabTests.LabSuite/Stress/traffic()/Stress.swift:1:2"

  /// A run that came to its end but for one test, and the last record of which was cut.
  private var events: String {
    [
      test(passing, "3.5 TCP state"), test(failing, "3.12 bulk"), test(skipped, "in order"),
      test(crashed, "3.15.1 stress"),
      event("testStarted", passing, at: 1), event("testEnded", passing, at: 3.5, symbol: "pass"),
      event("testStarted", failing, at: 4), event("testEnded", failing, at: 5, symbol: "fail"),
      event("testSkipped", skipped, at: 6), event("testStarted", crashed, at: 7), #"{"kind":"eve"#,
    ].joined(separator: "\n")
  }

  private let plan = """
    | case | title | what | tests |
    |---|---|---|---|
    | 3.5 | TCP state | . | `LabTests/Handles/state` |
    | 3.12 | bulk | `not/a/test` | `LabTests/Bulk/gigabytes`, `LabTests/Handles/state` |
    | 3.14 | UDP | . | not yet |
    | 3.15.1 | stress | . | `LabTests/Stress/traffic` |
    | 7.3 | order | . | `EngineTests/LinkTests/order` |

    """

  @Test("each case has the result of its tests, and the time they took")
  func results() throws {
    let script = try Script("testplan-results")
    let run = try script.run(
      "--plan", script.file("plan.md", plan), "--out", script.directory.path, script.file("events", events))
    #expect(run.status == 0, "\(run.errors)")
    #expect(run.output.contains("1 of 5 cases passed, 2 failed, 1 skipped, 1 not yet"), "\(run.output)")
    let results = try JSONDecoder().decode(
      Results.self, from: Data(contentsOf: script.directory.appendingPathComponent("results.json")))
    #expect(results.cases.map(\.case) == ["3.5", "3.12", "3.14", "3.15.1", "7.3"])
    #expect(results.cases.map(\.result) == ["passed", "failed", "not yet", "failed", "skipped"])
    #expect(results.cases.map(\.seconds) == [2.5, 3.5, 0, 0, 0])
    #expect(results.summary == ["passed": 1, "failed": 2, "skipped": 1, "not run": 0, "not yet": 1])
    let table = try String(
      contentsOf: script.directory.appendingPathComponent("results.md"), encoding: .utf8)
    #expect(
      table.contains(
        "| 3.12 | bulk | **failed** | 3.5 | `LabTests/Bulk/gigabytes`: failed, `LabTests/Handles/state` |"))
  }

  @Test("a named test that does not exist, and a numbered one that is not named, are complained of")
  func disagreement() throws {
    let script = try Script("testplan-results")
    let events = try script.file("events", events)
    for (plan, complaint) in [
      (
        plan + "| 8.1 | memory | . | `LabTests/Memory/limits` |\n",
        "case 8.1 names LabTests/Memory/limits, and there is no"
      ),
      (
        plan.replacing("`LabTests/Stress/traffic`", with: "not yet"),
        "case 3.15.1 does not name LabTests/Stress/traffic"
      ),
      (plan + "| 3.5 | twice | . | not yet |\n", "case 3.5 is there twice"),
      ("nothing", "has no cases"),
    ] {
      let run = try script.run(
        "--plan", script.file("plan.md", plan), "--out", script.directory.path, events)
      #expect(run.status == 1, "\(complaint)")
      #expect(run.errors.contains(complaint), "\(run.errors)")
    }
    // In a part of a run the tests of the others are not known.
    let partial = try script.run(
      "--partial", "--plan",
      script.file("plan.md", plan + "| 8.1 | memory | . | `LabTests/Memory/limits` |\n"), "--out",
      script.directory.path, events)
    #expect(partial.status == 0, "\(partial.errors)")
    #expect(partial.output.contains("1 not run"))
  }
}

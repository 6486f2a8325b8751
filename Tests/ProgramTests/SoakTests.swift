import Foundation
import Testing

@Suite("What scripts/soak makes of its samples") struct SoakTests {
  /// A table of as many samples as given, two seconds apart.
  private func table(_ columns: [(name: String, value: (Int) -> Int)], samples: Int = 40) -> String {
    let lines = (0..<samples).map { number in
      ([2 * number] + columns.map { $0.value(number) }).map(String.init).joined(separator: ",")
    }
    return ((["seconds"] + columns.map(\.name)).joined(separator: ",") + "\n") + lines.joined(separator: "\n")
      + "\n"
  }

  /// Memory that goes up and down, and no more than that.
  private func still(_ number: Int) -> Int { 40_000 + number % 5 * 300 }

  @Test("a slope in the second half fails, by the name of its column; what only counts may grow")
  func judgement() throws {
    let script = try Script("soak")
    let flat = try script.run(
      "--check",
      script.file(
        "flat.csv",
        table([
          ("re0_jsrd_rss_kb", still), ("re0_engine_sockets", { 10 + $0 % 3 }),
          ("re0_prl_bytes", { $0 << 30 }),
        ])))
    #expect(flat.status == 0, "\(flat.output)\(flat.errors)")
    #expect(!flat.output.contains("re0_prl_bytes"))

    // 300 kB a sample: 6 MB in the 20 samples of the second half.
    let leak = try script.run(
      "--check",
      script.file(
        "leak.csv", table([("re0_jsrd_rss_kb", still), ("re1_jsrd_rss_kb", { still($0) + 300 * $0 })])))
    #expect(leak.status == 1)
    #expect(leak.errors.contains("1 of 2 columns grow"))
    let grown = leak.output.split(separator: "\n").filter { $0.contains("GROWS") }
    #expect(grown.count == 1 && grown[0].hasPrefix("re1_jsrd_rss_kb"), "\(leak.output)")

    let descriptors = try script.run(
      "--check", script.file("descriptors.csv", table([("re0_jsrutil_fds", { 20 + 5 * $0 })])))
    #expect(descriptors.status == 1)

    let early = try script.run(
      "--check",
      script.file("early.csv", table([("re0_jsrd_rss_kb", { still($0) + 2_000 * min($0, 19) })])))
    #expect(early.status == 0, "what grows in the first half only is no leak: \(early.output)")
  }

  @Test("a table that says nothing is refused, with the place")
  func unjudgeable() throws {
    let script = try Script("soak")
    for (text, complaint) in [
      ("", "0 samples say nothing"),
      (table([("re0_jsrd_rss_kb", still)], samples: 9), "9 samples say nothing, 10 are needed"),
      (table([("memory", still)]), "no column of it has a limit"),
      ("time,re0_jsrd_rss_kb\n1,2\n", "table.csv:1: not a table of samples"),
      ("seconds,re0_jsrd_rss_kb\n1,2\n2,3,4\n", "table.csv:3: 3 columns where the first line has 2"),
      ("seconds,re0_jsrd_rss_kb\n1,2\n2,\n", "table.csv:3: re0_jsrd_rss_kb is not a number"),
    ] {
      let run = try script.run("--check", script.file("table.csv", text))
      #expect(run.status == 2, "\(complaint): \(run.output)")
      #expect(run.errors.contains(complaint), "\(run.errors)")
    }
    let missing = try script.run("--check", script.directory.path + "/none.csv")
    #expect(missing.status == 64 && missing.errors.contains("none.csv"))
    for arguments in [("--duration", "5s"), ("--duration", "soon"), ("--interval", "0s")] {
      let run = try script.run(arguments.0, arguments.1)
      #expect(run.status == 64, "\(arguments)")
    }
  }

  @Test("a table is drawn with a line for each column")
  func plot() throws {
    let script = try Script("soak")
    let run = try script.run(
      "--plot", script.file("table.csv", table([("re0_jsrd_rss_kb", still), ("slab_kb", { $0 })])))
    #expect(run.status == 0)
    #expect(run.output.hasPrefix("<svg ") && run.output.hasSuffix("</svg>\n"))
    #expect(run.output.split(separator: "<polyline").count == 3)
    #expect(run.output.contains("re0_jsrd_rss_kb: 40000 to 41200"))
  }
}

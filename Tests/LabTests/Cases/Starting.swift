import Foundation
import Testing

extension LabSuite {
  /// What `jsrd` cannot work with ends it at once, with one line that says what is wrong, and a status that
  /// says of which kind it is (sysexits.h).
  @Suite("the engine that cannot start")
  struct Starting {
    private func end(
      _ title: String, configuration: String, prefix: [String] = []
    ) async throws -> (end: Program.End?, errors: [String]) {
      var result: (end: Program.End?, errors: [String]) = (nil, [])
      try await Lab.run(title) { lab in
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("\(lab.id).yaml").path
        try configuration.write(toFile: file, atomically: true, encoding: .utf8)
        defer { try? FileManager.default.removeItem(atPath: file) }
        let program = try lab.start(
          "jsrd", on: .re0, prefix + [try Binaries.path(of: "jsrd"), "--config", file])
        try await eventually(within: .seconds(10), "jsrd ends") { program.end != nil }
        result = (program.end, program.errors.map { $0.replacing(file, with: "FILE") })
      }
      return result
    }

    private var good: String { get throws { try EngineConfiguration().text(for: .re0) } }

    @Test("wrong configuration: status 78, and one line with file, line and key", .timeLimit(.minutes(1)))
    func wrongConfiguration() async throws {
      let unknown = try await end("unknown-key", configuration: try good + "colour: blue\n")
      #expect(unknown.end == .exited(78))
      #expect(unknown.errors.count == 1 && unknown.errors[0].hasPrefix("jsrd: FILE:"), "\(unknown.errors)")
      #expect(unknown.errors.first?.contains("colour") == true)

      let keys = try LinkKeyFiles.shared
      let absent = try await end(
        "no-key", configuration: try good.replacing("\(keys)/re0.key", with: "/nonexistent/re0.key"))
      #expect(absent.end == .exited(78))
      #expect(
        absent.errors == [
          "jsrd: link.tls.key: /nonexistent/re0.key: cannot be opened: No such file or directory"
        ])
    }

    @Test("missing device: status 69, and one line that names it", .timeLimit(.minutes(1)))
    func missingDevice() async throws {
      let other = try good.replacing("[ eth0 ]", with: "[ eth77 ]")
      let missing = try await end("missing-uplink", configuration: other)
      #expect(missing.end == .exited(69))
      #expect(missing.errors.count == 1 && missing.errors[0].contains("eth77"), "\(missing.errors)")
    }

    @Test("missing privilege: status 77, and one line that names it", .timeLimit(.minutes(1)))
    func missingPrivilege() async throws {
      let unprivileged = try await end(
        "no-privilege", configuration: try good,
        prefix: ["setpriv", "--inh-caps=-net_admin,-net_raw", "--bounding-set=-net_admin,-net_raw"])
      #expect(unprivileged.end == .exited(77))
      #expect(
        unprivileged.errors.count == 1 && unprivileged.errors[0].contains("CAP_NET_ADMIN"),
        "\(unprivileged.errors)")
    }
  }
}

import Foundation
import Testing

/// What the programs say to a command line that they cannot work with.
@Suite("A program") struct CommandLineTests {
  /// A command line, and what the message about it names.
  struct Mistake: Sendable, CustomTestStringConvertible {
    let program: String
    let arguments: [String]
    let names: String

    init(_ line: String, names: String) {
      let words = line.split(separator: " ").map(String.init)
      program = words[0]
      arguments = Array(words.dropFirst())
      self.names = names
    }

    var testDescription: String { ([program] + arguments).joined(separator: " ") }
  }

  static let mistakes = [
    Mistake("jsrctl show", names: "report"),
    Mistake("jsrctl show everything", names: "everything"),
    Mistake("jsrctl show status twice", names: "twice"),
    Mistake("jsrctl --colour show status", names: "--colour"),
    Mistake("jsrctl show status --socket", names: "--socket"),
    Mistake("jsrctl request master win", names: "win"),
    Mistake("jsrctl unreplicate", names: "handle"),
    Mistake("jsrctl unreplicate 17", names: "17"),
    Mistake("jsrctl unreplicate 0x10000000000000000", names: "0x10000000000000000"),
    Mistake("jsrctl unreplicate 0xg", names: "0xg"),
    Mistake("jsrctl get", names: "name"),
    Mistake("jsrctl get colour", names: "colour"),
    Mistake("jsrctl set prl.timeout", names: "value"),
    Mistake("jsrctl set prl.timeout 5", names: "prl.timeout must be a time such as 100ms, 1s or 1m, not 5"),
    Mistake("jsrctl set iha.timeout 5s", names: "iha.timeout"),
    Mistake("jsrctl set mode strict", names: "mode is not changed while the engine runs"),
    Mistake("jsrctl log level", names: "level"),
    Mistake("jsrctl log level loud", names: "loud"),
    Mistake("jsrctl debug hold-acks iha on", names: "iha"),
    Mistake("jsrctl debug hold-acks prl maybe", names: "maybe"),
    Mistake("jsrctl debug hold-acks prl", names: "state"),
    Mistake("jsrctl top --interval 0", names: "--interval"),
    Mistake("jsrctl top --count 0", names: "--count"),
    Mistake("jsrctl link-keys new", names: "directory"),
    Mistake("jsrctl link-keys new /nonexistent --names re0", names: "two different DNS names"),
    Mistake("jsrctl link-keys renew /nonexistent --days 0", names: "--days"),
    Mistake("jsrctl dance", names: "dance"),
    Mistake("jsrd", names: "--config"),
    Mistake("jsrd --config", names: "--config"),
    Mistake("jsrd --config a --background", names: "--background"),
    Mistake("jsrutil", names: "--ore"),
    Mistake("jsrutil -a king", names: "king"),
    Mistake("jsrutil -a jsr_echo_server -p 70000", names: "70000"),
    Mistake("jsrpeer", names: "host"),
    Mistake("jsrpeer_mini", names: "port"),
    Mistake("jsrpeer_mini 0", names: "PORT"),
    Mistake("jsrutil_mini 127.0.0.1 7000", names: "0|1"),
    Mistake("jsrutil_mini 127.0.0.1 7000 2", names: "0 (primary) or 1 (secondary)"),
    Mistake("jsrutil_mini -l 70000 127.0.0.1 7000 0", names: "65000"),
    Mistake("jsrpeer -n many 127.0.0.1", names: "many"),
    Mistake("jsrpeer -p 70000 127.0.0.1", names: "70000"),
  ]

  @Test("ends with status 64 and names what it does not understand", arguments: mistakes)
  func usage(_ mistake: Mistake) throws {
    let run = try Run(mistake.program, mistake.arguments)
    #expect(run.status == 64, "\(run.errors)")
    let first = run.errors.split(separator: "\n").first ?? ""
    #expect(first.contains(mistake.names), "says: \(run.errors)")
    #expect(run.output.isEmpty)
  }

  @Test(
    "that finds no engine ends with status 69 and one line that says where it looked",
    arguments: [
      "show status", "show memory", "request master switch", "unreplicate 0x100000000", "get mode",
      "set prl.timeout 500ms", "log level debug", "debug hold-acks prl on", "monitor", "top",
      "--json show sockets",
    ])
  func unreachable(_ line: String) throws {
    let words = ["--socket", "/nonexistent/jsrd.sock"] + line.split(separator: " ").map(String.init)
    let run = try Run("jsrctl", words)
    #expect(run.status == 69)
    #expect(
      run.errors
        == "jsrctl: engine not reachable at /nonexistent/jsrd.sock: No such file or directory\n")
    #expect(run.output.isEmpty)
  }

  @Test("of the engine without a configuration file ends with status 78 and one line that names it")
  func noConfiguration() throws {
    let run = try Run("jsrd", ["--config", "/nonexistent/jsrd.yaml"])
    #expect(run.status == 78)
    #expect(run.errors == "jsrd: /nonexistent/jsrd.yaml: cannot be opened: No such file or directory\n")
  }

  @Test("jsrctl link-keys makes keys that are not there yet, and says where they belong")
  func linkKeys() throws {
    let folder = FileManager.default.temporaryDirectory.path + "/jsr-keys-\(UInt32.random(in: 0 ... .max))"
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let made = try Run("jsrctl", ["link-keys", "new", folder + "/", "--names", "left,right", "--days", "9"])
    #expect(made.status == 0 && made.errors.isEmpty, "\(made.errors)")
    #expect(
      made.output.contains(
        "tls: { certificate: left.pem, key: left.key, ca: ca.pem, name: left, peer: right }"))
    let files = try FileManager.default.contentsOfDirectory(atPath: folder)
    #expect(Set(files) == ["ca.pem", "ca.key", "left.pem", "left.key", "right.pem", "right.key"])
    let again = try Run("jsrctl", ["link-keys", "new", folder, "--names", "left,right"])
    #expect(again.status == 1 && again.output.isEmpty)
    #expect(again.errors.hasPrefix("jsrctl: \(folder)/ca.pem is there already"), "\(again.errors)")
    let renewed = try Run("jsrctl", ["link-keys", "renew", folder, "--names", "left,right"])
    #expect(renewed.status == 0 && renewed.output.contains("right.pem right.key"), "\(renewed.errors)")
    let lost = try Run("jsrctl", ["link-keys", "renew", folder + "/nonexistent"])
    #expect(lost.status == 1)
    #expect(lost.errors == "jsrctl: cannot open \(folder)/nonexistent/ca.pem: No such file or directory\n")
  }

  @Test(
    "tells what it takes when it is asked",
    arguments: ["jsrctl", "jsrd", "jsrutil", "jsrpeer", "jsrutil_mini", "jsrpeer_mini"])
  func help(_ program: String) throws {
    let run = try Run(program, ["--help"])
    #expect(run.status == 0)
    #expect(run.output.contains("USAGE: \(program) "))
    #expect(run.errors.isEmpty)
  }
}

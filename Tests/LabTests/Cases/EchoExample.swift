import Foundation
import Glibc
import Testing

extension LabSuite {
  /// The echo servers of the documentation. That in C is among the tests of its library.
  @Suite("the examples")
  struct EchoExample {
    @Test("the echo server in Swift survives the loss of its primary", .timeLimit(.minutes(1)))
    func swift() async throws {
      try await Lab.run("echo-swift") { lab in
        // It lies beside the program that runs the tests.
        let tests = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        let directory = URL(fileURLWithPath: tests).deletingLastPathComponent()
        try await Self.survives(directory.appendingPathComponent("echo-swift").path, in: lab)
      }
    }

    /// Runs an echo server on both routing engines, and takes one of them away under traffic.
    static func survives(_ program: String, in lab: Lab) async throws {
      let name = URL(fileURLWithPath: program).lastPathComponent
      let pair = try await EnginePair(withoutServersIn: lab)
      let servers = try [(Node.re0, "10.77.0.2"), (.re1, "10.77.0.1")].map { node, other in
        try lab.start("\(name)-\(node)", on: node, [program, "16000", other, "17000"])
      }
      for engine in [pair.re0, pair.re1] { try await engine.waitUntilListening() }
      // The examples are short, and listen to IPv4 alone.
      let traffic = try await WatchedTraffic(pair, families: [.v4], ["-m", "0", "-w", "5", "--quiet"])
      try await traffic.waitUntilFlowing()
      servers[0].send(SIGKILL)
      try await pair.re0.lose()
      try await pair.re1.waitUntilPrimary(merged: 5)
      try await traffic.waitUntilFlowing()
      let summary = try await traffic.stop(living: [pair.re1])
      #expect(summary.echoedByRe0 > 0)
      #expect(summary.echoedByRe1 > 0)
      #expect(servers[1].isRunning, "\(servers[1].lastWords)")
      print("\(name): the longest gap a peer saw was \(summary.longestGapMs) ms")
    }
  }
}

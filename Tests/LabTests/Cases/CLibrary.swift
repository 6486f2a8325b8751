import Glibc
import Testing

extension LabSuite {
  /// The library for C: programs that know nothing but jsr.h.
  @Suite("the C library")
  struct CLibrary {
    /// The two instances of Tests/CLibrary/life.c, and a connection on which jsrpeer sends.
    private struct Life {
      let pair: EnginePair
      let primary: Program
      let secondary: Program
      let peer: PeerTraffic
      let watch: ConnectionWatch

      init(_ lab: Lab, loop: String, unreplicateAfter bytes: Int, traffic: [String]) async throws {
        let life = try await CProgram("Tests/CLibrary/life.c", in: lab)
        pair = try await EnginePair(withoutServersIn: lab)
        secondary = try lab.start("life-secondary", on: .re1, life.underValgrind([loop, "secondary"]))
        try await secondary.waitForLine(containing: "LISTENING", within: .seconds(30))
        primary = try lab.start(
          "life-primary", on: .re0, life.underValgrind([loop, "primary", "10.77.0.2", "\(bytes)"]))
        try await primary.waitForLine(containing: "LISTENING", within: .seconds(30))
        watch = try await ConnectionWatch(in: lab)
        peer = try PeerTraffic(in: lab, ["-n", "1", "-l", "100"] + traffic)
        try await primary.waitForLine(containing: "REPLICATED", within: .seconds(30))
      }

      /// The peer has seen nothing but its messages, each once.
      func check(_ summary: PeerTraffic.Summary, _ end: Program.End) async throws {
        #expect(end == .exited(0), "jsrpeer: \(peer.program.lastWords)")
        #expect(summary.faults == 0, "\(summary)")
        let events = try await watch.finish()
        #expect(events.connectionCount == 1)
        #expect(events.resets.isEmpty && events.unaskedFins.isEmpty, "\(events)")
      }
    }

    static let loops = ["select", "poll", "epoll"]

    @Test(
      "a socket lives through replication, snooping, records, unreplication", .timeLimit(.minutes(2)),
      arguments: loops
    )
    func unreplicate(_ loop: String) async throws {
      try await Lab.run("c-library-\(loop)") { lab in
        let life = try await Life(
          lab, loop: loop, unreplicateAfter: 1120, traffic: ["-m", "30", "-w", "20"])
        let (summary, end) = try await life.peer.finish(within: .seconds(30))
        for program in [life.primary, life.secondary] {
          #expect(try await program.waitForEnd(within: .seconds(20)) == .exited(0), "\(program.lastWords)")
          #expect(program.output.contains { $0.hasPrefix("UNREPLICATED: requested") })
          #expect(program.errors.isEmpty, "valgrind: \(program.errors.prefix(20))")
        }
        #expect(life.primary.output.contains { $0.hasPrefix("RECORDS ") })
        #expect(summary.echoedByRe0 == 30)
        try await life.check(summary, end)
      }
    }

    @Test("a socket is merged when the primary is lost", .timeLimit(.minutes(2)), arguments: loops)
    func merge(_ loop: String) async throws {
      try await Lab.run("c-library-merge-\(loop)") { lab in
        let life = try await Life(lab, loop: loop, unreplicateAfter: 0, traffic: ["-m", "0", "-w", "5"])
        try await eventually(within: .seconds(10), "messages come back") { life.peer.echoLines.count > 50 }
        life.primary.send(SIGKILL)
        try await life.pair.re0.lose()
        try await life.secondary.waitForLine(containing: "MERGED", within: .seconds(10))
        try await eventually(within: .seconds(10), "RE1 answers") {
          life.peer.echoLines.count { $0.contains("RE1") } > 20
        }
        let (summary, end) = try await life.peer.stop()
        #expect(try await life.secondary.waitForEnd(within: .seconds(20)) == .exited(0))
        #expect(life.secondary.errors.isEmpty, "valgrind: \(life.secondary.errors.prefix(20))")
        #expect(summary.echoedByRe0 > 0 && summary.echoedByRe1 > 0)
        try await life.check(summary, end)
      }
    }

    @Test("the echo server of 150 lines survives the loss of its primary", .timeLimit(.minutes(1)))
    func echoServer() async throws {
      try await Lab.run("echo-c") { lab in
        let echo = try await CProgram("Examples/echo-c/echo.c", in: lab)
        try await EchoExample.survives(echo.path, in: lab)
      }
    }
  }
}

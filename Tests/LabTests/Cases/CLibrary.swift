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

    @Test(
      "3.14 UDP: the example answers with the next number from the other RE, there and back",
      .timeLimit(.minutes(1)))
    func datagrams() async throws {
      try await Lab.run("numbers-c") { lab in
        let numbers = try await CProgram("Examples/numbers-c/numbers.c", in: lab)
        let pair = try await EnginePair(withoutServersIn: lab)
        let peer = try await Datagrams.startPeer(in: lab)
        let instances = try [(Node.re0, "PRIMARY"), (.re1, "SECONDARY")].map { node, part in
          try lab.start(
            "numbers-\(node)", on: node, [numbers.path, part, "5.5.5.5", "16001", "5.5.5.4", "7000"])
        }
        /// Waits until the peer has had a hundred more numbers of `engine`, which is primary.
        func flows(from engine: RoutingEngine) async throws {
          try await pair.waitUntilReplicated(1, primary: engine)
          let heard = peer.output.count { $0.contains(": \(engine.node) ") }
          try await eventually(within: .seconds(20), "numbers of \(engine.node) come; \(peer.lastWords)") {
            peer.output.count { $0.contains(": \(engine.node) ") } > heard + 100
          }
        }
        try await flows(from: pair.re0)
        for (old, new) in [(pair.re0, pair.re1), (pair.re1, pair.re0)] {
          try await old.requestMaster("switch")
          try await new.waitUntilPrimary()
          try await flows(from: new)
        }
        peer.send(SIGINT)
        #expect(try await peer.waitForEnd(within: .seconds(10)) == .exited(0), "\(peer.output.suffix(2))")
        Datagrams.expectAllCame(to: peer)
        for instance in instances {
          #expect(instance.isRunning && instance.errors.isEmpty, "\(instance.lastWords)")
          #expect(instance.output.count { $0.hasPrefix("rcv peer ") } > 50)
          #expect(instance.output.count { $0.hasPrefix("snd re") } > 50)
          #expect(instance.output.contains("merged: yes"))
        }
      }
    }
  }
}

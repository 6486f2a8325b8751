import Control
import Glibc
import JSR
import Testing

extension LabSuite {
  /// The instances of the echo server meet through the engines, without a channel of their own.
  @Suite("rendezvous")
  struct Rendezvous {
    private static let servers = ["--quiet", "--rendezvous"]

    @Test(
      "rendezvous: streams go on when one RE after the other is lost, and protection comes back by itself",
      .timeLimit(.minutes(2)))
    func bothLost() async throws {
      try await Lab.run("rendezvous") { lab in
        let pair = try await EnginePair(withoutServersIn: lab)
        for engine in [pair.re0, pair.re1] {
          try engine.startServer(Self.servers)
          try await engine.waitUntilListening()
        }
        let traffic = try await WatchedTraffic(pair, ["-m", "0", "-w", "5", "--quiet"])
        try await traffic.waitUntilFlowing()
        for lost in [pair.re0, pair.re1] {
          let next = pair.other(lost)
          try await lost.lose()
          try await next.waitUntilPrimary(merged: 5)
          try await traffic.waitUntilFlowing()
          guard lost.node == .re0 else { continue }
          try await lost.comeBack(Self.servers)
          try await pair.waitUntilInStep(primary: next)
          try await pair.waitUntilReplicated(5, primary: next)
        }
        let summary = try await traffic.stop(living: [pair.re0])
        #expect(summary.echoedByRe0 > 0 && summary.echoedByRe1 > 0)
        for engine in [pair.re0, pair.re1] {
          #expect(!(try engine.server.output).contains { $0.hasPrefix("CHANNEL") })
        }
      }
    }

    @Test(
      "rendezvous: an instance that comes late, or again, is asked for everything", .timeLimit(.minutes(1)))
    func late() async throws {
      try await Lab.run("rendezvous-late") { lab in
        let pair = try await EnginePair(withoutServersIn: lab)
        try pair.re0.startServer(Self.servers)
        try await pair.re0.waitUntilListening()
        let peer = try PeerTraffic(in: lab, ["-n", "5", "-m", "0", "-w", "5"])
        try await eventually(within: .seconds(10), "answers come") { peer.echoLines.count > 50 }
        #expect(try await pair.re0.sockets().isEmpty)

        let other = try await Session.connect(to: lab.controlSocket(of: .re0), application: "other")
        do throws(JSRError) {
          try await other.register(service: "jsrutil:16000")
          Issue.record("two instances have one name")
        } catch {
          guard case .refused(.serviceTaken, let message) = error else { throw error }
          #expect(message.contains("jsrutil:16000"))
        }

        for _ in 1...2 {
          try pair.re1.startServer(Self.servers)
          try await pair.waitUntilReplicated(5, primary: pair.re0)
          try pair.re1.server.send(SIGKILL)
          try await eventually(within: .seconds(10), "nothing is replicated any more") {
            try await !pair.re0.sockets().contains { $0.state == "replicating" }
          }
        }
        #expect(try pair.re0.server.output.filter { $0 == "INSTANCE there" }.count == 2)
        let (summary, end) = try await peer.stop()
        #expect(end == .exited(0), "jsrpeer: \(peer.program.lastWords)")
        #expect(summary.faults == 0 && summary.echoedByRe1 == 0, "\(summary)")
      }
    }
  }
}

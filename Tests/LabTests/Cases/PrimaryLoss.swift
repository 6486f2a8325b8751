import Foundation
import Glibc
import Testing

extension LabSuite {
  /// TESTPLAN 3.7 and DESIGN, promises 1 to 8: the primary goes away in every way there is, and the peer
  /// must not notice.
  @Suite("the primary is lost")
  struct PrimaryLoss {
    /// The longest silence that a peer may see: detection (3 misses of 100 ms), the end of the lease,
    /// takeover, and the time two busy cores need for them.
    private static let longestGap = 4000.0

    @Test("3.7 primary lost", .timeLimit(.minutes(1)), arguments: EngineConfiguration.Mode.allCases)
    func everythingAtOnce(_ mode: EngineConfiguration.Mode) async throws {
      try await Lab.run("3.7-\(mode)") { lab in
        var configuration = EngineConfiguration()
        configuration.mode = mode
        let pair = try await EnginePair(in: lab, configuration: configuration)
        let traffic = try await WatchedTraffic(pair, ["-m", "0", "-w", "5", "--quiet"])
        let handles = try await pair.re1.sockets().map(\.handle)
        #expect(handles.count == 5)
        try await traffic.waitUntilFlowing()
        try await pair.re0.lose()
        try await pair.re1.waitUntilPrimary(merged: 5)
        try await traffic.waitUntilFlowing()
        let summary = try await traffic.stop(living: [pair.re1])
        #expect(summary.echoedByRe0 > 0)
        #expect(summary.echoedByRe1 > 0)
        #expect(summary.longestGapMs < Self.longestGap)
        print("3.7 (\(mode)): the longest gap a peer saw was \(summary.longestGapMs) ms")

        for handle in handles {
          for layer in ["SDRL", "PSRM", "PRL"] {
            try await pair.re1.engine.waitForLine(
              containing: "\(layer) per-socket state cleaned up for socket \(handle)",
              within: .seconds(2))
          }
        }
        let log = try pair.re1.engine.errors
        #expect(!log.contains { $0.contains(" error ") || $0.contains(" critical ") })
      }
    }

    @Test("the engine alone is killed, its application lives", .timeLimit(.minutes(1)))
    func engineKilled() async throws {
      try await Lab.run("engine-killed") { lab in
        let pair = try await EnginePair(in: lab)
        let succession = try await SuccessionWatch(from: pair.re0, to: pair.re1)
        let traffic = try await WatchedTraffic(pair, ["-m", "0", "-w", "5", "--quiet"])
        try await traffic.waitUntilFlowing()
        try pair.re0.engine.send(SIGKILL)
        try await pair.re1.waitUntilPrimary(merged: 5)
        // The application on re0 still has its sockets and is free to write, but nobody may hear it.
        try await Task.sleep(for: .seconds(2))
        #expect(try pair.re0.server.isRunning)
        try await traffic.waitUntilFlowing()
        let summary = try await traffic.stop(living: [pair.re1])
        try await succession.finish()
        #expect(summary.echoedByRe1 > 0)
        #expect(summary.longestGapMs < Self.longestGap)
      }
    }

    @Test("the application alone is killed", .timeLimit(.minutes(1)))
    func applicationKilled() async throws {
      try await Lab.run("application-killed") { lab in
        let pair = try await EnginePair(in: lab)
        let succession = try await SuccessionWatch(from: pair.re0, to: pair.re1)
        let traffic = try await WatchedTraffic(pair, ["-m", "0", "-w", "5", "--quiet"])
        try await traffic.waitUntilFlowing()
        try pair.re0.server.send(SIGKILL)
        try await pair.re1.waitUntilPrimary(merged: 5)
        try await traffic.waitUntilFlowing()
        let summary = try await traffic.stop(living: [pair.re0, pair.re1])
        try await succession.finish()
        #expect(summary.echoedByRe1 > 0)
        #expect(summary.longestGapMs < Self.longestGap)
      }
    }

    @Test(
      "a primary that hangs falls silent before the other speaks, and stays silent",
      .timeLimit(.minutes(1)))
    func engineHangs() async throws {
      try await Lab.run("engine-hangs") { lab in
        let pair = try await EnginePair(in: lab)
        let succession = try await SuccessionWatch(from: pair.re0, to: pair.re1)
        let traffic = try await WatchedTraffic(pair, ["-m", "0", "-w", "20", "--quiet"])
        try await traffic.waitUntilFlowing()
        try pair.re0.engine.send(SIGSTOP)
        try await pair.re1.waitUntilPrimary(merged: 5)
        try await traffic.waitUntilFlowing()
        let awakening = Date().timeIntervalSince1970
        try pair.re0.engine.send(SIGCONT)
        try await eventually(within: .seconds(10), "re0 finds out that it is primary no more") {
          try await pair.re0.status().role == "secondary"
        }
        try await Task.sleep(for: .seconds(1))
        let summary = try await traffic.stop(living: [pair.re0, pair.re1])
        #expect(summary.echoedByRe0 > 0)
        #expect(summary.echoedByRe1 > 0)
        #expect(summary.longestGapMs < Self.longestGap)

        // Not one packet of the replicated address left re0 from before it woke up until the end.
        let lastOfRE0 = try await succession.finish()
        #expect(lastOfRE0.time < awakening, "\(lastOfRE0)")
      }
    }

    @Test("the uplink of the primary is cut", .timeLimit(.minutes(1)))
    func uplinkCut() async throws {
      try await Lab.run("uplink-cut") { lab in
        let pair = try await EnginePair(in: lab)
        let succession = try await SuccessionWatch(from: pair.re0, to: pair.re1)
        let traffic = try await WatchedTraffic(pair, ["-m", "0", "-w", "5", "--quiet"])
        try await traffic.waitUntilFlowing()
        try await lab.cut(.uplink, of: .re0)
        try await pair.re1.waitUntilPrimary(merged: 5)
        try await traffic.waitUntilFlowing()
        try await lab.mend(.uplink, of: .re0)
        // The link between the engines was never cut, so re0 comes back as a secondary by itself.
        try await pair.waitUntilInStep(primary: pair.re1)
        try await pair.waitUntilReplicated(5, primary: pair.re1)
        try await traffic.waitUntilFlowing()
        let summary = try await traffic.stop(living: [pair.re0, pair.re1])
        try await succession.finish()
        #expect(summary.echoedByRe1 > 0)
        #expect(summary.longestGapMs < Self.longestGap)
      }
    }

    /// How much lies in the kernels' buffers when the primary is lost.
    enum Fill: String, CaseIterable, Sendable {
      /// Both directions run as fast as they can.
      case flowing
      /// The peer writes and does not read: every buffer of every connection is full, both ways.
      case full
    }

    @Test("lost with data in flight both ways", .timeLimit(.minutes(2)), arguments: Fill.allCases)
    func dataInFlight(_ fill: Fill) async throws {
      try await Lab.run("in-flight-\(fill)") { lab in
        let pair = try await EnginePair(in: lab)
        let traffic = try await WatchedTraffic(
          pair, ["-m", "0", "-l", "\(4 << 20)", "--pipeline", "64", "--quiet"])
        try await Task.sleep(for: .seconds(1))
        if fill == .full {
          traffic.peer.ceaseReading()
          try await waitUntilAtRest(pair, atLeast: 100_000)
        }
        try await pair.re0.lose()
        try await pair.re1.waitUntilPrimary(merged: 5)
        traffic.peer.readAgain()
        // More than was in any buffer on the way.
        try await traffic.waitUntilFlowing(8 << 20, within: .seconds(30))
        let summary = try await traffic.stop(living: [pair.re1])
        #expect(summary.echoedByRe1 > 0)
      }
    }

    /// Waits until nothing moves any more between a peer that does not read and a server that has no room for
    /// what it should answer, and `count` bytes lie in each queue of each kernel.
    private func waitUntilAtRest(_ pair: EnginePair, atLeast count: Int) async throws {
      var here: [KernelSocket] = []
      var there: [KernelSocket] = []
      try await eventually(
        within: .seconds(20), "all queues are full and at rest; on the peer \(here), on re0 \(there)"
      ) {
        let before = (here + there).map(\.description)
        here = try await KernelSocket.all(on: .peer, in: pair.lab).filter { $0.state == "ESTAB" }
        there = try await pair.re0.kernelSockets().filter { $0.state == "ESTAB" }
        return here.count == 5 && there.count == 5
          && (here + there).allSatisfy { $0.sendQueue >= count && $0.receiveQueue >= count }
          && (here + there).map(\.description) == before
      }
    }

    @Test("4.2 data from before", .timeLimit(.minutes(1)))
    func dataFromBefore() async throws {
      try await Lab.run("4.2") { lab in
        // What a receive queue holds at the most must fit into a snoop pair, and all queues of a connection
        // must hold less than the peer sends without an answer.
        for node in [Node.re0, .peer] {
          try await lab.run(["sysctl", "-qw", "net.ipv4.tcp_rmem=4096 131072 1048576"], on: node)
        }
        let pair = EnginePair(unstarted: lab)
        try await pair.re0.startEngine()
        try await eventually(within: .seconds(10), "re0 is primary, alone") {
          try await pair.re0.status().role == "primary"
        }
        try pair.re0.startServer()
        try await pair.re0.waitUntilListening()
        let watch = try await ConnectionWatch(in: lab)
        let peer = try PeerTraffic(
          in: lab, ["-n", "5", "-m", "0", "-l", "\(4 << 20)", "--pipeline", "4", "--quiet"])
        try await eventually(within: .seconds(10), "five connections") {
          try await pair.re0.kernelSockets().count { $0.state == "ESTAB" } == 5
        }
        // The server waits for room, with every receive buffer full. When it hears of the other RE it reads
        // no more; as soon as the peer has read what the server had answered, the sockets are given away, and
        // the handshake finds the receive buffers as they were.
        peer.ceaseReading()
        try await waitUntilAtRest(pair, atLeast: 1)
        try await pair.re1.startEngine()
        try pair.re1.startServer()
        try await pair.waitUntilInStep(primary: pair.re0)
        try await pair.re0.server.waitForLine(containing: "CHANNEL up", within: .seconds(10))
        peer.readAgain()
        try await pair.waitUntilReplicated(5, primary: pair.re0)
        let unread = try pair.re0.engine.errors.compactMap { line -> Int? in
          guard line.contains("PRL handshake for socket"),
            line.contains("of the receive queue sent")
          else {
            return nil
          }
          return line.split(separator: " ").compactMap { Int($0) }.first
        }
        // A machine that is too busy for a handshake sees another one.
        #expect(unread.count >= 5)
        #expect(unread.prefix(5).allSatisfy { $0 > 0 }, "\(unread)")
        try await pair.re0.lose()
        try await pair.re1.waitUntilPrimary(merged: 5)
        try await Task.sleep(for: .seconds(1))
        let (summary, end) = try await peer.stop()
        #expect(end == .exited(0), "jsrpeer: \(peer.program.lastWords)")
        #expect(summary.faults == 0, "\(summary)")
        let events = try await watch.finish()
        #expect(events.connectionCount == 5)
        #expect(events.resets.isEmpty && events.unaskedFins.isEmpty, "\(events)")
        #expect(try !pair.re1.server.output.contains { $0.contains("MISMATCH") })
      }
    }
  }
}

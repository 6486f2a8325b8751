import Glibc
import Testing

extension LabSuite {
  /// TESTPLAN 7.1 and 7.3.
  @Suite("the inter-RE link")
  struct LinkRecovery {
    @Test(
      "7.1 the link comes up whichever engine starts first", .timeLimit(.minutes(1)),
      arguments: [Node.re0, .re1])
    func order(first: Node) async throws {
      try await Lab.run("7.1-\(first)-first") { lab in
        let pair = EnginePair(unstarted: lab)
        let (early, late) = first == .re0 ? (pair.re0, pair.re1) : (pair.re1, pair.re0)
        try await early.startEngine()
        // It looks for the other one in vain for a while, and is primary alone.
        try await early.waitUntilPrimary()
        try await Task.sleep(for: .seconds(1))
        #expect(try await !early.status().peer.linkUp)
        try await late.startEngine()
        try await pair.waitUntilInStep(primary: early)
        for engine in [pair.re0, pair.re1] {
          #expect(try await engine.figures()["kkcm.link_sessions"] == 1)
          try engine.startServer()
        }
        try await early.waitUntilServing()
        let traffic = try PeerTraffic(in: lab, ["-n", "2", "-m", "0", "-w", "5", "--quiet"])
        try await pair.waitUntilReplicated(2, primary: early)
        let (summary, end) = try await traffic.stop()
        #expect(end == .exited(0) && summary.faults == 0, "\(summary)")
      }
    }

    enum Loss: String, CaseIterable, Sendable {
      case reset, silence, cable, secondaryEngineKilled, secondaryEngineEnded, primaryKilled
    }

    /// Packets of the link are treated by `verdict` for a while.
    private func disturbLink(_ pair: EnginePair, _ verdict: String, for time: Duration) async throws {
      let nft = [
        "add table inet trouble",
        "add chain inet trouble input { type filter hook input priority 0 ; }",
        "add rule inet trouble input iifname link0 tcp dport 7000 \(verdict)",
      ]
      try await pair.lab.run(["nft", nft.joined(separator: "; ")], on: .re0)
      try await Task.sleep(for: time)
      try await pair.lab.run(["nft", "delete table inet trouble"], on: .re0)
    }

    @Test(
      "7.1 the link comes up again after each kind of loss", .timeLimit(.minutes(1)), arguments: Loss.allCases
    )
    func recovery(_ loss: Loss) async throws {
      try await Lab.run("7.1-\(loss)") { lab in
        let pair = try await EnginePair(in: lab)
        let traffic = try await WatchedTraffic(pair, connections: 3, ["-m", "0", "-w", "5", "--quiet"])
        // Who says what of it.
        var witness = pair.re0
        let reason: String
        var primary = pair.re0
        switch loss {
        case .reset:
          // re0's kernel is made to answer for a socket that it has.
          (witness, reason) = (pair.re1, "KKCM link lost: reset by the other RE")
          try await disturbLink(pair, "reject with tcp reset", for: .milliseconds(300))
        case .silence:
          reason = "KKCM link closed: nothing heard for 300 ms"
          try await disturbLink(pair, "drop", for: .seconds(3))
        case .cable:
          reason = "KKCM link lost: no carrier"
          // The kernel reports a new carrier up to a second late (net/core/link_watch.c), and its loss only after that.
          try await Task.sleep(for: .milliseconds(1500))
          try await lab.cut(.link, of: .re0)
          try await Task.sleep(for: .seconds(1))
          try await lab.mend(.link, of: .re0)
        case .secondaryEngineKilled, .secondaryEngineEnded:
          // What the kernel says for an engine that is gone, a FIN or a reset, depends on whether that had read all
          // that came, also where it ended in order.
          reason = "by the other RE"
          try pair.re1.engine.send(loss == .secondaryEngineKilled ? SIGKILL : SIGTERM)
          try await pair.re1.engine.waitForEnd(within: .seconds(10))
          try await pair.re1.startEngine()
        case .primaryKilled:
          (witness, reason) = (pair.re1, "by the other RE")
          try pair.re0.killPrograms()
          try await pair.re1.waitUntilPrimary(merged: 3)
          try await pair.re0.engine.killAndWait()
          try await pair.re0.startEngine()
          try pair.re0.startServer()
          primary = pair.re1
        }
        try await pair.waitUntilInStep(primary: primary)
        try await pair.waitUntilReplicated(3, primary: primary)
        try await witness.engine.waitForLine(containing: reason, within: .seconds(1))
        try await traffic.waitUntilFlowing()
        try await traffic.stop(living: [primary])
      }
    }

    @Test(
      "7.3 records arrive in order and once, across any split of reads and writes", .timeLimit(.minutes(2)),
      arguments: [1, 2] as [UInt64])
    func splits(seed: UInt64) async throws {
      try await Lab.run("7.3-\(seed)") { lab in
        let relay = try await SplittingRelay(in: lab, seed: seed)
        var configuration = EngineConfiguration()
        configuration.relayPort = SplittingRelay.port
        // What is cut is records; once it is records of TLS, and what comes out of these.
        configuration.insecure = seed == 1
        let pair = try await EnginePair(in: lab, configuration: configuration, servers: [])
        let traffic = try await WatchedTraffic(
          pair, connections: 3, ["-m", "0", "-l", "3000", "-w", "2", "--quiet"])
        try await traffic.waitUntilFlowing(300_000, within: .seconds(40))

        // What the standby has read of both streams, byte by byte, is what was said.
        let figures = (try await pair.re0.figures(), try await pair.re1.figures())
        #expect(figures.0["kkcm.link_sessions"] == 1 && figures.1["kkcm.link_sessions"] == 1)
        #expect(figures.1["kkcm.records_stale"] == 0)
        let matches = try pair.re1.server.output.count { $0.contains(" MATCH ") }
        #expect(matches > 100)
        #expect(try !pair.re1.server.output.contains { $0.contains("MISMATCH") })
        print(
          "7.3 (seed \(seed)): \(figures.1["kkcm.records_received"] ?? 0) records in \(relay.pieceCount) pieces both ways, \(matches) messages compared"
        )

        // The records of a planned switchover go the same way, and then everything goes the other way.
        try await pair.re1.requestMaster("acquire")
        try await pair.waitUntilInStep(primary: pair.re1)
        try await pair.waitUntilReplicated(3, primary: pair.re1)
        try await traffic.waitUntilFlowing(100_000, within: .seconds(30))
        let summary = try await traffic.stop(living: [pair.re0, pair.re1])
        #expect(summary.echoedByRe1 > 0)
        for engine in [pair.re0, pair.re1] {
          #expect(try await engine.figures()["kkcm.link_sessions"] == 1)
          #expect(
            try !engine.engine.errors.contains {
              $0.contains("KKCM link closed") || $0.contains("KKCM link lost")
            })
        }
        relay.end()
      }
    }
  }
}

import Foundation
import Glibc
import Testing

extension LabSuite {
  /// TESTPLAN 3.8 and DESIGN, promise 8: losing the secondary, or the way to it, ends no connection.
  @Suite("the secondary is lost")
  struct SecondaryLoss {
    /// Milliseconds: the replication timeouts are one second, and two cores are busy.
    private static let longestGap = 2000.0

    /// - Parameters:
    ///   - reason: Why sockets are no longer replicated, in the words of every living engine.
    ///   - repair: What is done after two seconds without the secondary.
    ///   - living: The engines that are there at the end.
    private func withTraffic(
      _ title: String, losing loss: (EnginePair) async throws -> Void, reason: String,
      repair: (EnginePair) async throws -> Void = { _ in }, living: (EnginePair) -> [RoutingEngine]
    ) async throws {
      try await Lab.run(title) { lab in
        let pair = try await EnginePair(in: lab)
        let fromRE1 = try await ClaimWatch(of: .re1, in: lab)
        let traffic = try await WatchedTraffic(pair, ["-m", "0", "-w", "5", "--quiet"])
        var handles: [Node: [String]] = [:]
        for engine in [pair.re0, pair.re1] { handles[engine.node] = try await engine.sockets().map(\.handle) }
        try await traffic.waitUntilFlowing()
        try await loss(pair)
        try await eventually(within: .seconds(10), "nothing is replicated any more") {
          try await !pair.re0.sockets().contains { $0.state == "replicating" }
        }
        // Time enough for a secondary that took itself for the primary.
        try await Task.sleep(for: .seconds(2))
        #expect(try await pair.re0.status().role == "primary")
        try await traffic.waitUntilFlowing()
        try await repair(pair)
        let summary = try await traffic.stop(living: living(pair))
        #expect(summary.echoedByRe1 == 0)
        try await lab.mend(.uplink, of: .re1)
        let claims = try await fromRE1.finish()
        #expect(claims.isEmpty, "two masters: \(claims.prefix(3))")
        #expect(summary.longestGapMs < Self.longestGap)
        for engine in living(pair) {
          let own = try #require(handles[engine.node])
          #expect(own.count == 5)
          for handle in own {
            try await engine.engine.waitForLine(
              containing: "socket \(handle) unreplicated: \(reason)", within: .seconds(2))
          }
          let log = try engine.engine.errors
          #expect(!log.contains { $0.contains(" error ") || $0.contains(" critical ") })
        }
      }
    }

    /// The secondary is in step again, and everything is replicated.
    private func untilProtected(_ pair: EnginePair) async throws {
      try await pair.waitUntilInStep(primary: pair.re0)
      try await pair.waitUntilReplicated(5, primary: pair.re0)
    }

    @Test("3.8 secondary lost", .timeLimit(.minutes(1)))
    func everythingAtOnce() async throws {
      try await withTraffic(
        "3.8", losing: { try await $0.re1.lose() }, reason: "link lost", living: { [$0.re0] })
    }

    @Test("the secondary's engine alone is killed", .timeLimit(.minutes(1)))
    func engineKilled() async throws {
      try await withTraffic(
        "secondary-engine-killed", losing: { try $0.re1.engine.send(SIGKILL) }, reason: "link lost",
        living: { [$0.re0] })
    }

    @Test("the secondary's engine hangs, and goes on", .timeLimit(.minutes(1)))
    func engineHangs() async throws {
      try await withTraffic(
        "secondary-engine-hangs", losing: { try $0.re1.engine.send(SIGSTOP) }, reason: "link lost",
        repair: { pair in
          try pair.re1.engine.send(SIGCONT)
          try await untilProtected(pair)
        }, living: { [$0.re0, $0.re1] })
    }

    @Test("the secondary's application alone is killed", .timeLimit(.minutes(1)))
    func applicationKilled() async throws {
      try await withTraffic(
        "secondary-application-killed", losing: { try $0.re1.server.send(SIGKILL) },
        reason: "secondary application gone", living: { [$0.re0, $0.re1] })
    }

    @Test("the link between the engines is cut, and mended", .timeLimit(.minutes(1)))
    func linkCut() async throws {
      try await withTraffic(
        "link-cut", losing: { try await $0.lab.cut(.link, of: .re1) }, reason: "link lost",
        repair: { pair in
          #expect(try await pair.re1.status().role != "primary", "two masters")
          try await pair.lab.mend(.link, of: .re1)
          try await untilProtected(pair)
        }, living: { [$0.re0, $0.re1] })
    }

    @Test("a secondary that comes back protects the connections again", .timeLimit(.minutes(1)))
    func comesBack() async throws {
      try await Lab.run("secondary-comes-back") { lab in
        let pair = try await EnginePair(in: lab)
        let traffic = try await WatchedTraffic(pair, ["-m", "0", "-w", "5", "--quiet"])
        try await pair.re1.lose()
        try await eventually(within: .seconds(10), "nothing is replicated any more") {
          try await !pair.re0.sockets().contains { $0.state == "replicating" }
        }
        try await pair.re1.comeBack()
        try await untilProtected(pair)
        try await pair.re0.lose()
        try await pair.re1.waitUntilPrimary(merged: 5)
        try await traffic.waitUntilFlowing()
        let summary = try await traffic.stop(living: [pair.re1])
        #expect(summary.echoedByRe0 > 0)
        #expect(summary.echoedByRe1 > 0)
      }
    }
  }
}

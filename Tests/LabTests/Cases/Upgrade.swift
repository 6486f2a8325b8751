import Glibc
import Testing

extension LabSuite {
  /// TESTPLAN 11: engines of different versions. An engine of the older one is one that is held to it.
  @Suite("old and new version on the two REs")
  struct Upgrade {
    @Test("11 both REs are upgraded in order, one at a time, under traffic", .timeLimit(.minutes(1)))
    func inOrder() async throws {
      try await Lab.run("11-upgrade") { lab in
        var old = EngineConfiguration()
        old.linkVersions = 1...1
        let pair = try await EnginePair(in: lab, configuration: old)
        let traffic = try await WatchedTraffic(pair, ["-m", "0", "-w", "5", "--quiet"])
        try await expectVersion(1, on: pair)
        try await traffic.waitUntilFlowing()

        try await upgrade(pair.re1)
        try await pair.waitUntilInStep(primary: pair.re0)
        try await pair.waitUntilReplicated(5, primary: pair.re0)
        try await expectVersion(1, on: pair)

        try await pair.re1.requestMaster("acquire")
        try await pair.waitUntilInStep(primary: pair.re1)
        try await pair.waitUntilReplicated(5, primary: pair.re1)
        try await traffic.waitUntilFlowing()

        try await upgrade(pair.re0)
        try await pair.waitUntilInStep(primary: pair.re1)
        try await pair.waitUntilReplicated(5, primary: pair.re1)
        try await expectVersion(3, on: pair)
        try await traffic.waitUntilFlowing()
        let summary = try await traffic.stop(living: [pair.re0, pair.re1])
        #expect(summary.echoedByRe0 > 0 && summary.echoedByRe1 > 0)
        print("11: the longest gap a peer saw while both REs were upgraded was \(summary.longestGapMs) ms")
      }
    }

    /// The engine and the application of an RE are ended in order, and new ones are started.
    private func upgrade(_ re: RoutingEngine) async throws {
      try re.server.send(SIGTERM)
      try await re.server.waitForEnd(within: .seconds(10))
      try re.engine.send(SIGTERM)
      try await re.engine.waitForEnd(within: .seconds(10))
      re.configure(EngineConfiguration())
      try await re.startEngine()
      try re.startServer()
    }

    private func expectVersion(_ version: Int, on pair: EnginePair) async throws {
      for engine in [pair.re0, pair.re1] {
        #expect(try await engine.status().peer.linkVersion == version)
        try await engine.engine.waitForLine(containing: ", version \(version)", within: .seconds(1))
      }
    }

    @Test("11 without a common version both say why, and the primary serves on", .timeLimit(.minutes(1)))
    func noCommonVersion() async throws {
      try await Lab.run("11-none") { lab in
        let pair = try await EnginePair(in: lab)
        let traffic = try await WatchedTraffic(pair, connections: 3, ["-m", "0", "-w", "5", "--quiet"])
        try await traffic.waitUntilFlowing()
        var old = EngineConfiguration()
        old.linkVersions = 1...1
        var new = EngineConfiguration()
        new.linkVersions = 2...2
        // The secondary goes first, and the primary never learns that there was to be another order.
        try pair.re1.engine.send(SIGTERM)
        try await pair.re1.engine.waitForEnd(within: .seconds(10))
        pair.re1.configure(old)
        try await pair.re1.startEngine()
        try await pair.waitUntilInStep(primary: pair.re0)
        try await pair.waitUntilReplicated(3, primary: pair.re0)
        try await pair.re1.requestMaster("acquire")
        try await pair.waitUntilInStep(primary: pair.re1)
        try await pair.waitUntilReplicated(3, primary: pair.re1)
        try pair.re0.engine.send(SIGTERM)
        try await pair.re0.engine.waitForEnd(within: .seconds(10))
        pair.re0.configure(new)
        try await pair.re0.startEngine()

        try await pair.re0.engine.waitForLine(
          containing: "the other RE speaks versions 1 to 1 of the link, this one 2 to 2", within: .seconds(10)
        )
        try await pair.re1.engine.waitForLine(
          containing: "the other RE speaks versions 2 to 2 of the link, this one 1 to 1", within: .seconds(10)
        )
        try await traffic.waitUntilFlowing()
        try await Task.sleep(for: .seconds(2))
        for engine in [pair.re0, pair.re1] {
          let status = try await engine.status()
          #expect(!status.peer.linkUp && status.peer.linkVersion == nil)
          #expect(
            try await engine.sockets().allSatisfy { $0.state != "replicating" && $0.state != "snooping" })
          // They try again and again, and do not fill the log with it.
          #expect(try engine.engine.errors.count { $0.contains("of the link, this one") } == 1)
        }
        #expect(try await pair.re1.status().role == "primary")
        #expect(try await pair.re0.status().role == "secondary")
        try await traffic.waitUntilFlowing()
        try await traffic.stop(living: [pair.re1])
      }
    }
  }
}

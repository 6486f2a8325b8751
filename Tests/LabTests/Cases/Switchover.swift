import Testing

extension LabSuite {
  /// TESTPLAN 3.6: mastership moves because somebody asks for it.
  @Suite("planned switchover")
  struct Switchover {
    @Test("3.6 switchover", .timeLimit(.minutes(1)), arguments: EngineConfiguration.Mode.allCases)
    func switchover(_ mode: EngineConfiguration.Mode) async throws {
      try await Lab.run("3.6-\(mode)") { lab in
        var configuration = EngineConfiguration()
        configuration.mode = mode
        let pair = try await EnginePair(in: lab, configuration: configuration)
        let succession = try await SuccessionWatch(from: pair.re0, to: pair.re1)
        let traffic = try await WatchedTraffic(pair, ["-m", "0", "-w", "5", "--quiet"])
        try await traffic.waitUntilFlowing()
        try await pair.re1.requestMaster("acquire")
        try await pair.waitUntilInStep(primary: pair.re1)
        // The new primary protects what it has taken over as soon as there is a secondary again.
        try await pair.waitUntilReplicated(5, primary: pair.re1)
        try await traffic.waitUntilFlowing()
        let summary = try await traffic.stop(living: [pair.re0, pair.re1])
        try await succession.finish()
        #expect(summary.echoedByRe0 > 0)
        #expect(summary.echoedByRe1 > 0)
        #expect(summary.longestGapMs < 3000)
      }
    }

    @Test("3.6 master released, then switched back", .timeLimit(.minutes(1)))
    func releaseAndSwitch() async throws {
      try await Lab.run("3.6-release-switch") { lab in
        // One socket takes both families: connections of IPv4 are those of IPv6 sockets, with mapped addresses.
        let pair = try await EnginePair(in: lab, servers: ["--quiet", "--listen", "::"])
        let traffic = try await WatchedTraffic(pair, ["-m", "0", "-w", "5", "--quiet"])
        try await pair.re0.requestMaster("release")
        try await pair.waitUntilInStep(primary: pair.re1)
        try await pair.waitUntilReplicated(5, primary: pair.re1)
        try await traffic.waitUntilFlowing()
        try await pair.re1.requestMaster("switch")
        try await pair.waitUntilInStep(primary: pair.re0)
        try await pair.waitUntilReplicated(5, primary: pair.re0)
        try await traffic.waitUntilFlowing()
        let mapped = try await pair.re0.kernelSockets().count { $0.local.hasPrefix("[::ffff:5.5.5.5]:") }
        #expect(mapped == 3)
        let summary = try await traffic.stop(living: [pair.re0, pair.re1])
        #expect(summary.echoedByRe0 > 0)
        #expect(summary.echoedByRe1 > 0)
      }
    }

    @Test(
      "three switchovers to and fro on one connection", .timeLimit(.minutes(2)), arguments: Family.allCases)
    func toAndFro(_ family: Family) async throws {
      try await Lab.run("to-and-fro-\(family)") { lab in
        let pair = try await EnginePair(in: lab)
        let traffic = try await WatchedTraffic(
          pair, connections: 1, families: [family], ["-m", "0", "-w", "2", "--quiet"])
        for next in [pair.re1, pair.re0, pair.re1] {
          try await next.requestMaster("acquire")
          try await pair.waitUntilInStep(primary: next)
          try await pair.waitUntilReplicated(1, primary: next)
          try await traffic.waitUntilFlowing()
        }
        let summary = try await traffic.stop(living: [pair.re0, pair.re1])
        #expect(summary.echoedByRe0 > 0)
        #expect(summary.echoedByRe1 > 0)
      }
    }
  }
}

import Glibc
import Testing

extension LabSuite {
  /// TESTPLAN 3.13: what is true of five connections is true of one and of five hundred.
  @Suite("many connections at once")
  struct ManyAtOnce {
    @Test("3.13 many at once", .timeLimit(.minutes(3)), arguments: [1, 5, 50, 500])
    func many(_ connections: Int) async throws {
      try await Lab.run("3.13-\(connections)") { lab in
        let pair = try await EnginePair(in: lab, servers: [])
        // 2,000 messages a second at the most: all the while every one of them is printed on both REs.
        let traffic = try await WatchedTraffic(
          pair, connections: connections, ["-m", "0", "-w", "\(max(20, connections / 2))", "--quiet"],
          within: .seconds(40))
        try await traffic.waitUntilFlowing(within: .seconds(30))
        let primary = try await pair.re0.sockets()
        let secondary = try await pair.re1.sockets()
        #expect(Set(primary.map(\.handle)).count == connections)
        #expect(Set(primary.compactMap(\.peerHandle)) == Set(secondary.map(\.handle)))

        // As 3.3 and 3.4: both descriptors of every pair show messages and their echoes, byte for byte.
        let handles = Set(secondary.map(\.handle))
        try await eventually(within: .seconds(10), "every rcv and every snd shows messages") {
          let output = try pair.re1.server.output
          return handles == Self.handles(in: output, " rcv fd ", ": 112 bytes, verified")
            && handles == Self.handles(in: output, " snd fd ", " MATCH for 100 bytes, verified")
        }

        // As 3.5: at rest, both REs and the kernel say the same.
        traffic.peer.program.send(SIGSTOP)
        try await Task.sleep(for: .seconds(1))
        let kernel = try await pair.re0.kernelSockets()
        let here = try await pair.re0.connections()
        let there = try await pair.re1.connections()
        #expect(here.count == connections && there.count == connections)
        let snooped = Dictionary(uniqueKeysWithValues: there.map { ($0.foreign, $0) })
        let own = Dictionary(uniqueKeysWithValues: kernel.map { ($0.foreign, $0) })
        for connection in here {
          connection.expectSameState(
            snooped: try #require(snooped[connection.foreign]), kernel: try #require(own[connection.foreign]))
        }
        traffic.peer.program.send(SIGCONT)
        try await traffic.waitUntilFlowing(within: .seconds(30))

        // As 3.6.
        try await pair.re1.requestMaster("acquire")
        try await pair.waitUntilInStep(primary: pair.re1)
        try await pair.waitUntilReplicated(connections, primary: pair.re1, within: .seconds(40))
        try await traffic.waitUntilFlowing(within: .seconds(30))
        let summary = try await traffic.stop(living: [pair.re0, pair.re1])
        #expect(summary.echoedByRe1 >= connections)
        print("3.13: \(connections) connections, the longest gap a peer saw was \(summary.longestGapMs) ms")
        for engine in [pair.re0, pair.re1] {
          #expect(try !engine.server.output.contains { $0.contains("MISMATCH") || $0.contains("DAMAGED") })
        }
      }
    }

    /// The handles of lines that contain `text` and end with `end`.
    private static func handles(in lines: [String], _ text: String, _ end: String) -> Set<String> {
      Set(
        lines.lazy.filter { $0.hasSuffix(end) && $0.contains(text) && $0.hasPrefix("handle ") }
          .map { String($0.dropFirst("handle ".count).prefix { $0 != " " }) })
    }
  }
}

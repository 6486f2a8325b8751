import Testing

extension LabSuite {
  /// TESTPLAN 3.16: messages from one byte to more than any buffer on their way.
  @Suite("messages of every length")
  struct MessageLengths {
    private static let connections = 2

    /// How many messages of a length are sent on each connection: more of the short ones.
    private static func count(_ length: Int) -> Int { max(2, min(100, (8 << 20) / length)) }

    @Test(
      "3.16 message lengths", .timeLimit(.minutes(2)),
      arguments: [1, 100, 200, 2_000, 65_535, 1 << 20, 64 << 20])
    func everyLength(_ length: Int) async throws {
      try await Lab.run("3.16-\(length)") { lab in
        let pair = try await EnginePair(in: lab, servers: [])
        let count = Self.count(length)
        let traffic = try await WatchedTraffic(
          pair, connections: Self.connections, ["-m", "\(count)", "-l", "\(length)", "-w", "10"])
        let summary = try await traffic.finish(within: .seconds(60), living: [pair.re0, pair.re1])
        #expect(summary.sent == Self.connections * count)
        let handles = try pair.re1.server.output.compactMap { line -> String? in
          // SNOOP handle 0x… primary handle 0x… rcv fd 27 snd fd 28 from input byte 0
          guard line.hasPrefix("SNOOP handle "), line.hasSuffix(" from input byte 0") else { return nil }
          return String(line.split(separator: " ")[2])
        }
        #expect(handles.count == Self.connections, "one pair for each connection, from its first byte on")
        for handle in handles {
          try await pair.re1.server.waitForLine(
            containing: "SNOOP ENDED handle \(handle)", within: .seconds(10))
          let lines = try pair.re1.server.output.filter { $0.hasPrefix("handle \(handle) ") }
          for number in 0..<count {
            let received = lines.filter { $0.contains(" rcv fd ") && $0.contains(" message \(number): ") }
            #expect(
              received.count == 1 && received[0].hasSuffix(": \(length + 12) bytes, verified"), "\(received)")
            let echoed = lines.filter { $0.contains(" snd fd ") && $0.contains(" message \(number): ") }
            #expect(
              echoed.count == 1 && echoed[0].contains(": \(length + 12) bytes from RE0,")
                && echoed[0].hasSuffix(" MATCH for \(length) bytes, verified"), "\(echoed)")
          }
        }
        #expect(try !pair.re1.server.output.contains { $0.contains("MISMATCH") || $0.contains("DAMAGED") })
      }
    }

    @Test(
      "3.16 message lengths across a switchover", .timeLimit(.minutes(2)), arguments: [1, 65_535, 64 << 20])
    func acrossSwitchover(_ length: Int) async throws {
      try await Lab.run("3.16-switchover-\(length)") { lab in
        let pair = try await EnginePair(in: lab, servers: [])
        let traffic = try await WatchedTraffic(
          pair, connections: Self.connections, ["-m", "0", "-l", "\(length)", "--pipeline", "2", "--quiet"])
        try await traffic.waitUntilFlowing()
        try await pair.re1.requestMaster("acquire")
        try await pair.waitUntilInStep(primary: pair.re1)
        try await pair.waitUntilReplicated(Self.connections, primary: pair.re1)
        // More than one message, so that a whole one has begun and ended on re1.
        try await traffic.waitUntilFlowing(1000 + 3 * length, within: .seconds(40))
        let summary = try await traffic.stop(living: [pair.re0, pair.re1])
        #expect(summary.echoedByRe1 > 0)
        let merged = try pair.re1.server.output.filter { $0.hasPrefix("MERGED ") }
        #expect(merged.count == Self.connections)
        if length == 64 << 20 {
          // Which of the two names an answer has was written before: inside it, re1 went on to the byte.
          #expect(merged.allSatisfy { $0.contains("goes on inside the answer") }, "\(merged)")
        } else {
          #expect(summary.echoedByRe0 > 0)
        }
        for engine in [pair.re0, pair.re1] {
          #expect(try !engine.server.output.contains { $0.contains("MISMATCH") || $0.contains("DAMAGED") })
        }
      }
    }
  }
}

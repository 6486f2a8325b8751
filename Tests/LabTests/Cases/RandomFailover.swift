import Foundation
import Testing

extension LabSuite {
  @Suite("failover at random moments")
  struct RandomFailover {
    private static let count = max(
      ProcessInfo.processInfo.environment["JSR_FAILOVERS"].flatMap { Int($0) } ?? 50, 1)

    /// Kills the primary again and again under the same five connections. JSR_FAILOVERS and JSR_SEED set
    /// how often, and which moments.
    @Test(
      "every failover leaves every stream whole",
      // A minute to begin with, and twice the time that one failover takes.
      .timeLimit(.minutes(1 + (count + 4) / 5)))
    func failovers() async throws {
      let environment = ProcessInfo.processInfo.environment
      let count = Self.count
      let seed = environment["JSR_SEED"].flatMap { UInt64($0) } ?? UInt64.random(in: 1...999_999)
      print("\(count) failovers, seed \(seed)")
      var random = SplitMix(seed: seed)

      try await Lab.run("random-failover") { lab in
        let pair = try await EnginePair(in: lab)
        let traffic = try await WatchedTraffic(
          pair, ["-m", "0", "-l", "3000", "--pipeline", "4", "-w", "1", "--quiet"])
        var primary = pair.re0
        for number in 1...count {
          let next = pair.other(primary)
          try await Task.sleep(for: .milliseconds(Int.random(in: 0...300, using: &random)))
          do {
            try await primary.lose()
            try await next.waitUntilPrimary(merged: 5)
            let events = traffic.events
            #expect(events.resets.isEmpty && events.unaskedFins.isEmpty, "failover \(number), seed \(seed)")
            try await primary.comeBack()
            try await pair.waitUntilInStep(primary: next)
            try await pair.waitUntilReplicated(5, primary: next)
          } catch {
            throw LabFailure("failover \(number) to \(next.node), seed \(seed): \(error)")
          }
          if number.isMultiple(of: 10) { print("\(number) failovers done") }
          primary = next
        }
        let summary = try await traffic.stop(living: [pair.re0, pair.re1])
        #expect(summary.echoedByRe0 > 0)
        #expect(summary.echoedByRe1 > 0)
        print("\(count) failovers, seed \(seed): the longest gap a peer saw was \(summary.longestGapMs) ms")
      }
    }
  }
}

import Simulation
import Testing

/// Whole runs of a pair: the seeds that every test run plays, and what they have to show beside keeping the
/// promises. Fresh seeds are the program's affair (`jsrsim --minutes`).
@Suite struct RunTests {
  /// Short ones: the program plays many, and long ones, in a build that is made for it.
  private static let seeds = (1...UInt64(60)).filter { Scenario(seed: $0).faults.count < 12 }

  @Test("No seed breaks a promise, and all together exercise what they are for")
  func fixedSeeds() {
    var all = RunStatistics()
    for seed in Self.seeds {
      let outcome = Run.play(Scenario(seed: seed))
      #expect(outcome.violation == nil, "seed \(seed)")
      all += outcome.statistics
    }
    #expect(all.failovers > 5)
    #expect(all.failoversWithMerges > 2)
    #expect(all.merges > 5)
    #expect(all.datagramConversations > 5 && all.datagramMerges > 1)
    // Most connections live through all of it.
    #expect(all.replications > all.conversations)
  }

  @Test("A seed is played again exactly, to the last line of its story")
  func determinism() {
    func story(_ seed: UInt64) -> [String] {
      var lines: [String] = []
      _ = Run.play(Scenario(seed: seed)) { if lines.count < 20_000 { lines.append($0) } }
      return lines
    }
    let first = story(Self.seeds[0])
    #expect(first.count > 100)
    #expect(story(Self.seeds[0]) == first)
    #expect(story(Self.seeds[1]) != first)
  }

  @Test(
    "Where the faults do not exclude two masters, there are two masters now and then",
    arguments: [Scenario.Kind.splitBrain, .frozenClock])
  func twoMasters(kind: Scenario.Kind) {
    #expect(!kind.excludesTwoMasters)
    var times = 0
    // What showed them last comes first.
    for seed in [kind == .splitBrain ? 186 : 8] + Array(1...UInt64(300)) where times == 0 {
      let scenario = Scenario(seed: seed, kind: kind)
      if scenario.faults.count < 20 { times += Run.play(scenario).statistics.twoMasters }
    }
    #expect(times > 0)
  }

  @Test("A scenario that breaks nothing is not shrunk")
  func shrinkingNothing() {
    #expect(Shrinking.shrink(Scenario(seed: Self.seeds[0])) == nil)
  }
}

import Simulation
import Testing

/// Whole runs of a pair: the seeds that every test run plays, and what they have to show beside keeping the
/// promises. Fresh seeds are the program's affair (`jsrsim --minutes`).
@Suite struct RunTests {
  @Test("No seed of the fixed set breaks a promise", arguments: 0..<8)
  func fixedSeeds(block: UInt64) {
    for seed in (block * 10 + 1)...(block * 10 + 10) {
      let outcome = Run.play(Scenario(seed: seed))
      #expect(outcome.violation == nil, "seed \(seed)")
    }
  }

  @Test("Seeds that once broke a promise break none any more", arguments: KnownSeeds.all)
  func knownSeeds(seed: UInt64) {
    #expect(Run.play(Scenario(seed: seed)).violation == nil)
  }

  @Test("A seed is played again exactly, to the last line of its story")
  func determinism() {
    func story(_ seed: UInt64) -> [String] {
      var lines: [String] = []
      _ = Run.play(Scenario(seed: seed)) { if lines.count < 20_000 { lines.append($0) } }
      return lines
    }
    let first = story(11)
    #expect(first.count > 100)
    #expect(story(11) == first)
    #expect(story(12) != first)
  }

  @Test("The runs exercise what they are for")
  func coverage() {
    var all = RunStatistics()
    for seed in UInt64(1)...20 { all += Run.play(Scenario(seed: seed)).statistics }
    #expect(all.failovers > 50)
    #expect(all.failoversWithMerges > 30)
    #expect(all.merges > 60)
    // Most connections live through all of it.
    #expect(all.replications > all.conversations)
  }

  @Test(
    "Where the faults do not exclude two masters, there are two masters now and then",
    arguments: [Scenario.Kind.splitBrain, .frozenClock])
  func twoMasters(kind: Scenario.Kind) {
    #expect(!kind.excludesTwoMasters)
    var times = 0
    for seed in UInt64(1)...40 where times == 0 {
      times += Run.play(Scenario(seed: seed, kind: kind)).statistics.twoMasters
    }
    #expect(times > 0)
  }

  @Test("A scenario that breaks nothing is not shrunk")
  func shrinkingNothing() {
    #expect(Shrinking.shrink(Scenario(seed: 3)) == nil)
  }
}

/// Seeds of fresh runs that found something, kept so that it stays mended.
enum KnownSeeds {
  static let all: [UInt64] = [82, 101, 160, 291, 295, 307, 361]
}

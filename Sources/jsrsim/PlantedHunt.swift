#if PLANTED_BUGS
  import ArgumentParser
  import Replication
  import Simulation

  /// Plants each bug in turn and looks for a seed that shows it: one that breaks a promise with the bug, and
  /// breaks none without.
  struct PlantedHunt {
    let seeds: SeedRange
    /// Seeds that are tried behind the first few.
    let noted: [UInt64]
    /// How long one bug may be looked for.
    let seconds: Double
    /// How many seeds are played at the same time.
    let jobs: Int

    func run() throws {
      var survivors: [String] = []
      for name in Planting.names {
        _ = Planting.plant(name)
        let (finding, count) = hunt()
        _ = Planting.plant(nil)
        if let finding, Run.play(Scenario(seed: finding.seed)).violation == nil {
          let check = finding.violation.check.rawValue
          print("found     \(name) in \(count) seeds: seed \(finding.seed), \(check)")
        } else {
          print("SURVIVED  \(name): \(count) seeds")
          survivors.append(name)
        }
      }
      print("\(Planting.names.count - survivors.count) of \(Planting.names.count) planted bugs found")
      if !survivors.isEmpty { throw ExitCode.failure }
    }

    /// Plays seeds until one breaks a promise; with how many were played. A rare bug is looked for in the noted seeds
    /// before all the others.
    private func hunt() -> (finding: Hunt.Failure?, count: Int) {
      let end = Hunt.clock() + UInt64(seconds * 1e9)
      let few = min(seeds.last, seeds.first + 31)
      var ranges = [SeedRange(first: seeds.first, last: few)]
      ranges += noted.map { SeedRange(first: $0, last: $0) }
      if few < seeds.last { ranges.append(SeedRange(first: few + 1, last: seeds.last)) }
      var count = 0
      for range in ranges {
        let hunt = Hunt(from: range.first, to: range.last, until: end, failureLimit: 1, isQuiet: true)
        let threads = (0..<jobs).map { _ in Worker { hunt.work { Scenario(seed: $0) } } }
        for thread in threads { thread.join() }
        count += hunt.runCount
        if let finding = hunt.failures.min(by: { $0.seed < $1.seed }) { return (finding, count) }
      }
      return (nil, count)
    }
  }
#endif

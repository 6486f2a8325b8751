#if PLANTED_BUGS
  import ArgumentParser
  import Replication
  import Simulation

  /// Plants each bug in turn and looks for a seed that shows it: one that breaks a promise with the bug, and
  /// breaks none without.
  struct PlantedHunt {
    let seeds: SeedRange
    /// How long one bug may be looked for.
    let seconds: Double
    /// How many seeds are played at the same time.
    let jobs: Int

    func run() throws {
      var survivors: [String] = []
      for name in Planting.names {
        _ = Planting.plant(name)
        let hunt = Hunt(
          from: seeds.first, to: seeds.last, until: Hunt.clock() + UInt64(seconds * 1e9), failureLimit: 1,
          isQuiet: true)
        let threads = (0..<jobs).map { _ in Worker { hunt.work { Scenario(seed: $0) } } }
        for thread in threads { thread.join() }
        _ = Planting.plant(nil)
        let finding = hunt.failures.min { $0.seed < $1.seed }
        if let finding, Run.play(Scenario(seed: finding.seed)).violation == nil {
          print(
            "found     \(name) in \(hunt.runCount) seeds: seed \(finding.seed), \(finding.violation.check.rawValue)"
          )
        } else {
          print("SURVIVED  \(name): \(hunt.runCount) seeds")
          survivors.append(name)
        }
      }
      print("\(Planting.names.count - survivors.count) of \(Planting.names.count) planted bugs found")
      if !survivors.isEmpty { throw ExitCode.failure }
    }
  }
#endif

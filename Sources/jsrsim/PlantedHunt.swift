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

    func run() throws {
      var survivors: [String] = []
      for name in Planting.names {
        let end = Hunt.clock() + UInt64(seconds * 1e9)
        var played = 0
        var finding: (seed: UInt64, violation: Violation)?
        for seed in seeds.first...seeds.last where finding == nil && Hunt.clock() < end {
          played += 1
          _ = Planting.plant(name)
          guard let violation = Run.play(Scenario(seed: seed)).violation else { continue }
          _ = Planting.plant(nil)
          if Run.play(Scenario(seed: seed)).violation == nil { finding = (seed, violation) }
        }
        if let finding {
          print(
            "found     \(name) in \(played) seeds: seed \(finding.seed), \(finding.violation.check.rawValue)")
        } else {
          print("SURVIVED  \(name): \(played) seeds")
          survivors.append(name)
        }
      }
      print("\(Planting.names.count - survivors.count) of \(Planting.names.count) planted bugs found")
      if !survivors.isEmpty { throw ExitCode.failure }
    }
  }
#endif

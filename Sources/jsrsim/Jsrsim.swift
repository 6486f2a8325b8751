import ArgumentParser
#if PLANTED_BUGS
  import Replication
#endif
import Simulation

@main
struct Jsrsim: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Plays a pair of routing engines in one process, breaks everything, and checks every promise.",
    discussion: """
      jsrsim --seed 7           replays one run and tells its story
      jsrsim --seeds 1..1000    plays many, and reports what they did
      jsrsim --minutes 5        plays fresh ones; the first seed is printed

      A seed that breaks a promise is shrunk to the fewest faults that still break it. The exit status is 1 if any
      did.
      """)

  @Option(help: "Replay this seed, with a trace.")
  var seed: UInt64?
  @Option(help: "The seeds to play: FIRST..LAST.")
  var seeds: SeedRange?
  @Option(help: "Stop after so many minutes. Without --seeds, of fresh seeds.")
  var minutes: Double?
  @Option(
    help: "Only scenarios of this kind: \(Scenario.Kind.allCases.map(\.rawValue).joined(separator: ", ")).")
  var kind: Scenario.Kind?
  @Option(help: "How many seeds are played at the same time.")
  var jobs = 1
  @Option(help: "End after so many seeds that broke a promise.")
  var failures = 10
  #if PLANTED_BUGS
    @Flag(help: "Plant every bug in turn, and see in how many of the seeds it is found.")
    var planted = false
    @Option(help: "Plant this bug.")
    var plant: String?
    @Option(help: "With --planted: how many seconds each bug may take.")
    var seconds = 60.0
    @Option(
      parsing: .upToNextOption,
      help: "With --planted: seeds to try behind the first few: those that showed rare bugs.")
    var noted: [UInt64] = []
  #endif
  @Flag(help: "With --seed: only what went wrong, no trace, no shrinking.")
  var quiet = false

  func validate() throws {
    if seed != nil, seeds != nil { throw ValidationError("--seed and --seeds exclude each other") }
    if jobs < 1 { throw ValidationError("--jobs must be at least 1") }
    #if PLANTED_BUGS
      if planted { return }
    #endif
    if seed == nil, seeds == nil, minutes == nil {
      throw ValidationError("one of --seed, --seeds, --minutes is needed")
    }
  }

  func run() throws {
    #if PLANTED_BUGS
      if planted {
        return try PlantedHunt(
          seeds: seeds ?? SeedRange(first: 1, last: 1_000), noted: noted, seconds: seconds, jobs: jobs
        ).run()
      }
      if let plant, !Planting.plant(plant) { throw ValidationError("there is no planted bug \(plant)") }
    #endif
    if let seed {
      try replay(seed)
    } else {
      try hunt()
    }
  }

  private func scenario(_ seed: UInt64) -> Scenario {
    kind.map { Scenario(seed: seed, kind: $0) } ?? Scenario(seed: seed)
  }

  private func replay(_ seed: UInt64) throws {
    let scenario = scenario(seed)
    if quiet {
      let outcome = Run.play(scenario)
      print(outcome.violation.map { "seed \(seed): \($0)" } ?? "seed \(seed): nothing is wrong")
      if outcome.violation != nil { throw ExitCode.failure }
      return
    }
    print(scenario)
    let outcome = Run.play(scenario) { print($0) }
    print(outcome.statistics)
    if outcome.violation != nil {
      print(Shrinking.shrink(scenario).map { "\($0)" } ?? "it does not fail again")
      throw ExitCode.failure
    }
  }

  private func hunt() throws {
    let range = seeds ?? SeedRange(first: .random(in: 1...1 << 40), last: .max / 16)
    let end = minutes.map { Hunt.clock() + UInt64($0 * 60e9) }
    print("seeds from \(range.first)" + (seeds == nil ? "" : " to \(range.last)"))
    let hunt = Hunt(from: range.first, to: range.last, until: end, failureLimit: failures)
    let kind = kind
    let threads = (0..<jobs).map { _ in
      Worker {
        hunt.work { seed in kind.map { Scenario(seed: seed, kind: $0) } ?? Scenario(seed: seed) }
      }
    }
    for thread in threads { thread.join() }
    print(hunt.report)
    if !hunt.failures.isEmpty { throw ExitCode.failure }
  }
}

/// FIRST..LAST
struct SeedRange: ExpressibleByArgument, Sendable {
  var first: UInt64
  var last: UInt64

  init(first: UInt64, last: UInt64) {
    self.first = first
    self.last = last
  }

  init?(argument: String) {
    let parts = argument.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count == 3, parts[1].isEmpty, let first = UInt64(parts[0]), let last = UInt64(parts[2]),
      first <= last, last <= .max / 16
    else { return nil }
    self.init(first: first, last: last)
  }
}

extension Scenario.Kind: ExpressibleByArgument {}

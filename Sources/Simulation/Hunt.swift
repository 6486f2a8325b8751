import Glibc
import Synchronization

/// Plays seed after seed, on as many threads as call `work`, and adds up what they did.
public final class Hunt: Sendable {
  /// A seed that broke a promise.
  public struct Failure: Sendable {
    public var seed: UInt64
    public var violation: Violation
  }

  private struct State {
    var next: UInt64
    var runs = 0
    var statistics = RunStatistics()
    var failures: [Failure] = []
    var lastWord: UInt64
  }

  private let last: UInt64
  private let end: UInt64?
  private let started: UInt64
  private let failureLimit: Int
  private let isQuiet: Bool
  private let state: Mutex<State>

  /// - Parameters:
  ///   - end: when to stop, by `clock()`; `nil`: when all seeds are played.
  ///   - failureLimit: after so many seeds that broke a promise there is nothing more to learn.
  ///   - isQuiet: says nothing while it plays, and shrinks nothing.
  public init(
    from first: UInt64, to last: UInt64, until end: UInt64?, failureLimit: Int, isQuiet: Bool = false
  ) {
    self.last = last
    self.end = end
    self.isQuiet = isQuiet
    self.failureLimit = failureLimit
    started = Self.clock()
    state = Mutex(State(next: first, lastWord: started))
  }

  /// Nanoseconds on a clock that never goes back.
  public static func clock() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }

  /// Plays seeds until there are no more, or time is up.
  public func work(_ scenario: (UInt64) -> Scenario) {
    while let seed = takeSeed() {
      let scenario = scenario(seed)
      let outcome = Run.play(scenario)
      if !isQuiet, let violation = outcome.violation {
        print("seed \(seed): \(violation)\n" + (Shrinking.shrink(scenario).map { "\($0)" } ?? ""))
      }
      note(seed, outcome)
    }
  }

  private func takeSeed() -> UInt64? {
    let now = Self.clock()
    return state.withLock { state in
      guard state.next <= last, end.map({ now < $0 }) ?? true, state.failures.count < failureLimit else {
        return nil
      }
      defer { state.next += 1 }
      return state.next
    }
  }

  private func note(_ seed: UInt64, _ outcome: Run.Outcome) {
    let now = Self.clock()
    state.withLock { state in
      state.runs += 1
      state.statistics += outcome.statistics
      if let violation = outcome.violation {
        state.failures.append(Failure(seed: seed, violation: violation))
      }
      if !isQuiet, now - state.lastWord > 60_000_000_000 {
        state.lastWord = now
        print(
          "   \((now - started) / 1_000_000_000) s: \(state.runs) runs, \(state.statistics.failovers) failovers"
        )
      }
      // A long hunt is watched through a file or a pipe.
      fflush(nil)
    }
  }

  public var failures: [Failure] { state.withLock { $0.failures } }
  public var runCount: Int { state.withLock { $0.runs } }

  /// What all runs together came to.
  public var report: String {
    let seconds = Double(Self.clock() - started) / 1e9
    return state.withLock { state in
      let failed = state.failures.map { "\($0.seed)" }.joined(separator: ", ")
      return "\(state.runs) runs in \(Int(seconds)) s, seeds up to \(state.next - 1): \(state.statistics)\n"
        + (state.failures.isEmpty ? "no promise was broken" : "broken promises: seeds \(failed)")
    }
  }
}

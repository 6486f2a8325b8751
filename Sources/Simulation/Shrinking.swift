/// Finds the fewest faults that still break a promise.
public enum Shrinking {
  /// A scenario with fewer faults, and what it still breaks.
  public struct Result: Sendable, CustomStringConvertible {
    public var scenario: Scenario
    public var violation: Violation
    /// How many faults it had at first.
    public var faultCount: Int

    public var description: String {
      let faults = scenario.faults.map { "  \($0)" }.joined(separator: "\n")
      return
        "shrunk from \(faultCount) to \(scenario.faults.count) faults and \(scenario.plans.count) connections, "
        + "which break: \(violation)\n\(faults)"
    }
  }

  /// Leaves out fault after fault, and connection after connection, as long as the same check fails.
  ///
  /// - Parameter attempts: how many runs this may take.
  /// - Returns: `nil` if the scenario breaks nothing.
  public static func shrink(_ scenario: Scenario, attempts: Int = 80) -> Result? {
    guard var violation = Run.play(scenario).violation else { return nil }
    var best = scenario
    var left = attempts

    func attempt(_ candidate: Scenario) -> Bool {
      guard left > 0 else { return false }
      left -= 1
      guard let found = Run.play(candidate).violation, found.check == violation.check else { return false }
      best = candidate
      violation = found
      return true
    }

    // Nothing after the moment of failure matters.
    var cut = best
    cut.faults.removeAll { $0.at > violation.at }
    cut.plans.removeAll { $0.opensAt > violation.at }
    _ = attempt(cut)
    cut = best
    cut.faultsEnd = min(cut.faultsEnd, violation.at + .milliseconds(1))
    _ = attempt(cut)
    var size = max(1, best.faults.count / 2)
    while left > 0 {
      var start = 0
      var shrank = false
      while start < best.faults.count {
        var candidate = best
        candidate.faults.removeSubrange(start..<min(start + size, best.faults.count))
        if attempt(candidate) { shrank = true } else { start += size }
      }
      if size == 1, !shrank { break }
      size = max(1, size / 2)
    }
    var index = best.plans.count - 1
    while index >= 0, best.plans.count > 1 {
      var candidate = best
      candidate.plans.remove(at: index)
      _ = attempt(candidate)
      index -= 1
    }
    return Result(scenario: best, violation: violation, faultCount: scenario.faults.count)
  }
}

/// A token bucket: so many lines at once, then so many a second. Counts those that were too many, to say so in one
/// line a second rather than in silence.
///
/// Reads no clock: times come in as arguments.
struct RateLimit {
  typealias Instant = ContinuousClock.Instant

  /// Lines that may come at once, after a rest.
  let burst: Int
  /// Lines a second that may come for ever.
  let rate: Int

  private var tokens: Double
  private var refilled: Instant
  private var suppressedCount = 0
  /// When the number of suppressed lines is to be told; `nil` if there are none.
  private(set) var reportDue: Instant?

  init(burst: Int, rate: Int, now: Instant) {
    self.burst = burst
    self.rate = rate
    tokens = Double(burst)
    refilled = now
  }

  /// Whether one more line may be written.
  mutating func admits(at now: Instant) -> Bool {
    tokens = min(Double(burst), tokens + (now - refilled) / .seconds(1) * Double(rate))
    refilled = now
    guard tokens >= 1 else {
      suppressedCount += 1
      if reportDue == nil { reportDue = now + .seconds(1) }
      return false
    }
    tokens -= 1
    return true
  }

  /// How many lines have been suppressed since the last report, once a second has passed since the first of them.
  mutating func report(at now: Instant) -> Int? {
    guard let due = reportDue, now >= due else { return nil }
    return takeReport()
  }

  /// How many lines have been suppressed since the last report, if any.
  mutating func takeReport() -> Int? {
    guard reportDue != nil else { return nil }
    defer {
      suppressedCount = 0
      reportDue = nil
    }
    return suppressedCount
  }
}

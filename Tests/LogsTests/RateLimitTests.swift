import Testing

@testable import Logs

/// Time is moved by hand.
@Suite struct RateLimitTests {
  private let start = ContinuousClock.now

  @Test("A burst passes, what is beyond it is counted, and told once when a second has passed")
  func burst() {
    var limit = RateLimit(burst: 100, rate: 10, now: start)
    let admitted = (0..<130).count { _ in limit.admits(at: start) }
    #expect(admitted == 100)
    #expect(limit.report(at: start + .milliseconds(999)) == nil)
    #expect(limit.report(at: start + .seconds(1)) == 30)
    #expect(limit.report(at: start + .seconds(2)) == nil)
  }

  @Test("After a burst lines pass at the rate, and after a rest there may be another burst")
  func rate() {
    var limit = RateLimit(burst: 100, rate: 10, now: start)
    let first = (0..<100).count { _ in limit.admits(at: start) }
    #expect(first == 100)
    // Asked a thousand times a second, for three seconds.
    let admitted = (1...3_000).count { limit.admits(at: start + .milliseconds($0)) }
    #expect(admitted == 30)
    let rested = start + .seconds(60)
    let second = (0..<200).count { _ in limit.admits(at: rested) }
    #expect(second == 100)
  }

  @Test("In a flood without end there is one report a second, and no line is missing in the sum")
  func reports() {
    var limit = RateLimit(burst: 100, rate: 100, now: start)
    var admitted = 0
    var reports: [Int] = []
    for millisecond in 0..<10_000 {
      let now = start + .milliseconds(millisecond)
      for _ in 0..<2 where limit.admits(at: now) { admitted += 1 }
      if let count = limit.report(at: now) { reports.append(count) }
    }
    #expect((9...10).contains(reports.count), "\(reports)")
    #expect(admitted + reports.reduce(0, +) + (limit.takeReport() ?? 0) == 20_000)
  }
}

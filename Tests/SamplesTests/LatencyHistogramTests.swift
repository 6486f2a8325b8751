import Testing

@testable import Samples

@Suite("The latency histogram")
struct LatencyHistogramTests {
  @Test("knows every percentile to better than one percent", arguments: [1, 1_000, 1_000_000, 1 << 40])
  func percentiles(scale: UInt64) {
    var histogram = LatencyHistogram()
    for value in 1...1000 { histogram.record(UInt64(value) * scale) }
    for permille in [1, 10, 500, 900, 990, 999, 1000] {
      let exact = Double(permille) * Double(scale)
      let found = Double(histogram.percentile(Double(permille) / 1000))
      #expect(found >= exact * 0.9999 && found <= exact * 1.01, "\(permille) ‰: \(found) for \(exact)")
    }
    #expect(histogram.maximum == 1000 * scale)
    #expect(histogram.count == 1000)
  }

  @Test("takes the shortest and the longest time there is")
  func extremes() {
    var histogram = LatencyHistogram()
    histogram.record(0)
    #expect(histogram.percentile(1) == 0)
    histogram.record(.max)
    #expect(histogram.percentile(1) == .max)
  }
}

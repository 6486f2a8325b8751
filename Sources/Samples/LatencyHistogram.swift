/// Times in nanoseconds, counted in buckets that are never wider than 1/128 of their value.
///
/// Bounded, whatever is recorded: percentiles of hours of traffic are exact to better than 1 %.
struct LatencyHistogram: Sendable {
  private static let stepBits = 7
  private var buckets = [UInt64](repeating: 0, count: (64 - stepBits + 1) << stepBits)
  private(set) var count: UInt64 = 0
  private(set) var maximum: UInt64 = 0

  mutating func record(_ nanoseconds: UInt64) {
    buckets[Self.bucket(of: nanoseconds)] += 1
    count += 1
    maximum = max(maximum, nanoseconds)
  }

  /// The time that `fraction` (0 to 1) of all recorded times do not exceed; 0 if there are none.
  func percentile(_ fraction: Double) -> UInt64 {
    let wanted = UInt64((Double(count) * fraction).rounded(.up))
    var seen: UInt64 = 0
    for (index, bucket) in buckets.enumerated() where bucket > 0 {
      seen += bucket
      if seen >= wanted { return min(Self.upperBound(ofBucket: index), maximum) }
    }
    return maximum
  }

  private static func bucket(of value: UInt64) -> Int {
    let exponent = max(0, 64 - value.leadingZeroBitCount - stepBits - 1)
    return exponent << stepBits + Int(value >> UInt64(exponent))
  }

  private static func upperBound(ofBucket index: Int) -> UInt64 {
    let exponent = max(0, index >> stepBits - 1)
    // Wraps around to the largest number there is for the last bucket.
    return UInt64(index - exponent << stepBits + 1) << UInt64(exponent) &- 1
  }
}

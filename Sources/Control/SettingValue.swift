/// How times and sizes are written, in the configuration file and on the command line.
public enum SettingValue {
  /// A text that is no value for a setting.
  public struct Invalid: Error, Hashable, Sendable, CustomStringConvertible {
    /// The end of a sentence that begins with the name of the setting: `must be …, not …`.
    public let description: String
  }

  public static let expectedDuration = "a time such as 100ms, 1s or 1m"
  public static let expectedSize = "a size such as 512KiB, 4MiB or 1GiB"

  /// A number directly followed by `us`, `ms`, `s` or `m`.
  public static func duration(
    _ text: String, in range: ClosedRange<Duration>
  ) throws(Invalid) -> Duration {
    let units: [String: Int64] = ["us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000]
    guard let (number, factor) = split(text, units: units) else {
      throw Invalid(description: "must be \(expectedDuration), not \(text)")
    }
    let (microseconds, overflow) = number.multipliedReportingOverflow(by: factor)
    guard !overflow, range.contains(.microseconds(microseconds)) else {
      throw Invalid(
        description:
          "must be from \(describe(range.lowerBound)) to \(describe(range.upperBound)), not \(text)")
    }
    return .microseconds(microseconds)
  }

  /// A number directly followed by `B`, `KiB`, `MiB` or `GiB`. In bytes.
  public static func size(_ text: String, in range: ClosedRange<Int>) throws(Invalid) -> Int {
    let units: [String: Int64] = ["B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30]
    guard let (number, factor) = split(text, units: units) else {
      throw Invalid(description: "must be \(expectedSize), not \(text)")
    }
    let (bytes, overflow) = number.multipliedReportingOverflow(by: factor)
    guard !overflow, range.contains(Int(bytes)) else {
      throw Invalid(
        description:
          "must be from \(describe(range.lowerBound)) to \(describe(range.upperBound)), not \(text)")
    }
    return Int(bytes)
  }

  private static func split(_ text: String, units: [String: Int64]) -> (Int64, Int64)? {
    let digits = text.prefix { $0.isASCII && $0.isNumber }
    guard let number = Int64(digits), let factor = units[String(text.dropFirst(digits.count))] else {
      return nil
    }
    return (number, factor)
  }

  /// In the largest unit of `s`, `ms` and `us` that needs no fraction; below a microsecond is cut off.
  public static func describe(_ duration: Duration) -> String {
    let (seconds, attoseconds) = duration.components
    let microseconds = seconds * 1_000_000 + attoseconds / 1_000_000_000_000
    let units: [(Int64, String)] = [(1_000_000, "s"), (1_000, "ms")]
    let unit = units.first { microseconds % $0.0 == 0 } ?? (1, "us")
    return "\(microseconds / unit.0)\(unit.1)"
  }

  /// In the largest unit that needs no fraction.
  public static func describe(_ size: Int) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
    let unit = units.first { size >= $0.0 && size % $0.0 == 0 } ?? (1, "B")
    return "\(size / unit.0)\(unit.1)"
  }
}

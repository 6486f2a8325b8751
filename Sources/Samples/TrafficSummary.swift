import FoundationEssentials

/// What `jsrpeer` has found, also in the form that `--json` prints: one line, names in snake case, times in
/// the unit that the name says.
public struct TrafficSummary: Codable, Hashable, Sendable {
  public struct RoundTrip: Codable, Hashable, Sendable {
    public var count: UInt64
    public var p50: Double
    public var p90: Double
    public var p99: Double
    /// 99.9 %.
    public var p999: Double
    public var max: Double
  }

  public struct Connection: Codable, Hashable, Sendable {
    public var connection: UInt16
    public var sent: UInt64
    public var answered: UInt64
    public var longestGapMs: Double
  }

  /// How many were made, those of all rounds together.
  public var connections = 0
  /// How many could not be made.
  public var connectFailures = 0
  /// Messages of which at least one byte was sent.
  public var sent: UInt64 = 0
  /// Right answers, by the routing engine that gave them.
  public var echoedByRe0: UInt64 = 0
  public var echoedByRe1: UInt64 = 0
  /// Messages without a right answer that were not found damaged either.
  public var lost: UInt64 = 0
  /// Answers that came once more.
  public var repeated: UInt64 = 0
  /// Answers with a wrong byte.
  public var mismatched: UInt64 = 0
  /// Connections that the server ended too early, resets included.
  public var unexpectedEnds = 0
  /// Connections that were reset.
  public var resets = 0
  /// The longest time without a byte while an answer was awaited.
  public var longestGapMs = 0.0
  /// Microseconds from the first byte of a message to the last one of its answer.
  public var roundTripUs = RoundTrip(count: 0, p50: 0, p90: 0, p99: 0, p999: 0, max: 0)
  public var bytesSent: UInt64 = 0
  public var bytesReceived: UInt64 = 0
  public var durationMs = 0.0
  public var mbitPerSecondSent = 0.0
  public var mbitPerSecondReceived = 0.0
  /// The faster of the two directions.
  public var mbitPerSecond = 0.0
  /// The longest gap of each connection, over all its rounds.
  public var perConnection: [Connection] = []
  /// What went wrong, in words; the first few.
  public var failures: [String] = []
  /// Every message of every connection came back right, and there was at least one.
  public var isClean = false

  enum CodingKeys: String, CodingKey {
    case connections
    case connectFailures = "connect_failures"
    case sent
    case echoedByRe0 = "echoed_by_re0"
    case echoedByRe1 = "echoed_by_re1"
    case lost, repeated, mismatched
    case unexpectedEnds = "unexpected_ends"
    case resets
    case longestGapMs = "longest_gap_ms"
    case roundTripUs = "round_trip_us"
    case bytesSent = "bytes_sent"
    case bytesReceived = "bytes_received"
    case durationMs = "duration_ms"
    case mbitPerSecondSent = "mbit_per_second_sent"
    case mbitPerSecondReceived = "mbit_per_second_received"
    case mbitPerSecond = "mbit_per_second"
    case perConnection = "per_connection"
    case failures
    case isClean = "clean"
  }

  /// One line of JSON.
  public var json: String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    guard let data = try? encoder.encode(self) else { preconditionFailure("plain numbers can be encoded") }
    return String(decoding: data, as: UTF8.self)
  }

  /// The summary for people.
  public var text: String {
    let roundTrip = roundTripUs
    return """
      connections           \(connections)\(connectFailures == 0 ? "" : ", not made: \(connectFailures)")
      messages sent         \(sent)
      echoed by RE0         \(echoedByRe0)
      echoed by RE1         \(echoedByRe1)
      lost                  \(lost)
      repeated              \(repeated)
      mismatched            \(mismatched)
      unexpected ends       \(unexpectedEnds), resets: \(resets)
      longest gap           \(longestGapMs) ms
      round trip            p50 \(roundTrip.p50), p90 \(roundTrip.p90), p99 \(roundTrip.p99), \
      p99.9 \(roundTrip.p999), max \(roundTrip.max) µs
      bytes                 \(bytesSent) sent, \(bytesReceived) received in \(durationMs) ms
      Mbit/s                \(mbitPerSecondSent) sent, \(mbitPerSecondReceived) received
      """
  }
}

extension TrafficSummary.Connection {
  enum CodingKeys: String, CodingKey {
    case connection, sent, answered
    case longestGapMs = "longest_gap_ms"
  }
}

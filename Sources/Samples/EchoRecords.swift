import JSR

/// The echoes of one connection on their way through the record interface.
///
/// A record that is not known to be safe is kept: should replication end before the engine has it whole, it is written to
/// the socket after all.
final class EchoRecords: Sendable {
  let channel: RecordChannel

  init(_ channel: consuming RecordChannel) { self.channel = channel }
}

/// Echoes that were given as records and are not known to be safe.
struct GivenEchoes {
  private var records: [(number: UInt64, bytes: [UInt8])] = []

  mutating func append(_ bytes: [UInt8], number: UInt64) { records.append((number, bytes)) }

  mutating func forget(upTo number: UInt64) { records.removeAll { $0.number <= number } }

  /// What was given behind the record of that number.
  func bytes(behind number: UInt64) -> [UInt8] { records.filter { $0.number > number }.flatMap(\.bytes) }
}

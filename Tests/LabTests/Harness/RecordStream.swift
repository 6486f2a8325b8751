/// The records that a case sends, one after the other: record `n` is the same whoever makes it. Each begins with its
/// number (8 bytes) and its length (4), and goes on with a pattern of its own.
struct RecordStream: Sendable {
  let seed: UInt64

  static let headerByteCount = 12
  static let largest = 1 << 20

  /// 19 to 65,535 bytes as BGP has them, half of them small; and now and then 1 MiB.
  func size(of number: Int) -> Int {
    var random = SplitMix(seed: seed &+ UInt64(number) &* 0x9e37_79b9)
    switch random.next() % 40 {
    case 0: return Self.largest
    case 1..<20: return Int.random(in: 19...400, using: &random)
    default: return Int.random(in: 19...65_535, using: &random)
    }
  }

  func record(_ number: Int) -> [UInt8] {
    let count = size(of: number)
    var bytes: [UInt8] = []
    bytes.reserveCapacity(count)
    withUnsafeBytes(of: UInt64(number).bigEndian) { bytes.append(contentsOf: $0) }
    withUnsafeBytes(of: UInt32(count).bigEndian) { bytes.append(contentsOf: $0) }
    bytes += BytePattern(seed: seed &+ UInt64(number)).bytes(from: 0, count: count - Self.headerByteCount)
    return bytes
  }
}

/// Reads a stream of records and checks that it is what was to be sent: each whole, in order, and once.
struct RecordChecker: Sendable {
  let stream: RecordStream
  /// Whole records so far.
  private(set) var count: Int
  /// Bytes of the record that has begun.
  private var part: [UInt8] = []
  private(set) var problem: String?

  /// - Parameter count: Records that came before.
  init(_ stream: RecordStream, after count: Int = 0) {
    self.stream = stream
    self.count = count
  }

  /// The stream stands between two records.
  var isBetweenRecords: Bool { part.isEmpty }
  /// Bytes of the record that has begun.
  var partByteCount: Int { part.count }

  mutating func take(_ bytes: [UInt8]) {
    part += bytes
    while problem == nil, part.count >= RecordStream.headerByteCount {
      let number = part[..<8].reduce(0) { $0 << 8 | Int($1) }
      let size = part[8..<12].reduce(0) { $0 << 8 | Int($1) }
      guard number == count, size == stream.size(of: count) else {
        problem =
          "record \(count) of \(stream.size(of: count)) bytes is due, \(number) of \(size) bytes comes"
        return
      }
      guard part.count >= size else { return }
      if Array(part[..<size]) != stream.record(number) {
        problem = "record \(number) is damaged"
        return
      }
      part.removeFirst(size)
      count += 1
    }
  }
}

/// What the engine says on the channel over which an application gives records of one socket.
///
/// 16 bytes, network byte order: kind (32 bits), zero (32), count (64). In the other direction goes each record behind its
/// length in 32 bits.
public struct RecordReport: Hashable, Sendable {
  public enum Kind: UInt32, Sendable, Hashable, CaseIterable {
    /// The other RE has so many records, counted from the beginning of the channel.
    case safe = 1
    /// So many records were taken, and all of them are written to the socket; no more are taken. The last report.
    case ended = 2
    /// The connection is the other RE's, or gone; of so many records it is known that they are safe. The last report.
    case moved = 3
  }

  public static let byteCount = 16

  public var kind: Kind
  public var count: UInt64

  public init(_ kind: Kind, count: UInt64) {
    self.kind = kind
    self.count = count
  }

  public var bytes: [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(Self.byteCount)
    withUnsafeBytes(of: kind.rawValue.bigEndian) { bytes.append(contentsOf: $0) }
    withUnsafeBytes(of: UInt32(0)) { bytes.append(contentsOf: $0) }
    withUnsafeBytes(of: count.bigEndian) { bytes.append(contentsOf: $0) }
    return bytes
  }

  /// - Throws: `malformed` if the bytes are not a report.
  public init(reading bytes: some Collection<UInt8>) throws(ControlError) {
    let value = bytes.prefix(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    guard bytes.count == Self.byteCount, value & 0xffff_ffff == 0,
      let kind = Kind(rawValue: UInt32(value >> 32))
    else { throw ControlError(.malformed, "what came on a record channel is no report") }
    self.init(kind, count: bytes.dropFirst(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) })
  }
}

/// Cuts what comes from an application's record channel into records: each is a count in 32 bits, network byte order, and
/// as many bytes.
public struct RecordFraming: Sendable {
  /// Bytes of a count.
  public static let prefixByteCount = 4

  /// Why a channel cannot be read on.
  public enum Failure: Error, Hashable, Sendable, CustomStringConvertible {
    case empty
    case tooLong(UInt32, limit: Int)

    public var description: String {
      switch self {
      case .empty: "a record has at least one byte"
      case .tooLong(let count, let limit):
        "a record of \(count) bytes is longer than \(limit) (limits.record)"
      }
    }
  }

  /// Bytes that are left free in front of each record, for the header of its log record.
  public static let headroom = OutgoingRecord.fixedByteCount

  /// Bytes of one record, at most.
  let limit: Int
  private var prefix: [UInt8] = []
  /// The record that is being read, with headroom; empty between two.
  private var record: [UInt8] = []
  /// Bytes of it that are here.
  private var filled = 0

  public init(limit: Int) { self.limit = limit }

  /// Whether a part of a record is here.
  public var isInsideRecord: Bool { !prefix.isEmpty || !record.isEmpty }

  /// Takes bytes from the front of `bytes`, up to the end of one record.
  ///
  /// - Returns: how many were used, and the record if they complete one: `headroom` bytes and its own.
  public mutating func take(_ bytes: UnsafeRawBufferPointer) throws(Failure) -> (used: Int, record: [UInt8]?)
  {
    var used = 0
    if record.isEmpty {
      used = min(Self.prefixByteCount - prefix.count, bytes.count)
      prefix.append(contentsOf: bytes[..<used])
      guard prefix.count == Self.prefixByteCount else { return (used, nil) }
      let count = prefix.reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
      guard count > 0 else { throw .empty }
      guard count <= limit else { throw .tooLong(count, limit: limit) }
      record = [UInt8](repeating: 0, count: Self.headroom + Int(count))
      filled = Self.headroom
    }
    let count = min(record.count - filled, bytes.count - used)
    record.withUnsafeMutableBytes { target in
      UnsafeMutableRawBufferPointer(rebasing: target[filled..<filled + count])
        .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[used..<used + count]))
    }
    filled += count
    used += count
    guard filled == record.count else { return (used, nil) }
    let whole = record
    record = []
    prefix = []
    return (used, whole)
  }
}

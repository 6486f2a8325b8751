import DequeModule

/// Records of one socket that are in the log, or were accepted when there was no log any more, on their way into the
/// kernel: what its send buffer has not taken yet.
///
/// A record is in it whole or not at all, and leaves it in pieces as large as the kernel likes. Whoever holds the queue
/// when replication ends writes the rest of it; nothing is ever taken out of it otherwise.
public struct RecordQueue: Sendable {
  private struct Record {
    var bytes: [UInt8]
    /// Of the first byte that is not written yet.
    var offset: Int
  }

  private var records: Deque<Record> = []
  /// Bytes that are not written yet.
  public private(set) var byteCount = 0
  /// Records that were accepted since record mode began.
  public private(set) var acceptedCount: UInt64 = 0
  /// Bytes that may wait, unless it is a single record.
  let limit: Int

  /// - Parameter limit: bytes that may wait before no more is accepted; a single record is accepted in any case.
  public init(limit: Int) { self.limit = limit }

  public var isEmpty: Bool { records.isEmpty }

  /// Whether a record of `count` bytes is welcome now.
  public func hasRoom(for count: Int) -> Bool { records.isEmpty || byteCount + count <= limit }

  /// Puts a record at the end, whether there is room or not.
  ///
  /// - Parameter origin: where in `bytes` it begins.
  public mutating func append(_ bytes: [UInt8], from origin: Int = 0) {
    precondition(origin < bytes.count, "a record has at least one byte")
    records.append(Record(bytes: bytes, offset: origin))
    byteCount += bytes.count - origin
    acceptedCount += 1
  }

  /// What is to be written next: the rest of the first record, from `offset` on; `nil` if all is written.
  public var unwritten: (bytes: [UInt8], offset: Int)? { records.first.map { ($0.bytes, $0.offset) } }

  /// The kernel has taken `count` bytes of what was to be written next.
  public mutating func wrote(_ count: Int) {
    precondition(
      count <= records[0].bytes.count - records[0].offset, "no more than the first record is written")
    records[0].offset += count
    byteCount -= count
    if records[0].offset == records[0].bytes.count { records.removeFirst() }
  }
}

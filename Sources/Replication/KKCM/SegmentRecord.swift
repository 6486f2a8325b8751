import Packet

/// The record of one TCP segment, in either direction: what its header says of the connection's state,
/// and the payload that the secondary does not have yet.
///
/// 40 bytes (record header and fixed fields), then the payload. It is written by whoever owns the link's
/// buffer, straight from the frame, so that nothing is copied on the way.
public struct SegmentRecord: Hashable, Sendable {
  /// Record header and fixed fields, in bytes.
  public static let fixedByteCount = RecordHeader.byteCount + 24

  /// `sdrlSegment` or `prlSegment`.
  public var kind: RecordKind
  /// The socket, as the receiver calls it.
  public var handle: Handle
  /// Sequence number of the first payload byte.
  public var sequence: SequenceNumber
  public var acknowledgment: SequenceNumber
  /// The window the segment advertises, in bytes: already shifted by the scale.
  public var window: UInt32
  public var flags: TCPFlags
  public var timestamps: TCPTimestamps?
  /// Where the payload lies, in bytes from the start of what the record was made from.
  public var payload: Range<Int>

  /// Bytes of the whole record.
  @inlinable public var byteCount: Int { Self.fixedByteCount + payload.count }

  /// Sequence number behind the last payload byte, not counting FIN.
  @inlinable public var payloadEnd: SequenceNumber { sequence + payload.count }

  /// Writes everything but the payload to the first 40 bytes of `bytes`.
  public func store(in bytes: UnsafeMutableRawBufferPointer) {
    RecordHeader(kind: kind, byteCount: byteCount, handle: handle).store(in: bytes)
    bytes.storeBigEndian(sequence.rawValue, at: 16)
    bytes.storeBigEndian(acknowledgment.rawValue, at: 20)
    bytes.storeBigEndian(window, at: 24)
    bytes.storeBigEndian(timestamps?.value ?? 0, at: 28)
    bytes.storeBigEndian(timestamps?.echo ?? 0, at: 32)
    bytes[36] = flags.rawValue
    bytes[37] = timestamps == nil ? 0 : 1
    bytes.storeBigEndian(UInt16(0), at: 38)
  }

  /// Reads the record that `header` introduces; `record` is all of it.
  init(_ header: RecordHeader, _ record: UnsafeRawBufferPointer, at offset: Int) throws(RecordError) {
    guard header.byteCount >= Self.fixedByteCount else { throw .truncatedBody }
    guard record[37] <= 1, record.bigEndian(at: 38, as: UInt16.self) == 0 else {
      throw .invalidField("segment record")
    }
    kind = header.kind
    handle = header.handle
    sequence = SequenceNumber(record.bigEndian(at: 16))
    acknowledgment = SequenceNumber(record.bigEndian(at: 20))
    window = record.bigEndian(at: 24)
    flags = TCPFlags(rawValue: record[36])
    timestamps =
      record[37] == 1
      ? TCPTimestamps(value: record.bigEndian(at: 28), echo: record.bigEndian(at: 32)) : nil
    payload = (offset + Self.fixedByteCount)..<(offset + header.byteCount)
  }

  init(
    kind: RecordKind, handle: Handle, sequence: SequenceNumber, segment: TCPSegment, window: UInt32,
    payload: Range<Int>
  ) {
    self.kind = kind
    self.handle = handle
    self.sequence = sequence
    acknowledgment = segment.acknowledgment
    self.window = window
    flags = segment.flags
    timestamps = segment.timestamps
    self.payload = payload
  }
}

import Packet

/// The log record of one record that an application gave to the record interface.
///
/// 24 bytes (record header and fixed fields), then the application's bytes, all of them: so the secondary has it whole or
/// not at all.
struct OutgoingRecord: Hashable, Sendable {
  /// Record header and fixed fields, in bytes.
  static let fixedByteCount = RecordHeader.byteCount + 8

  /// The socket, as the receiver calls it.
  var handle: Handle
  /// Sequence number of the first byte.
  var sequence: SequenceNumber
  /// How far the socket may have sent (`SendLimit`).
  var sendLimit: SequenceNumber
  /// Where the application's bytes lie, from the start of what the record was read from.
  var payload: Range<Int>

  /// Writes everything but the payload to the first 24 bytes of `bytes`.
  func store(in bytes: UnsafeMutableRawBufferPointer) {
    RecordHeader(kind: .sdrlRecord, byteCount: Self.fixedByteCount + payload.count, handle: handle)
      .store(in: bytes)
    bytes.storeBigEndian(sequence.rawValue, at: 16)
    bytes.storeBigEndian(sendLimit.rawValue, at: 20)
  }

  init(handle: Handle, sequence: SequenceNumber, sendLimit: SequenceNumber, payload: Range<Int>) {
    self.handle = handle
    self.sequence = sequence
    self.sendLimit = sendLimit
    self.payload = payload
  }

  /// Reads the record that `header` introduces; `record` is all of it.
  init(_ header: RecordHeader, _ record: UnsafeRawBufferPointer, at offset: Int) throws(RecordError) {
    guard header.byteCount > Self.fixedByteCount else { throw .truncatedBody }
    handle = header.handle
    sequence = SequenceNumber(record.bigEndian(at: 16))
    sendLimit = SequenceNumber(record.bigEndian(at: 20))
    payload = (offset + Self.fixedByteCount)..<(offset + header.byteCount)
    guard sendLimit <= sequence + payload.count else { throw .invalidField("send limit") }
  }
}

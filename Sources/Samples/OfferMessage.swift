import JSR

/// What the primary instance says to the secondary one on the channel between them.
///
/// 32 bytes, network byte order, and 24 more if a message of the connection is under way:
///
/// | bytes | field |
/// |---|---|
/// | 0–3 | magic, `JSRO` |
/// | 4 | version, 1 |
/// | 5 | 1 offer: make the snoop pair of this handle; 2 withdrawal: the offer came to nothing |
/// | 6 | slot of the sender |
/// | 7 | flags: bit 0, a message is under way and 24 bytes follow |
/// | 8–15 | the primary's handle |
/// | 16–23 | bytes the server has read from the peer |
/// | 24–31 | bytes the server has sent to the peer |
/// | 32–43 | the header of the message under way, as far as it has been read, then zeros |
/// | 44 | how many bytes of it have been read |
/// | 45–47 | 0 |
/// | 48–51 | payload bytes still to be read or, for a source, to be sent |
/// | 52–55 | 0 |
struct OfferMessage: Hashable, Sendable {
  enum Kind: UInt8, Sendable { case offer = 1, withdrawal = 2 }

  static let byteCount = 32
  static let extendedByteCount = 56

  var kind: Kind
  var slot: UInt8
  var primary: Handle
  var resumePoint: ResumePoint

  init(kind: Kind, slot: UInt8, primary: Handle, resumePoint: ResumePoint = .start) {
    self.kind = kind
    self.slot = slot
    self.primary = primary
    self.resumePoint = resumePoint
  }

  /// Reads one message from the front of `bytes`; `nil` if it is not complete yet.
  static func parse(
    _ bytes: UnsafeRawBufferPointer
  ) throws(ChannelMessageError) -> (message: OfferMessage, byteCount: Int)? {
    try ChannelMessageError.checkPrologue(bytes)
    guard bytes.count >= byteCount else { return nil }
    guard let kind = Kind(rawValue: bytes[5]) else { throw .unknownKind(bytes[5]) }
    let isExtended = bytes[7] & 1 != 0
    guard !isExtended || bytes.count >= extendedByteCount else { return nil }
    var point = ResumePoint.start
    point.inputPosition = bytes.bigEndianWord(at: 16)
    point.outputPosition = bytes.bigEndianWord(at: 24)
    if isExtended {
      guard bytes[44] <= MessageHeader.byteCount else { throw .nonsense("more than 12 bytes of a header") }
      point.header = PartialHeader(UnsafeRawBufferPointer(rebasing: bytes[32...]), count: Int(bytes[44]))
      point.remaining = UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: 48, as: UInt32.self))
    }
    let message = OfferMessage(
      kind: kind, slot: bytes[6], primary: Handle(rawValue: bytes.bigEndianWord(at: 8)), resumePoint: point)
    return (message, isExtended ? extendedByteCount : byteCount)
  }

  var bytes: [UInt8] {
    let isExtended = !resumePoint.isBetweenMessages
    var bytes = [UInt8](repeating: 0, count: isExtended ? Self.extendedByteCount : Self.byteCount)
    bytes.withUnsafeMutableBytes { bytes in
      ChannelMessageError.storePrologue(in: bytes)
      bytes[5] = kind.rawValue
      bytes[6] = slot
      bytes[7] = isExtended ? 1 : 0
      bytes.storeBytes(of: primary.rawValue.bigEndian, toByteOffset: 8, as: UInt64.self)
      bytes.storeBytes(of: resumePoint.inputPosition.bigEndian, toByteOffset: 16, as: UInt64.self)
      bytes.storeBytes(of: resumePoint.outputPosition.bigEndian, toByteOffset: 24, as: UInt64.self)
      guard isExtended else { return }
      resumePoint.header.withBytes { header in
        UnsafeMutableRawBufferPointer(rebasing: bytes[32..<44]).copyMemory(from: header)
      }
      bytes[44] = UInt8(resumePoint.header.count)
      bytes.storeBytes(of: resumePoint.remaining.bigEndian, toByteOffset: 48, as: UInt32.self)
    }
    return bytes
  }
}

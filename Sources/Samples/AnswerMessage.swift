import JSR

/// What the secondary instance answers to an offer.
///
/// 36 bytes, network byte order:
///
/// | bytes | field |
/// |---|---|
/// | 0–3 | magic, `JSRO` |
/// | 4 | version, 1 |
/// | 5 | 3 |
/// | 6 | slot of the sender |
/// | 7 | 0 |
/// | 8–15 | the primary's handle, as offered |
/// | 16–23 | the secondary's handle, 0 if there is none |
/// | 24–27 | 0 the pair is there, 1 refused |
/// | 28–31 | number of the `rcv` descriptor, for the log |
/// | 32–35 | number of the `snd` descriptor |
struct AnswerMessage: Hashable, Sendable {
  static let byteCount = 36
  private static let kind: UInt8 = 3

  var slot: UInt8
  var primary: Handle
  /// `nil` if the offer was refused.
  var pair: Pair?

  struct Pair: Hashable, Sendable {
    var secondary: Handle
    var rcv: Int32
    var snd: Int32
  }

  init(slot: UInt8, primary: Handle, pair: Pair?) {
    self.slot = slot
    self.primary = primary
    self.pair = pair
  }

  /// Reads one message from the front of `bytes`; `nil` if it is not complete yet.
  static func parse(
    _ bytes: UnsafeRawBufferPointer
  ) throws(ChannelMessageError) -> (message: AnswerMessage, byteCount: Int)? {
    try ChannelMessageError.checkPrologue(bytes)
    guard bytes.count >= byteCount else { return nil }
    guard bytes[5] == kind else { throw .unknownKind(bytes[5]) }
    let status = UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: 24, as: UInt32.self))
    let pair =
      status != 0
      ? nil
      : Pair(
        secondary: Handle(rawValue: bytes.bigEndianWord(at: 16)),
        rcv: Int32(bigEndian: bytes.loadUnaligned(fromByteOffset: 28, as: Int32.self)),
        snd: Int32(bigEndian: bytes.loadUnaligned(fromByteOffset: 32, as: Int32.self)))
    let message = AnswerMessage(
      slot: bytes[6], primary: Handle(rawValue: bytes.bigEndianWord(at: 8)), pair: pair)
    return (message, byteCount)
  }

  var bytes: [UInt8] {
    var bytes = [UInt8](repeating: 0, count: Self.byteCount)
    bytes.withUnsafeMutableBytes { bytes in
      ChannelMessageError.storePrologue(in: bytes)
      bytes[5] = Self.kind
      bytes[6] = slot
      bytes.storeBytes(of: primary.rawValue.bigEndian, toByteOffset: 8, as: UInt64.self)
      bytes.storeBytes(of: (pair?.secondary.rawValue ?? 0).bigEndian, toByteOffset: 16, as: UInt64.self)
      bytes.storeBytes(of: UInt32(pair == nil ? 1 : 0).bigEndian, toByteOffset: 24, as: UInt32.self)
      bytes.storeBytes(of: (pair?.rcv ?? -1).bigEndian, toByteOffset: 28, as: Int32.self)
      bytes.storeBytes(of: (pair?.snd ?? -1).bigEndian, toByteOffset: 32, as: Int32.self)
    }
    return bytes
  }
}

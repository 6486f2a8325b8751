/// The other end of the channel does not speak this protocol; the channel is closed.
enum ChannelMessageError: Error, Hashable, CustomStringConvertible {
  case notTheProtocol
  case version(UInt8)
  case unknownKind(UInt8)
  case nonsense(String)

  private static let magic: UInt32 = 0x4a53_524f
  private static let version: UInt8 = 1

  var description: String {
    switch self {
    case .notTheProtocol: "the other end of the channel is not jsrutil: check --ore and --ore-port"
    case .version(let version): "the other instance speaks version \(version): run the same jsrutil on both"
    case .unknownKind(let kind): "message of unknown kind \(kind): run the same jsrutil on both"
    case .nonsense(let detail): "message makes no sense: \(detail)"
    }
  }

  /// Complains as soon as the bytes that are there cannot be the start of a message.
  static func checkPrologue(_ bytes: UnsafeRawBufferPointer) throws(ChannelMessageError) {
    guard bytes.count >= 5 else { return }
    guard UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self)) == magic else { throw .notTheProtocol }
    guard bytes[4] == version else { throw .version(bytes[4]) }
  }

  static func storePrologue(in bytes: UnsafeMutableRawBufferPointer) {
    bytes.storeBytes(of: magic.bigEndian, as: UInt32.self)
    bytes[4] = version
  }
}

extension UnsafeRawBufferPointer {
  func bigEndianWord(at offset: Int) -> UInt64 {
    UInt64(bigEndian: loadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }
}

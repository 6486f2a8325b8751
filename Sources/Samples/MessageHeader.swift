/// The 12 bytes before every message of the sample traffic, both ways, in network byte order.
///
/// | bytes | field |
/// |---|---|
/// | 0–3 | payload length in bytes |
/// | 4–7 | number of the message on its connection, from 0 |
/// | 8–9 | number of the connection at the peer |
/// | 10 | kind |
/// | 11 | who answered: 255 from the peer, the slot of its routing engine from the server |
///
/// The last byte is the only one that the server changes, so the answer to an echo message is the message
/// itself with one byte replaced.
struct MessageHeader: Hashable, Sendable {
  /// What the peer wants done with a message.
  enum Kind: UInt8, Sendable, CaseIterable {
    /// The payload comes back behind the header.
    case echo = 0
    /// The server reads the payload and then answers with the header alone.
    case sink = 1
    /// No payload follows; the server sends as much as the header says, behind its own.
    case source = 2
  }

  static let byteCount = 12
  static let answeredByOffset = 11
  /// What the peer writes where the server puts its slot.
  static let notAnswered: UInt8 = 0xff

  var payloadByteCount: UInt32
  var number: UInt32
  var connection: UInt16
  var kind: Kind
  var answeredBy: UInt8

  init(payloadByteCount: UInt32, number: UInt32, connection: UInt16, kind: Kind, answeredBy: UInt8) {
    self.payloadByteCount = payloadByteCount
    self.number = number
    self.connection = connection
    self.kind = kind
    self.answeredBy = answeredBy
  }

  /// Reads the first 12 bytes of `bytes`; `nil` if the kind is not known.
  init?(_ bytes: UnsafeRawBufferPointer) {
    guard let kind = Kind(rawValue: bytes[10]) else { return nil }
    payloadByteCount = UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self))
    number = UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
    connection = UInt16(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt16.self))
    self.kind = kind
    answeredBy = bytes[Self.answeredByOffset]
  }

  /// Writes the header into the first 12 bytes of `bytes`.
  func store(in bytes: UnsafeMutableRawBufferPointer) {
    bytes.storeBytes(of: payloadByteCount.bigEndian, as: UInt32.self)
    bytes.storeBytes(of: number.bigEndian, toByteOffset: 4, as: UInt32.self)
    bytes.storeBytes(of: connection.bigEndian, toByteOffset: 8, as: UInt16.self)
    bytes[10] = kind.rawValue
    bytes[Self.answeredByOffset] = answeredBy
  }

  /// Calls `body` with the 12 bytes of the header.
  func withBytes<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
    withUnsafeTemporaryAllocation(byteCount: Self.byteCount, alignment: 4) { bytes in
      store(in: bytes)
      return body(UnsafeRawBufferPointer(bytes))
    }
  }

  /// How many payload bytes the peer sends behind this header.
  var requestPayloadByteCount: UInt32 { kind == .source ? 0 : payloadByteCount }

  /// How many payload bytes the server sends behind this header.
  var answerPayloadByteCount: UInt32 { kind == .sink ? 0 : payloadByteCount }
}

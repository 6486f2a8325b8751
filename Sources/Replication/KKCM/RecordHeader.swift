import Packet

/// What a record is: its layer and what that layer says with it.
///
/// The raw value is the type in the high byte and the subtype in the low one, as they stand in the header.
public enum RecordKind: UInt16, Sendable, CaseIterable {
  /// Outgoing bytes that the primary is about to send.
  case sdrlSegment = 0x0101
  /// A piece of the send queue as the handshake found it.
  case sdrlInitial = 0x0102
  /// A whole record that an application gave to the record interface.
  case sdrlRecord = 0x0103
  /// A datagram that the primary is about to send.
  case sdrlDatagram = 0x0104
  /// The control block, after a change that no segment record carries.
  case psrmUpdate = 0x0201
  /// The control block as the handshake found it.
  case psrmSnapshot = 0x0202
  /// Incoming bytes that the primary has taken in.
  case prlSegment = 0x0301
  /// A piece of the receive queue as the handshake found it.
  case prlInitial = 0x0302
  /// A whole frame that reached the old primary after it had handed mastership over. From version 3 of the link on the
  /// header names the routing instance that it arrived in, where other records name a socket.
  case prlLateFrame = 0x0303
  /// A datagram that the primary has taken in, or, in a handshake, one that its application has not read.
  case prlDatagram = 0x0304
  /// A socket is about to be replicated.
  case ihaBegin = 0x0401
  /// All that the handshake has to say has been said.
  case ihaCommit = 0x0402
  /// The secondary has the socket.
  case ihaAccept = 0x0403
  /// The secondary will not, or no longer, keep the socket; it has already let go of it.
  case ihaReject = 0x0404
  /// The primary stops replicating the socket.
  case ihaEnd = 0x0405
  /// The secondary has let go of the socket after `ihaEnd`.
  case ihaEnded = 0x0406
  /// The secondary's application reads too slowly for the present rate: send it nothing new for a while.
  case ihaPause = 0x0407
  /// Go on.
  case ihaResume = 0x0408
  /// An application of the sender's RE has registered a service, or has it no more.
  case ihaService = 0x0409
  /// The primary's instance of a service asks the secondary's to follow a connection.
  case ihaRequest = 0x040a
  /// What the secondary's instance says to that.
  case ihaAnswer = 0x040b
  /// The primary has no use of an answer any more.
  case ihaWithdraw = 0x040c
  case kkcmHello = 0x0501
  case kkcmKeepalive = 0x0502
  case kkcmAcknowledge = 0x0503
  case kkcmClose = 0x0504
  /// The secondary asks the primary to hand mastership over.
  case mastershipRequest = 0x0601
  /// Everything before this record is all there will be: the receiver is the primary now.
  case mastershipHandover = 0x0602
  /// To a primary whose lease ran out: nobody has taken over, go on.
  case mastershipGrant = 0x0603

  /// Whether the record takes a position in the replication log and is acknowledged by it.
  @inlinable public var isLogged: Bool {
    switch self {
    case .sdrlSegment, .sdrlInitial, .sdrlRecord, .sdrlDatagram, .psrmUpdate, .psrmSnapshot, .prlSegment,
      .prlInitial, .prlDatagram, .ihaBegin, .ihaCommit, .ihaEnd:
      true
    case .prlLateFrame, .ihaAccept, .ihaReject, .ihaEnded, .ihaPause, .ihaResume, .ihaService,
      .ihaRequest, .ihaAnswer, .ihaWithdraw, .kkcmHello, .kkcmKeepalive, .kkcmAcknowledge, .kkcmClose,
      .mastershipRequest, .mastershipHandover, .mastershipGrant:
      false
    }
  }

  /// The layer whose timeout the record is held against.
  public var layer: Layer {
    switch rawValue >> 8 {
    case 1: .sdrl
    case 2: .psrm
    case 3: .prl
    case 4: .iha
    case 5: .kkcm
    default: .mastership
    }
  }
}

/// The layers of JSR, by the type they have in a record header.
public enum Layer: UInt8, Sendable, CaseIterable, CustomStringConvertible {
  case sdrl = 1, psrm, prl, iha, kkcm, mastership

  public var description: String {
    switch self {
    case .sdrl: "SDRL"
    case .psrm: "PSRM"
    case .prl: "PRL"
    case .iha: "IHA"
    case .kkcm: "KKCM"
    case .mastership: "mastership"
    }
  }
}

/// Why a stream of records cannot be read on. The link is closed with this as the reason; nothing else is
/// lost.
public enum RecordError: Error, Hashable, Sendable, CustomStringConvertible {
  case unknownKind(type: UInt8, subtype: UInt8)
  case unknownVersion(UInt8)
  case unknownFlags(UInt8)
  case lengthOutOfRange(UInt32, limit: Int)
  case truncatedBody
  case surplusBytes(Int)
  case invalidField(String)
  case unknownHandle(Handle)
  /// A record that may not come in the present state of the link.
  case unexpected(RecordKind)
  /// Two engines that cannot be a pair, for this reason.
  case noPair(String)

  public var description: String {
    switch self {
    case .unknownKind(let type, let subtype): "record of unknown type \(type), subtype \(subtype)"
    case .unknownVersion(let version): "record of unknown version \(version)"
    case .unknownFlags(let flags): "record with unknown flags \(flags)"
    case .lengthOutOfRange(let length, let limit):
      "record length \(length) is not between \(RecordHeader.byteCount) and \(limit)"
    case .truncatedBody: "record ends before its last field"
    case .surplusBytes(let count): "record has \(count) bytes after its last field"
    case .invalidField(let name): "record has an invalid \(name)"
    case .unknownHandle(let handle): "record for handle \(handle), which was never allocated"
    case .unexpected(let kind): "record \(kind) is not allowed in this state"
    case .noPair(let reason): reason
    }
  }
}

/// The 16 bytes before every record on the inter-RE link, in network byte order: type (8 bits), subtype
/// (8), version (8), flags (8), length of the whole record in bytes (32), handle at the receiver (64).
public struct RecordHeader: Hashable, Sendable {
  public static let byteCount = 16
  public static let version: UInt8 = 1
  static let lengthOffset = 4

  public var kind: RecordKind
  /// Bytes of the whole record, this header included.
  public var byteCount: Int
  /// The socket the record is about, by the name that the receiver gave it; 0 where it is about none. (In a late frame
  /// the routing instance.)
  public var handle: Handle

  @inlinable public init(kind: RecordKind, byteCount: Int, handle: Handle) {
    self.kind = kind
    self.byteCount = byteCount
    self.handle = handle
  }

  /// Reads a header from the first 16 bytes of `bytes`.
  public init(_ bytes: UnsafeRawBufferPointer, lengthLimit: Int) throws(RecordError) {
    guard let kind = RecordKind(rawValue: bytes.bigEndian(at: 0)) else {
      throw .unknownKind(type: bytes[0], subtype: bytes[1])
    }
    guard bytes[2] == Self.version else { throw .unknownVersion(bytes[2]) }
    guard bytes[3] == 0 else { throw .unknownFlags(bytes[3]) }
    let length: UInt32 = bytes.bigEndian(at: Self.lengthOffset)
    guard length >= Self.byteCount, length <= lengthLimit else {
      throw .lengthOutOfRange(length, limit: lengthLimit)
    }
    self.init(kind: kind, byteCount: Int(length), handle: Handle(rawValue: bytes.bigEndian(at: 8)))
  }

  /// How many bytes the record that begins with `bytes` lacks, as far as these tell: 0 if it is whole, or no record.
  public static func missingByteCount(_ bytes: UnsafeRawBufferPointer) -> Int {
    guard bytes.count >= byteCount else { return byteCount - bytes.count }
    let length: UInt32 = bytes.bigEndian(at: lengthOffset)
    return max(0, Int(length) - bytes.count)
  }

  /// Writes the header to the first 16 bytes of `bytes`.
  public func store(in bytes: UnsafeMutableRawBufferPointer) {
    bytes.storeBigEndian(kind.rawValue, at: 0)
    bytes[2] = Self.version
    bytes[3] = 0
    bytes.storeBigEndian(UInt32(byteCount), at: Self.lengthOffset)
    bytes.storeBigEndian(handle.rawValue, at: 8)
  }
}

import Packet
import Replication

/// One datagram, as the two ends of a conversation make it and read it.
struct ModelDatagram: Hashable, Sendable, CustomStringConvertible {
  /// What it says; an empty datagram says nothing.
  struct Text: Hashable, Sendable {
    /// The number of its conversation.
    var conversation: Int
    var isFromPeer: Bool
    /// Counted by whoever sends.
    var number: Int
    /// What the peer asks for, or is answered; `nil` if it is told without having asked.
    var request: Int?

    static let byteCount = 13
  }

  /// Whose it is at the other end.
  var peerPort: UInt16
  var text: Text?
  /// Of its payload: 0 without a text, and otherwise at least those of the text.
  var byteCount: Int

  var description: String {
    guard let text else { return "an empty datagram" }
    return "datagram \(text.number)\(text.request.map { " (request \($0))" } ?? "") of \(byteCount) bytes"
  }

  /// What fills the payload behind the text tells this datagram from all others.
  private static func filling(_ text: Text, at offset: Int) -> UInt8 {
    UInt8(
      truncatingIfNeeded: (text.number &* 31 &+ text.conversation &* 77 &+ offset
        &+ (text.isFromPeer ? 7 : 0))
        &* 0x9e37_79b1 >> 11)
  }

  var payload: [UInt8] {
    guard let text else { return [] }
    var bytes: [UInt8] = [text.isFromPeer ? 1 : 0]
    bytes.reserveCapacity(byteCount)
    bytes.appendBigEndian(UInt16(byteCount))
    bytes.appendBigEndian(UInt16(text.conversation))
    bytes.appendBigEndian(UInt32(text.number))
    bytes.appendBigEndian(UInt32(text.request.map { $0 + 1 } ?? 0))
    for offset in Text.byteCount..<max(Text.byteCount, byteCount) {
      bytes.append(Self.filling(text, at: offset))
    }
    return bytes
  }

  /// Reads what `payload` makes; `nil` if it is anything else.
  init?(_ payload: some Collection<UInt8>, peerPort: UInt16) {
    self.peerPort = peerPort
    byteCount = payload.count
    guard byteCount > 0 else { return }
    let bytes = Array(payload)
    guard bytes.count >= Text.byteCount else { return nil }
    bytes.withUnsafeBytes { bytes in
      let request: UInt32 = bytes.bigEndian(at: 9)
      text = Text(
        conversation: Int(bytes.bigEndian(at: 3, as: UInt16.self)), isFromPeer: bytes[0] == 1,
        number: Int(bytes.bigEndian(at: 5, as: UInt32.self)), request: request == 0 ? nil : Int(request) - 1)
    }
    guard self.payload == bytes else { return nil }
  }

  init(_ text: Text?, peerPort: UInt16, byteCount: Int) {
    self.text = text
    self.peerPort = peerPort
    self.byteCount = text == nil ? 0 : max(byteCount, Text.byteCount)
  }

  /// The Ethernet frame of the datagram, with complete checksums and no hardware addresses.
  func frame(from source: Endpoint, to destination: Endpoint) -> [UInt8] {
    let builder = UDPFrameBuilder(
      sourceMAC: .zero, destinationMAC: .zero, source: source, destination: destination)
    return payload.withUnsafeBytes { builder.frame(payload: $0) }
  }
}

/// What a kernel keeps of a UDP socket.
struct ModelUDP {
  /// What the application has not read, the oldest first.
  private(set) var queue: [ModelDatagram] = []
  /// Datagrams that the queue takes.
  let limit: Int
  /// What the application calls the next datagram that it sends.
  var nextNumber: Int

  init(limit: Int, nextNumber: Int = 0) {
    self.limit = limit
    self.nextNumber = nextNumber
  }

  /// What does not fit is lost.
  mutating func receive(_ datagram: ModelDatagram) { if queue.count < limit { queue.append(datagram) } }

  mutating func read() -> ModelDatagram? { queue.isEmpty ? nil : queue.removeFirst() }
}

/// A frame of either transport, as a kernel and an engine look at it.
enum ModelPacket {
  case tcp(TCPPacket)
  case udp(UDPPacket)

  init?(_ frame: [UInt8]) {
    let packet = frame.withUnsafeBytes { bytes -> ModelPacket? in
      if let packet = TCPPacket(bytes) { return .tcp(packet) }
      return UDPPacket(bytes).map { .udp($0) }
    }
    guard let packet else { return nil }
    self = packet
  }

  /// Its flow, as that of a socket that is connected.
  func flow(isOutbound: Bool) -> Flow {
    switch self {
    case .tcp(let packet): isOutbound ? packet.outboundFlow() : packet.inboundFlow()
    case .udp(let packet): isOutbound ? packet.outboundFlow() : packet.inboundFlow()
    }
  }

  func checksumIsValid(_ frame: [UInt8]) -> Bool {
    frame.withUnsafeBytes { bytes in
      switch self {
      case .tcp(let packet): packet.checksumIsValid(bytes)
      case .udp(let packet): packet.checksumIsValid(bytes)
      }
    }
  }
}

extension Flow {
  /// The same for any peer, if there is such a thing.
  var unconnected: Flow? { transport == .udp ? Flow(unconnected: local, instance: instance) : nil }
}

/// A frame carries a number where nobody looks, in the place of its hardware addresses: to know it again.
enum FrameStamp {
  static func put(_ stamp: UInt64, on frame: inout [UInt8]) {
    frame.withUnsafeMutableBytes { $0.storeBigEndian(stamp, at: 0) }
  }

  static func read(_ frame: [UInt8]) -> UInt64 { frame.withUnsafeBytes { $0.bigEndian(at: 0) } }
}

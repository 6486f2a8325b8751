/// A UDP datagram inside an IP packet inside an Ethernet frame: everything the engine wants to know of it, read once,
/// with no copy and no allocation.
public struct UDPPacket: Sendable, Hashable {
  /// Bytes of a UDP header (RFC 768).
  public static let headerByteCount = 8
  /// Bytes of the largest payload: what an IPv6 packet without options leaves of a UDP length.
  public static let maximumPayloadByteCount = 65_535 - headerByteCount

  public var source: Endpoint
  public var destination: Endpoint
  /// Where the payload lies, in bytes from the start of the frame. It may be empty.
  public var payload: Range<Int>
  /// Where the UDP header starts, in bytes from the start of the frame.
  public var transportOffset: Int

  /// Reads `frame`, which starts with its Ethernet header; `nil` if it is not a whole UDP datagram. What the IP packet
  /// has behind the datagram is left out. (A length of 0, which in IPv6 stands for a jumbogram, is none.)
  @inlinable public init?(_ frame: UnsafeRawBufferPointer) {
    guard let packet = IPPacket(frame), !packet.isFragment,
      packet.transportNumber == TransportProtocol.udp.rawValue,
      packet.transport.count >= Self.headerByteCount
    else { return nil }
    let start = packet.transport.lowerBound
    let length = Int(frame.bigEndian(at: start &+ 4, as: UInt16.self))
    guard length >= Self.headerByteCount, length <= packet.transport.count else { return nil }
    source = Endpoint(packet.source, frame.bigEndian(at: start))
    destination = Endpoint(packet.destination, frame.bigEndian(at: start &+ 2))
    payload = (start &+ Self.headerByteCount)..<(start &+ length)
    transportOffset = start
  }

  /// The flow of a datagram that a connected socket of the local machine sent.
  @inlinable public func outboundFlow(in instance: RoutingInstanceID = .main) -> Flow {
    Flow(.udp, local: source, remote: destination, instance: instance)
  }

  /// The flow of a datagram that the local machine received, if its socket is connected.
  @inlinable public func inboundFlow(in instance: RoutingInstanceID = .main) -> Flow {
    Flow(.udp, local: destination, remote: source, instance: instance)
  }

  /// Whether the checksum of a frame whose checksum is complete is right. None at all, written as 0, is right over IPv4
  /// (RFC 768) and wrong over IPv6 (RFC 8200, section 8.1).
  @inlinable public func checksumIsValid(_ frame: UnsafeRawBufferPointer) -> Bool {
    if frame.bigEndian(at: transportOffset &+ 6, as: UInt16.self) == 0 {
      return source.address.family == .v4
    }
    let range = transportOffset..<payload.upperBound
    var sum = InternetChecksum()
    sum.addPseudoHeader(
      source: source.address, destination: destination.address, transport: .udp, length: range.count)
    sum.add(UnsafeRawBufferPointer(rebasing: frame[range]))
    return sum.value == 0
  }
}

/// A TCP segment inside an IP packet inside an Ethernet frame: everything the engine wants to know of it,
/// read once, with no copy and no allocation.
public struct TCPPacket: Sendable, Hashable {
  public var source: Endpoint
  public var destination: Endpoint
  public var segment: TCPSegment
  /// Where the TCP header starts, in bytes from the start of the frame.
  public var transportOffset: Int

  /// Reads `frame`, which starts with its Ethernet header; `nil` if it is not a whole TCP segment.
  @inlinable public init?(_ frame: UnsafeRawBufferPointer) {
    guard let packet = IPPacket(frame), !packet.isFragment,
      packet.transportNumber == TransportProtocol.tcp.rawValue,
      let segment = TCPSegment(frame, in: packet.transport)
    else { return nil }
    let start = packet.transport.lowerBound
    source = Endpoint(packet.source, frame.bigEndian(at: start))
    destination = Endpoint(packet.destination, frame.bigEndian(at: start &+ 2))
    self.segment = segment
    transportOffset = start
  }

  /// The flow of a packet that the local machine sent.
  @inlinable public func outboundFlow(in instance: RoutingInstanceID = .main) -> Flow {
    Flow(.tcp, local: source, remote: destination, instance: instance)
  }

  /// The flow of a packet that the local machine received.
  @inlinable public func inboundFlow(in instance: RoutingInstanceID = .main) -> Flow {
    Flow(.tcp, local: destination, remote: source, instance: instance)
  }

  /// Whether the TCP checksum of a frame whose checksum is complete is right.
  @inlinable public func checksumIsValid(_ frame: UnsafeRawBufferPointer) -> Bool {
    let range = transportOffset..<segment.payload.upperBound
    var sum = InternetChecksum()
    sum.addPseudoHeader(
      source: source.address, destination: destination.address, transport: .tcp, length: range.count)
    sum.add(UnsafeRawBufferPointer(rebasing: frame[range]))
    return sum.value == 0
  }
}

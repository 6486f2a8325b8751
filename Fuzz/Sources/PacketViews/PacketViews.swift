import Fuzzing
import Glibc
import Packet

/// What is read of frames that the wire brings, and of addresses that people type.
///
/// An input is: what it is (1 byte, modulo 2), then a frame or a text.
@main
struct PacketViews {
  static func main() {
    fuzz { bytes in
      guard let kind = bytes.first else { return }
      withExactCopy(of: bytes.dropFirst()) { rest in
        kind & 1 == 0 ? readFrame(rest) : readAddress(rest)
      }
    }
  }

  private static func readFrame(_ frame: UnsafeRawBufferPointer) {
    if frame.count >= VirtioNetHeader.byteCount {
      var copy = [UInt8](repeating: 0, count: VirtioNetHeader.byteCount)
      copy.withUnsafeMutableBytes { VirtioNetHeader(frame).store(in: $0) }
      precondition(copy.elementsEqual(frame.prefix(copy.count)), "a virtio-net header is not what was read")
    }
    if let packet = IPPacket(frame) {
      precondition(packet.transport.lowerBound >= 34 && packet.transport.upperBound <= frame.count)
      precondition(packet.source.family == packet.destination.family)
    }
    if let packet = TCPPacket(frame) { check(packet, frame) }
    if let packet = UDPPacket(frame) { check(packet, frame) }
    if let message = AddressResolution.Message(frame) { check(message) }
    if let message = NeighborDiscovery.Message(frame) { check(message) }
  }

  private static func check(_ packet: TCPPacket, _ frame: UnsafeRawBufferPointer) {
    let segment = packet.segment
    precondition(segment.payload.lowerBound >= packet.transportOffset + TCPSegment.minimumHeaderByteCount)
    precondition(segment.payload.upperBound <= frame.count)
    precondition(packet.inboundFlow().local == packet.outboundFlow().remote)
    precondition(
      packet.checksumIsValid(frame)
        == (plainSum(
          packet.source, packet.destination, .tcp, frame[packet.transportOffset..<segment.payload.upperBound])
          == 0xffff),
      "the checksum is not what RFC 1071 says")

    // What is written again from what was read reads the same.
    let builder = TCPFrameBuilder(
      sourceMAC: Ethernet.source(frame), destinationMAC: Ethernet.destination(frame), source: packet.source,
      destination: packet.destination)
    // A payload next to the limit of IP leaves no room for options that were not there before.
    guard segment.payload.count <= 65_000 else { return }
    let rebuilt = builder.frame(
      sequence: segment.sequence, acknowledgment: segment.acknowledgment, flags: segment.flags,
      window: segment.window, timestamps: segment.timestamps,
      payload: UnsafeRawBufferPointer(rebasing: frame[segment.payload]))
    withExactCopy(of: rebuilt) { copy in
      guard let again = TCPPacket(copy) else { preconditionFailure("a frame that was built cannot be read") }
      precondition(again.checksumIsValid(copy), "a frame that was built has a wrong checksum")
      precondition(again.source == packet.source && again.destination == packet.destination)
      precondition(copy[again.segment.payload].elementsEqual(frame[segment.payload]))
      var expected = segment
      expected.payload = again.segment.payload
      precondition(again.segment == expected, "a frame that was built reads otherwise")
      precondition(Ethernet.source(copy) == Ethernet.source(frame))
    }
  }

  private static func check(_ packet: UDPPacket, _ frame: UnsafeRawBufferPointer) {
    let start = packet.transportOffset
    precondition(packet.payload.lowerBound == start + UDPPacket.headerByteCount)
    precondition(packet.payload.upperBound <= frame.count)
    precondition(packet.inboundFlow().local == packet.outboundFlow().remote)
    let hasChecksum = frame[start + 6] != 0 || frame[start + 7] != 0
    let sum = plainSum(packet.source, packet.destination, .udp, frame[start..<packet.payload.upperBound])
    precondition(
      packet.checksumIsValid(frame)
        == (hasChecksum ? sum == 0xffff : packet.source.address.family == .v4),
      "the checksum is not what RFC 768 says")

    let builder = UDPFrameBuilder(
      sourceMAC: Ethernet.source(frame), destinationMAC: Ethernet.destination(frame), source: packet.source,
      destination: packet.destination)
    let rebuilt = builder.frame(payload: UnsafeRawBufferPointer(rebasing: frame[packet.payload]))
    withExactCopy(of: rebuilt) { copy in
      guard let again = UDPPacket(copy) else { preconditionFailure("a frame that was built cannot be read") }
      precondition(again.checksumIsValid(copy), "a frame that was built has a wrong checksum")
      precondition(again.source == packet.source && again.destination == packet.destination)
      precondition(copy[again.payload].elementsEqual(frame[packet.payload]))
    }
  }

  /// The one's complement sum over pseudo header and segment, 16 bits at a time: 0xffff if it is right.
  private static func plainSum(
    _ source: Endpoint, _ destination: Endpoint, _ transport: TransportProtocol,
    _ segment: Slice<UnsafeRawBufferPointer>
  ) -> UInt32 {
    var bytes = source.address.bytes + destination.address.bytes
    bytes.appendBigEndian(UInt32(segment.count))
    bytes.appendBigEndian(UInt32(transport.rawValue))
    bytes += segment
    if bytes.count % 2 == 1 { bytes.append(0) }
    var sum: UInt32 = 0
    for index in stride(from: 0, to: bytes.count, by: 2) {
      sum += UInt32(bytes[index]) << 8 | UInt32(bytes[index + 1])
      sum = sum & 0xffff + sum >> 16
    }
    return sum
  }

  private static func check(_ message: AddressResolution.Message) {
    let frame = AddressResolution.announcement(
      of: message.sender, at: message.senderMAC, as: message.operation)
    let read = frame.withUnsafeBytes { AddressResolution.Message($0) }
    precondition(read?.sender == message.sender && read?.target == message.sender)
    precondition(read?.senderMAC == message.senderMAC && read?.operation == message.operation)
  }

  private static func check(_ message: NeighborDiscovery.Message) {
    precondition(message.target.family == .v6 && message.source.family == .v6)
    guard let address = message.linkLayerAddress else { return }
    let frame = NeighborDiscovery.announcement(of: message.target, at: address)
    let read = frame.withUnsafeBytes { NeighborDiscovery.Message($0) }
    precondition(read?.target == message.target && read?.linkLayerAddress == address)
  }

  private static func readAddress(_ bytes: UnsafeRawBufferPointer) {
    guard let text = String(validating: bytes, as: UTF8.self), !text.utf8.contains(0) else { return }
    let address = IPAddress(text)
    // The C library is of the same opinion.
    var memory = [UInt8](repeating: 0, count: 16)
    let family: IPAddress.Family? =
      inet_pton(AF_INET, text, &memory) == 1 ? .v4 : inet_pton(AF_INET6, text, &memory) == 1 ? .v6 : nil
    precondition(address?.family == family, "\(text) is of family \(String(describing: family))")
    guard let address else { return }
    precondition(
      memory.prefix(address.byteCount).elementsEqual(address.bytes), "\(text) is read as \(address)")
    precondition(IPAddress(address.description) == address, "\(address) is not read as it is written")
  }
}

import Packet

// What the engine reads of each frame.
extension Workload {
  private static let peers = 64

  static let packets: [Workload] = [
    parsing("TCP over IPv4: parse", .v4, .tcp) { TCPPacket($0)?.inboundFlow() },
    parsing("TCP over IPv6: parse", .v6, .tcp) { TCPPacket($0)?.inboundFlow() },
    parsing("UDP over IPv4: parse", .v4, .udp) { UDPPacket($0)?.inboundFlow() },
    parsing("UDP over IPv6: parse", .v6, .udp) { UDPPacket($0)?.inboundFlow() },
    parsing("TCP over IPv4: parse, check the sum of 1448 bytes", .v4, .tcp) { bytes in
      guard let packet = TCPPacket(bytes), packet.checksumIsValid(bytes) else { return nil }
      return packet.inboundFlow()
    },
    parsing("UDP over IPv4: parse, check the sum of 1448 bytes", .v4, .udp) { bytes in
      guard let packet = UDPPacket(bytes), packet.checksumIsValid(bytes) else { return nil }
      return packet.inboundFlow()
    },
  ]

  /// Frames of several peers in turn, with 1,448 bytes of payload each.
  private static func parsing(
    _ name: String, _ family: IPAddress.Family, _ transport: TransportProtocol,
    parse: @escaping @Sendable (UnsafeRawBufferPointer) -> Flow?
  ) -> Workload {
    Workload(name) {
      let frames = (0..<peers).map { frame(family, transport, port: UInt16(40_000 + $0)) }
      return { times in
        var sum = 0
        for number in 0..<times {
          let flow = frames[number % peers].withUnsafeBytes(parse)
          sum += Int(flow!.remote.port) - number % peers
        }
        precondition(sum == 40_000 * times, "a frame has another port than it was given")
      }
    }
  }

  private static func frame(_ family: IPAddress.Family, _ transport: TransportProtocol, port: UInt16)
    -> [UInt8]
  {
    func address(_ host: UInt32) -> IPAddress {
      family == .v4
        ? IPAddress(v4: 0x0505_0500 + host)
        : IPAddress(v6High: 0x2001_0db8_0005_0000, low: UInt64(host))
    }
    let (peer, local) = (Endpoint(address(4), port), Endpoint(address(5), 16_000))
    let (peerMAC, localMAC) = (
      MACAddress(rawValue: 0x0200_0000_0001), MACAddress(rawValue: 0x0200_0000_0002)
    )
    let payload = (0..<1_448).map { UInt8(truncatingIfNeeded: $0) }
    switch transport {
    case .tcp:
      let builder = TCPFrameBuilder(
        sourceMAC: peerMAC, destinationMAC: localMAC, source: peer, destination: local)
      return payload.withUnsafeBytes {
        builder.frame(
          sequence: SequenceNumber(1), acknowledgment: SequenceNumber(2), flags: [.ack, .psh], window: 500,
          timestamps: TCPTimestamps(value: 900, echo: 300), payload: $0)
      }
    case .udp:
      let builder = UDPFrameBuilder(
        sourceMAC: peerMAC, destinationMAC: localMAC, source: peer, destination: local)
      return payload.withUnsafeBytes { builder.frame(payload: $0) }
    }
  }
}

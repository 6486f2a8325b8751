import Packet

extension Seeds {
  static func packetSeeds() -> [[UInt8]] {
    let mac = MACAddress(rawValue: 0x0200_0000_0001)
    let v4 = IPAddress(v4: 0x0505_0505)
    let v6 = IPAddress(v6High: 0x2001_0db8_0000_0000, low: 5)
    var frames: [[UInt8]] = []
    for (address, other) in [
      (v4, IPAddress(v4: 0x0505_0504)), (v6, IPAddress(v6High: 0x2001_0db8 << 32, low: 4)),
    ] {
      let builder = TCPFrameBuilder(
        sourceMAC: mac, destinationMAC: .broadcast, source: Endpoint(address, 16_000),
        destination: Endpoint(other, 40_000))
      for timestamps in [nil, TCPTimestamps(value: 1, echo: 2)] {
        for payload in [[], Array("an odd payload!".utf8)] {
          let frame = payload.withUnsafeBytes {
            builder.frame(
              sequence: SequenceNumber(0xffff_fff0), acknowledgment: SequenceNumber(9), flags: [.ack, .psh],
              window: 502, timestamps: timestamps, payload: $0)
          }
          frames.append(frame)
          frames.append([UInt8](repeating: 1, count: VirtioNetHeader.byteCount) + frame)
          if address.family == .v6 { frames += extended(frame) }
        }
      }
    }
    for (address, other) in [
      (v4, IPAddress(v4: 0x0505_0504)), (v6, IPAddress(v6High: 0x2001_0db8 << 32, low: 4)),
    ] {
      let builder = UDPFrameBuilder(
        sourceMAC: mac, destinationMAC: .broadcast, source: Endpoint(address, 17_000),
        destination: Endpoint(other, 50_000))
      for payload in [[], Array("an odd payload!".utf8)] {
        let frame = payload.withUnsafeBytes { builder.frame(payload: $0) }
        frames.append(frame)
        if address.family == .v6 { frames += extended(frame) }
      }
    }
    frames.append(AddressResolution.probe(for: v4, from: mac))
    frames.append(AddressResolution.announcement(of: v4, at: mac))
    frames.append(AddressResolution.announcement(of: v4, at: mac, as: .reply))
    frames.append(NeighborDiscovery.probe(for: v6, from: mac))
    frames.append(NeighborDiscovery.announcement(of: v6, at: mac))
    let texts = [
      "5.5.5.5", "0.0.0.0", "255.255.255.255", "1.2.3", "01.2.3.4", "256.1.1.1", "::", "::1", "2001:db8::5",
      "1:2:3:4:5:6:7:8", "1::8", "::ffff:5.5.5.5", "fe80::1%eth0", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8",
      "1:::2",
      "12345::", "64:ff9b::192.0.2.33",
    ]
    return frames.map { [0] + $0 } + texts.map { [1] + Array($0.utf8) }
  }

  /// The frame with IPv6 extension headers of each kind in front of its segment (RFC 8200, section 4).
  private static func extended(_ frame: [UInt8]) -> [[UInt8]] {
    let next = 20
    let start = Ethernet.headerByteCount + 40
    return [
      [(0, [0, 5, 2, 0, 0, 0, 0])], [(43, [0, 4, 0, 0, 0, 0, 0])], [(44, [0, 0, 0, 1, 2, 3, 4])],
      [(44, [0, 0, 1, 1, 2, 3, 4])],
      [(0, [0, 5, 2, 0, 0, 0, 0]), (60, [1] + [UInt8](repeating: 0, count: 14))],
    ].map { (headers: [(kind: UInt8, rest: [UInt8])]) in
      var chain: [UInt8] = []
      for (index, header) in headers.enumerated() {
        chain.append(index + 1 < headers.count ? headers[index + 1].kind : frame[next])
        chain += header.rest
      }
      var result = frame
      result[next] = headers[0].kind
      let length = frame.count - start + chain.count
      result[18] = UInt8(length >> 8)
      result[19] = UInt8(length & 255)
      result.insert(contentsOf: chain, at: start)
      return result
    }
  }
}

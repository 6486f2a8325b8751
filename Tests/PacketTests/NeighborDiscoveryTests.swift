import Packet
import Testing

@Suite("Neighbour discovery") struct NeighborDiscoveryTests {
  private let mac = MACAddress(rawValue: 0x0200_5e10_0001)

  private func read(_ frame: [UInt8]) -> NeighborDiscovery.Message? {
    frame.withUnsafeBytes { NeighborDiscovery.Message($0) }
  }

  @Test("An announcement goes to all nodes, and overrides what they know")
  func announcement() throws {
    let address = try #require(IPAddress("2001:db8:5::5"))
    let frame = NeighborDiscovery.announcement(of: address, at: mac)
    let message = try #require(read(frame))
    #expect(message.kind == .advertisement)
    #expect(message.source == address && message.target == address)
    #expect(message.destination == IPAddress("ff02::1"))
    #expect(message.linkLayerAddress == mac)
    #expect(message.overrides && !message.isSolicited)
    frame.withUnsafeBytes {
      #expect(Ethernet.destination($0) == MACAddress(rawValue: 0x3333_0000_0001))
      #expect(Ethernet.source($0) == mac)
    }
  }

  @Test(
    "A probe claims nothing: it comes from nobody, and names no hardware address (RFC 4862, section 5.4.2)")
  func probe() throws {
    let address = try #require(IPAddress("2001:db8::a1b2:c3d4"))
    let frame = NeighborDiscovery.probe(for: address, from: mac)
    let message = try #require(read(frame))
    #expect(message.kind == .solicitation)
    #expect(message.source == IPAddress("::"))
    #expect(message.destination == IPAddress("ff02::1:ffb2:c3d4"))
    #expect(message.target == address)
    #expect(message.linkLayerAddress == nil)
    frame.withUnsafeBytes { #expect(Ethernet.destination($0) == MACAddress(rawValue: 0x3333_ffb2_c3d4)) }
  }

  /// What Linux 6.18 said on a veth when it was asked for fd09::5 by ``NeighborDiscovery/probe(for:from:)``: not
  /// solicited, since nobody in particular had asked, but overriding.
  private static let captured: [UInt8] = [
    0x33, 0x33, 0, 0, 0, 1, 0x5e, 0x93, 0xa0, 0x6a, 0xe3, 0xb8, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 0x20, 0x3a,
    0xff, 0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 1, 0x88, 0, 0x79, 0xcb, 0x20, 0, 0, 0, 0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 2, 1,
    0x5e, 0x93, 0xa0, 0x6a, 0xe3, 0xb8,
  ]

  @Test("What a kernel says is read, and its checksum is ours")
  func kernel() throws {
    let message = try #require(read(Self.captured))
    #expect(message.kind == .advertisement)
    #expect(message.target == IPAddress("fd09::5") && message.source == IPAddress("fd09::5"))
    #expect(message.destination == IPAddress("ff02::1"))
    #expect(message.linkLayerAddress == Self.captured.withUnsafeBytes { Ethernet.source($0) })
    #expect(message.overrides && !message.isSolicited)
  }

  @Test("A message of which any bit was changed is not taken for one, unless Ethernet alone has it")
  func changes() throws {
    for frame in [
      Self.captured, NeighborDiscovery.probe(for: try #require(IPAddress("2001:db8::5")), from: mac),
    ] {
      // Behind the hardware addresses, which no checksum covers, and but for traffic class and flow label.
      for place in 12..<frame.count where !(14..<18).contains(place) {
        for bit in 0..<8 {
          var bad = frame
          bad[place] ^= 1 << UInt8(bit)
          #expect(read(bad) == nil, "byte \(place), bit \(bit)")
        }
      }
      for count in 0..<frame.count { #expect(read(Array(frame[..<count])) == nil, "\(count) bytes") }
      #expect(read(frame + [0, 0, 0]) != nil, "padded by Ethernet")
    }
  }

  @Test("Options that lead nowhere are not followed")
  func options() throws {
    let good = NeighborDiscovery.announcement(of: try #require(IPAddress("2001:db8::5")), at: mac)
    for length in [0, 2, 255] as [UInt8] {
      var bad = good
      bad[79] = length
      // The checksum is made to fit again: both bytes are the lower ones of their words.
      let difference = Int(length) - 1
      let sum = (Int(bad[56]) << 8 | Int(bad[57])) - difference
      let folded = sum <= 0 ? sum + 0xffff : sum
      bad[56] = UInt8(folded >> 8)
      bad[57] = UInt8(folded & 0xff)
      #expect(read(bad) == nil, "an option of \(length) times eight bytes")
    }
  }
}

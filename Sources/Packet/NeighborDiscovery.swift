/// Neighbour discovery of IPv6 over Ethernet (RFC 4861): the announcements that move a replicated address, and the
/// probes that ask whether somebody still answers for it. What ``AddressResolution`` is for IPv4.
public enum NeighborDiscovery {
  /// ICMPv6, as the protocol number of an IPv6 packet.
  public static let protocolNumber: UInt8 = 58

  public enum Kind: UInt8, Sendable { case solicitation = 135, advertisement = 136 }

  /// The group that every IPv6 node is in (RFC 4291, section 2.7.1).
  static let allNodes = IPAddress(v6High: 0xff02_0000_0000_0000, low: 1)
  static let unspecified = IPAddress(v6High: 0, low: 0)

  // Option types (section 4.6.1) and flags of advertisements (section 4.4).
  private static let sourceLinkLayerAddress: UInt8 = 1
  private static let targetLinkLayerAddress: UInt8 = 2
  private static let solicitedFlag: UInt8 = 0x40
  private static let overrideFlag: UInt8 = 0x20

  private static let ipStart = Ethernet.headerByteCount
  private static let messageStart = ipStart + 40
  /// Of a message without options.
  private static let messageByteCount = 24
  /// Of an option that holds an Ethernet address.
  private static let optionByteCount = 8

  /// What a solicitation or an advertisement says.
  public struct Message: Hashable, Sendable {
    public var kind: Kind
    /// Unspecified in a solicitation that only asks whether somebody has the target (RFC 4862, section 5.4.2).
    public var source: IPAddress
    public var destination: IPAddress
    /// Whom the message is about.
    public var target: IPAddress
    /// Of the source of a solicitation, or the target of an advertisement; `nil` if the message does not tell.
    public var linkLayerAddress: MACAddress?
    /// Of an advertisement: it answers a solicitation.
    public var isSolicited: Bool
    /// Of an advertisement: it replaces what the receiver knows.
    public var overrides: Bool

    /// Reads an Ethernet frame; `nil` if it is no such message, or not a valid one (RFC 4861, section 7.1).
    public init?(_ frame: UnsafeRawBufferPointer) {
      guard let packet = IPPacket(frame), Ethernet.type(frame) == Ethernet.typeIPv6, !packet.isFragment,
        packet.transportNumber == NeighborDiscovery.protocolNumber,
        // A hop limit below that of the sender: it came through a router.
        frame[NeighborDiscovery.ipStart + 7] == 255,
        packet.transport.count >= NeighborDiscovery.messageByteCount
      else { return nil }
      let start = packet.transport.lowerBound
      guard let kind = Kind(rawValue: frame[start]), frame[start + 1] == 0,
        NeighborDiscovery.checksum(of: frame, packet) == 0
      else { return nil }
      self.kind = kind
      source = packet.source
      destination = packet.destination
      target = IPAddress(.v6, frame, at: start + 8)
      let flags = kind == .advertisement ? frame[start + 4] : 0
      isSolicited = flags & NeighborDiscovery.solicitedFlag != 0
      overrides = flags & NeighborDiscovery.overrideFlag != 0
      guard !NeighborDiscovery.isMulticast(target) else { return nil }

      let wanted =
        kind == .solicitation
        ? NeighborDiscovery.sourceLinkLayerAddress : NeighborDiscovery.targetLinkLayerAddress
      var option = start + NeighborDiscovery.messageByteCount
      let end = packet.transport.upperBound
      while option < end {
        guard option + 2 <= end else { return nil }
        let length = Int(frame[option + 1]) * 8
        guard length > 0, option + length <= end else { return nil }
        if frame[option] == wanted { linkLayerAddress = MACAddress(frame, at: option + 2) }
        option += length
      }
    }
  }

  /// Everybody on the segment learns that `address` is now at `mac`: an advertisement that nobody has asked for
  /// (section 7.2.6), which overrides what they know.
  public static func announcement(of address: IPAddress, at mac: MACAddress) -> [UInt8] {
    frame(
      .advertisement, flags: overrideFlag, from: address, mac, to: allNodes, target: address,
      option: targetLinkLayerAddress)
  }

  /// Asks who has `address` without claiming it: a solicitation from the unspecified address, as in the detection of
  /// duplicate addresses (RFC 4862, section 5.4.2). Whoever has it answers to all nodes.
  public static func probe(for address: IPAddress, from mac: MACAddress) -> [UInt8] {
    frame(
      .solicitation, flags: 0, from: unspecified, mac, to: solicitedNode(address), target: address,
      option: nil)
  }

  /// The group in which whoever has `address` listens to solicitations for it (RFC 4291, section 2.7.1).
  static func solicitedNode(_ address: IPAddress) -> IPAddress {
    IPAddress(v6High: 0xff02_0000_0000_0000, low: 0x0000_0001_ff00_0000 | address.low & 0xff_ffff)
  }

  /// Where frames to a group go (RFC 2464, section 7).
  static func multicastMAC(_ group: IPAddress) -> MACAddress {
    MACAddress(rawValue: 0x3333_0000_0000 | group.low & 0xffff_ffff)
  }

  private static func isMulticast(_ address: IPAddress) -> Bool { address.high >> 56 == 0xff }

  /// - Parameter option: the type of the option that holds `mac`, if there is to be one.
  private static func frame(
    _ kind: Kind, flags: UInt8, from source: IPAddress, _ mac: MACAddress, to destination: IPAddress,
    target: IPAddress, option: UInt8?
  ) -> [UInt8] {
    precondition(target.family == .v6, "neighbour discovery is for IPv6")
    let byteCount = messageByteCount + (option == nil ? 0 : optionByteCount)
    var frame = [UInt8](repeating: 0, count: messageStart + byteCount)
    frame.withUnsafeMutableBytes { bytes in
      Ethernet.store(
        destination: multicastMAC(destination), source: mac, type: Ethernet.typeIPv6, in: bytes)
      bytes.storeBigEndian(UInt32(6) << 28, at: ipStart)
      bytes.storeBigEndian(UInt16(byteCount), at: ipStart + 4)
      bytes[ipStart + 6] = protocolNumber
      // Proves that no router was on the way (RFC 4861, section 3.1).
      bytes[ipStart + 7] = 255
      source.store(in: bytes, at: ipStart + 8)
      destination.store(in: bytes, at: ipStart + 24)
      bytes[messageStart] = kind.rawValue
      bytes[messageStart + 4] = flags
      target.store(in: bytes, at: messageStart + 8)
      if let option {
        bytes[messageStart + messageByteCount] = option
        bytes[messageStart + messageByteCount + 1] = UInt8(optionByteCount / 8)
        mac.store(in: bytes, at: messageStart + messageByteCount + 2)
      }
      let readable = UnsafeRawBufferPointer(bytes)
      guard let packet = IPPacket(readable) else { preconditionFailure("just written") }
      bytes.storeBigEndian(checksum(of: readable, packet), at: messageStart + 2)
    }
    return frame
  }

  /// Over the pseudo header and the message (RFC 4443, section 2.3); 0 if the message carries the right one.
  private static func checksum(of frame: UnsafeRawBufferPointer, _ packet: IPPacket) -> UInt16 {
    var sum = InternetChecksum()
    sum.addPseudoHeader(
      source: packet.source, destination: packet.destination, protocolNumber: protocolNumber,
      length: packet.transport.count)
    sum.add(UnsafeRawBufferPointer(rebasing: frame[packet.transport]))
    return sum.value
  }
}

/// What an IPv4 or IPv6 header inside an Ethernet frame says about the transport segment behind it.
public struct IPPacket: Sendable, Hashable {
  public var source: IPAddress
  public var destination: IPAddress
  /// The IP protocol number of what follows the last extension header.
  public var transportNumber: UInt8
  /// More fragments follow, or this is not the first one: ports cannot be trusted to be there.
  public var isFragment: Bool
  /// Where the transport segment lies, in bytes from the start of the frame. Padding behind the packet is
  /// left out.
  public var transport: Range<Int>

  /// Reads the IP packet of an Ethernet frame; `nil` if the frame holds none or it is malformed.
  @inlinable public init?(_ frame: UnsafeRawBufferPointer) {
    guard frame.count >= Ethernet.headerByteCount else { return nil }
    let start = Ethernet.headerByteCount
    switch Ethernet.type(frame) {
    case Ethernet.typeIPv4:
      guard frame.count >= start &+ 20, frame[start] >> 4 == 4 else { return nil }
      let headerByteCount = Int(frame[start] & 15) &* 4
      let total = Int(frame.bigEndian(at: start &+ 2, as: UInt16.self))
      guard headerByteCount >= 20, total >= headerByteCount, start &+ total <= frame.count else { return nil }
      let fragment: UInt16 = frame.bigEndian(at: start &+ 6)
      isFragment = fragment & 0x3fff != 0
      transportNumber = frame[start &+ 9]
      source = IPAddress(.v4, frame, at: start &+ 12)
      destination = IPAddress(.v4, frame, at: start &+ 16)
      transport = (start &+ headerByteCount)..<(start &+ total)

    case Ethernet.typeIPv6:
      guard frame.count >= start &+ 40, frame[start] >> 4 == 6 else { return nil }
      let end = start &+ 40 &+ Int(frame.bigEndian(at: start &+ 4, as: UInt16.self))
      guard end <= frame.count else { return nil }
      source = IPAddress(.v6, frame, at: start &+ 8)
      destination = IPAddress(.v6, frame, at: start &+ 24)
      var next = frame[start &+ 6]
      var offset = start &+ 40
      var fragmented = false
      // Hop-by-hop, routing and destination options, each with its length in 8-byte units beyond the
      // first, and the 8-byte fragment header (RFC 8200, section 4). The packet filter looks for ports behind
      // the same ones, and no other (nft_set_pktinfo_ipv6, include/net/netfilter/nf_tables_ipv6.h): for both,
      // an authentication header is the end of the chain.
      while next == 0 || next == 43 || next == 60 || next == 44 {
        guard offset &+ 8 <= end else { return nil }
        if next == 44 {
          let fragment: UInt16 = frame.bigEndian(at: offset &+ 2)
          if fragment & 0xfff9 != 0 { fragmented = true }
          next = frame[offset]
          offset &+= 8
          if fragment & 0xfff8 != 0 { break }
        } else {
          next = frame[offset]
          offset &+= 8 &* (Int(frame[offset &+ 1]) &+ 1)
        }
      }
      guard offset <= end else { return nil }
      isFragment = fragmented
      transportNumber = next
      transport = offset..<end

    default: return nil
    }
  }
}

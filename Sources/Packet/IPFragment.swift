/// One fragment of an IPv4 or IPv6 packet (RFC 791, section 3.2; RFC 8200, section 4.5).
public struct IPFragment: Sendable, Hashable {
  /// What the fragments of one packet have in common.
  public struct Identity: Sendable, Hashable {
    public var source: IPAddress
    public var destination: IPAddress
    public var identification: UInt32
    /// The IP protocol number; 0 for IPv6, where not every fragment tells it.
    public var transportNumber: UInt8
  }

  public var identity: Identity
  /// Where the content belongs in the packet, in bytes from the start of what was fragmented.
  public var offset: Int
  public var isLast: Bool
  /// Where the content lies, in bytes from the start of the frame.
  public var content: Range<Int>
  /// What the content of the whole packet begins with: the number of a transport or an extension header.
  public var nextHeader: UInt8

  /// Reads the fragment of an Ethernet frame; `nil` if the frame holds none, or a malformed one: what is not the last
  /// has a length that is a multiple of 8, and none reaches beyond 65,535 bytes.
  public init?(_ frame: UnsafeRawBufferPointer) {
    guard let packet = IPPacket(frame), packet.isFragment else { return nil }
    let start = Ethernet.headerByteCount
    let field: UInt16
    if packet.source.family == .v4 {
      identity = Identity(
        source: packet.source, destination: packet.destination,
        identification: UInt32(frame.bigEndian(at: start + 4, as: UInt16.self)),
        transportNumber: packet.transportNumber)
      field = frame.bigEndian(at: start + 6)
      offset = Int(field & 0x1fff) * 8
      isLast = field & 0x2000 == 0
      content = packet.transport
      nextHeader = packet.transportNumber
    } else {
      // IPPacket has walked the same way without leaving the packet.
      var next = frame[start + 6]
      var header = start + 40
      while next != Self.headerNumber {
        guard next == 0 || next == 43 || next == 60 else { return nil }
        next = frame[header]
        header += 8 * (Int(frame[header + 1]) + 1)
      }
      identity = Identity(
        source: packet.source, destination: packet.destination,
        identification: frame.bigEndian(at: header + 4), transportNumber: 0)
      field = frame.bigEndian(at: header + 2)
      offset = Int(field & 0xfff8)
      isLast = field & 1 == 0
      nextHeader = frame[header]
      let end = start + 40 + Int(frame.bigEndian(at: start + 4, as: UInt16.self))
      content = (header + 8)..<end
    }
    guard !content.isEmpty, isLast || content.count % 8 == 0, offset + content.count <= 65_535 else {
      return nil
    }
  }

  /// The fragment header of IPv6.
  private static let headerNumber: UInt8 = 44
}

/// The fragments of one packet, as they come, put together.
///
/// Judges like the kernel (`inet_frag_queue_insert`, net/ipv4/inet_fragment.c): a fragment that says nothing new is
/// ignored, one that overlaps others in part spoils the packet (RFC 5722).
public struct FragmentAssembly: Sendable {
  public enum Outcome: Sendable, Hashable {
    /// Others are missing.
    case incomplete
    /// All of it has been there before.
    case duplicate
    /// The packet is whole: an Ethernet frame that holds it unfragmented. It may be longer than any that is sent.
    case complete([UInt8])
    /// The fragments contradict each other.
    case spoilt
  }

  private var content: [UInt8] = []
  /// What has come, in order, not touching.
  private var ranges: [Range<Int>] = []
  /// Of what was fragmented, in bytes; known from the last fragment.
  private var total: Int?
  /// Ethernet and IP header of the first fragment.
  private var head: [UInt8]?
  private var nextHeader: UInt8 = 0

  public init() {}

  /// Bytes kept.
  public var byteCount: Int { content.count }

  /// Takes in a fragment, which was read of `frame`.
  public mutating func add(_ fragment: IPFragment, _ frame: UnsafeRawBufferPointer) -> Outcome {
    let range = fragment.offset..<(fragment.offset + fragment.content.count)
    if let total, range.upperBound > total || fragment.isLast && range.upperBound != total { return .spoilt }
    if fragment.isLast, let last = ranges.last, last.upperBound > range.upperBound { return .spoilt }
    if ranges.contains(where: { $0.lowerBound <= range.lowerBound && range.upperBound <= $0.upperBound }) {
      return .duplicate
    }
    if ranges.contains(where: { $0.overlaps(range) }) { return .spoilt }
    if fragment.isLast { total = range.upperBound }
    if fragment.offset == 0 {
      let isV4 = fragment.identity.source.family == .v4
      // IPv6: without extension headers that stand before the fragment header; they are for the way.
      head = Array(frame[..<(isV4 ? fragment.content.lowerBound : Ethernet.headerByteCount + 40)])
      nextHeader = fragment.nextHeader
    }
    if content.count < range.upperBound {
      content.append(contentsOf: repeatElement(0, count: range.upperBound - content.count))
    }
    content.withUnsafeMutableBytes { bytes in
      UnsafeMutableRawBufferPointer(rebasing: bytes[range]).copyMemory(
        from: UnsafeRawBufferPointer(rebasing: frame[fragment.content]))
    }
    insert(range)
    guard let total, let head, ranges.count == 1, ranges[0] == 0..<total else { return .incomplete }
    return whole(head, total)
  }

  private mutating func insert(_ range: Range<Int>) {
    var merged = range
    ranges.removeAll { other in
      guard other.upperBound == merged.lowerBound || other.lowerBound == merged.upperBound else {
        return false
      }
      merged = min(other.lowerBound, merged.lowerBound)..<max(other.upperBound, merged.upperBound)
      return true
    }
    ranges.insert(merged, at: ranges.firstIndex { $0.lowerBound > merged.lowerBound } ?? ranges.count)
  }

  private func whole(_ head: [UInt8], _ total: Int) -> Outcome {
    var frame = head
    frame.reserveCapacity(head.count + total)
    let ip = Ethernet.headerByteCount
    let isV4 = frame[ip] >> 4 == 4
    let length = isV4 ? head.count - ip + total : total
    // The header of the first fragment may be the longest one.
    guard length <= 65_535 else { return .spoilt }
    frame.withUnsafeMutableBytes { bytes in
      if isV4 {
        bytes.storeBigEndian(UInt16(length), at: ip + 2)
        bytes.storeBigEndian(UInt16(0), at: ip + 6)
        bytes.storeBigEndian(UInt16(0), at: ip + 10)
        var sum = InternetChecksum()
        sum.add(UnsafeRawBufferPointer(rebasing: bytes[ip...]))
        bytes.storeBigEndian(sum.value, at: ip + 10)
      } else {
        bytes.storeBigEndian(UInt16(length), at: ip + 4)
        bytes[ip + 6] = nextHeader
      }
    }
    frame.append(contentsOf: content)
    return .complete(frame)
  }
}

import Packet
import Pair
import Replication

/// Two nodes with a socket that is replicated from one to the other, all of it acknowledged.
struct ReplicatedSocket {
  var primary: ReplicationNode
  var secondary: ReplicationNode
  /// The primary's name for the socket.
  let handle: Handle
  /// The secondary's.
  let peer: Handle
  /// Of the last record in the log.
  let position: LogPosition
  /// One that the primary had from the secondary.
  let keepalive: Keepalive
  let now: Instant

  init(_ mode: ReplicationNode.Mode, _ transport: TransportProtocol = .tcp) {
    let flow = transport == .tcp ? Frames.flow(0) : Frames.datagrams
    var story = Story(mode)
    story.pair.openLink()
    story.meet()
    story.attach(1, transport: transport)
    story.replicate(0, flow)
    story.pair.exchange()
    primary = story.pair.machines[0].node
    secondary = story.pair.machines[1].node
    now = story.pair.machines[0].now
    (handle, peer) = (story.primary[0], story.secondary[0])
    let heard = Self.records(story.pair.heard[0])
    position = heard.last { $0.kind == .kkcmAcknowledge }!.bytes.withUnsafeBytes {
      $0.bigEndian(at: RecordHeader.byteCount)
    }
    keepalive = heard.last { $0.kind == .kkcmKeepalive }!.bytes.withUnsafeBytes {
      Keepalive(uplinkPayload: $0)!
    }
    precondition(primary.socket(of: flow)?.phase == .replicating, "the socket is not replicated")
    precondition(primary.occupancy.unacknowledgedRecords == 0 && position > 0, "a record is on its way")
    // In this mode the kernel is given what the peer sends, and the engine a copy of it.
    if mode == .overlap, transport == .tcp { primary.mirrored(flow) }
  }

  /// What a node has heard, record by record.
  private static func records(_ heard: [UInt8]) -> [(kind: RecordKind, bytes: [UInt8])] {
    var records: [(kind: RecordKind, bytes: [UInt8])] = []
    var rest = heard[...]
    while !rest.isEmpty {
      guard let header = rest.withUnsafeBytes({ try? RecordHeader($0, lengthLimit: $0.count) }) else {
        preconditionFailure("a node has heard what is no record")
      }
      records.append((header.kind, Array(rest.prefix(header.byteCount))))
      rest = rest.dropFirst(header.byteCount)
    }
    return records
  }

  // MARK: Packets

  enum Segment {
    /// The next one of ours, with so many bytes.
    case segmentOut(Int)
    /// The peer's.
    case segmentIn(Int)
  }

  /// A packet of the socket, as it is read from its frame, and the bytes of that.
  static func packet(_ segment: Segment) -> (packet: TCPPacket, byteCount: Int) {
    let frame =
      switch segment {
      case .segmentOut(let count):
        Frames.outbound(
          Frames.flow(0), sent: 0, received: 0, flags: count == 0 ? .ack : [.ack, .psh],
          payload: payload(count))
      case .segmentIn(let count):
        Frames.inbound(
          Frames.flow(0), received: 0, acknowledged: 4, flags: count == 0 ? .ack : [.ack, .psh],
          payload: payload(count))
      }
    return (frame.withUnsafeBytes { TCPPacket($0)! }, frame.count)
  }

  /// A datagram of the socket.
  static func datagram(isOutbound: Bool, byteCount: Int) -> (packet: UDPPacket, byteCount: Int) {
    let frame = Frames.datagram(peer: 0, isOutbound: isOutbound, payload: payload(byteCount))
    return (frame.withUnsafeBytes { UDPPacket($0)! }, frame.count)
  }

  private static func payload(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0) } }

  // MARK: Records

  /// The record that the primary makes of a segment.
  func record(of segment: Segment) -> SegmentRecord {
    var node = primary
    let (packet, byteCount) = Self.packet(segment)
    switch segment {
    case .segmentOut:
      _ = node.outbound(packet, reference: FrameReference(1), byteCount: byteCount, now: now)
    case .segmentIn:
      _ = node.inbound(packet, reference: FrameReference(1), byteCount: byteCount, now: now) { true }
    }
    guard case .appendSegment(let record) = node.actions.first else {
      preconditionFailure("a segment makes no record")
    }
    return record
  }

  /// The record that the primary makes of a datagram.
  func datagramRecord(isOutbound: Bool, byteCount: Int) -> DatagramRecord {
    var node = primary
    let (packet, frameByteCount) = Self.datagram(isOutbound: isOutbound, byteCount: byteCount)
    if isOutbound {
      _ = node.outbound(packet, reference: FrameReference(1), byteCount: frameByteCount, now: now)
    } else {
      _ = node.inbound(packet, reference: FrameReference(1), byteCount: frameByteCount, now: now) { true }
    }
    guard case .appendDatagram(let record) = node.actions.first else {
      preconditionFailure("a datagram makes no record")
    }
    return record
  }

  /// The record that the primary makes of a control block that has changed.
  var blockRecord: [UInt8] {
    var node = primary
    var packet = Self.packet(.segmentIn(0)).packet
    packet.segment.timestamps!.value += 1
    _ = node.inbound(packet, reference: FrameReference(1), byteCount: 66, now: now) { true }
    node.flushBlocks(now: now)
    guard case .send(let bytes) = node.actions.first else { preconditionFailure("a change makes no record") }
    return bytes
  }
}

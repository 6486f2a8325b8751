import Packet
import Replication

// What the primary's node does for a packet, from the packet that was read to the moment when it may go on.
extension Workload {
  static let primary: [Workload] = [
    Workload("primary: echo of 312 bytes") { repeating(EchoOnPrimary(byteCount: 312)) },
    Workload("primary: 1448 bytes out") { repeating(SegmentsOut(count: 1, byteCount: 1_448)) },
    Workload("primary: 16 segments of 64 bytes out") { repeating(SegmentsOut(count: 16, byteCount: 64)) },
    Workload("primary: 1448 bytes in, overlap") { repeating(SegmentIn(.overlap, byteCount: 1_448)) },
    Workload("primary: 1448 bytes in, strict") { repeating(SegmentIn(.strict, byteCount: 1_448)) },
    Workload("primary: acknowledgement out, nothing new") { repeating(KnownSegment(isOutbound: true)) },
    Workload("primary: acknowledgement in, nothing new") { repeating(KnownSegment(isOutbound: false)) },
    Workload("primary: control block changed") { repeating(ChangedBlock()) },
    Workload("primary: datagram of 312 bytes out") { repeating(DatagramOnPrimary(isOutbound: true)) },
    Workload("primary: datagram of 312 bytes in") { repeating(DatagramOnPrimary(isOutbound: false)) },
  ]
}

/// A primary, and what the secondary says to it.
private struct Primary {
  var node: ReplicationNode
  let now: Instant
  private let handle: Handle
  private var position: LogPosition
  /// A record that acknowledges.
  private let acknowledgement: UnsafeMutableRawBufferPointer

  init(_ socket: ReplicatedSocket) {
    node = socket.primary
    now = socket.now
    handle = socket.handle
    position = socket.position
    acknowledgement = .allocate(byteCount: RecordHeader.byteCount + 8, alignment: 8)
    RecordHeader(kind: .kkcmAcknowledge, byteCount: acknowledgement.count, handle: Handle(rawValue: 0))
      .store(in: acknowledgement)
  }

  var block: ControlBlock? { (try? node.socket(handle))?.block }

  mutating func send(_ packet: TCPPacket, _ byteCount: Int) -> Verdict {
    node.outbound(packet, reference: FrameReference(1), byteCount: byteCount, now: now)
  }

  mutating func arrive(_ packet: TCPPacket, _ byteCount: Int, expecting verdict: Verdict) {
    let actual = node.inbound(packet, reference: FrameReference(1), byteCount: byteCount, now: now) { true }
    precondition(actual == verdict)
  }

  /// The secondary has so many records more.
  mutating func acknowledge(_ count: Int) {
    position += LogPosition(count)
    acknowledgement.storeBigEndian(position, at: RecordHeader.byteCount)
    let used = node.linkReceived(UnsafeRawBufferPointer(acknowledgement), now: now)
    precondition(used == acknowledgement.count)
  }

  /// Takes the actions, which must be so many of one kind.
  @inline(__always) mutating func take(_ count: Int, _ isExpected: (Action) -> Bool) {
    precondition(node.actions.count == count)
    for action in node.actions { precondition(isExpected(action)) }
    node.actions.removeAll(keepingCapacity: true)
  }

  @inline(__always) mutating func takeSegmentRecords(_ count: Int) {
    take(count) { if case .appendSegment = $0 { true } else { false } }
  }
  @inline(__always) mutating func takeReleases(_ count: Int) {
    take(count) { if case .release = $0 { true } else { false } }
  }
  @inline(__always) mutating func takeSent(_ count: Int) {
    take(count) { if case .send = $0 { true } else { false } }
  }
}

/// The peer's message is logged, our answer is held until both are acknowledged.
private struct EchoOnPrimary: Repeatable {
  private var primary = Primary(ReplicatedSocket(.overlap))
  private let byteCount: Int
  private var incoming: (packet: TCPPacket, byteCount: Int)
  private var outgoing: (packet: TCPPacket, byteCount: Int)

  init(byteCount: Int) {
    self.byteCount = byteCount
    incoming = ReplicatedSocket.packet(.segmentIn(byteCount))
    outgoing = ReplicatedSocket.packet(.segmentOut(byteCount))
  }

  mutating func run(_ times: Int) {
    for _ in 0..<times {
      incoming.packet.segment.acknowledgment = outgoing.packet.segment.sequence
      primary.arrive(incoming.packet, incoming.byteCount, expecting: .drop)
      incoming.packet.segment.sequence += byteCount
      outgoing.packet.segment.acknowledgment = incoming.packet.segment.sequence
      let verdict = primary.send(outgoing.packet, outgoing.byteCount)
      precondition(verdict == .hold)
      outgoing.packet.segment.sequence += byteCount
      primary.takeSegmentRecords(2)
      primary.acknowledge(2)
      primary.takeReleases(1)
    }
    precondition(primary.block?.sendNext == outgoing.packet.segment.sequence)
    precondition(primary.block?.receiveNext == incoming.packet.segment.sequence)
  }
}

/// Segments of ours are held, acknowledged by the secondary and released, then acknowledged by the peer, of which the
/// secondary hears too.
private struct SegmentsOut: Repeatable {
  private var primary = Primary(ReplicatedSocket(.overlap))
  private let count: Int
  private let byteCount: Int
  private var outgoing: (packet: TCPPacket, byteCount: Int)
  private var acknowledgement = ReplicatedSocket.packet(.segmentIn(0))

  init(count: Int, byteCount: Int) {
    self.count = count
    self.byteCount = byteCount
    outgoing = ReplicatedSocket.packet(.segmentOut(byteCount))
  }

  mutating func run(_ times: Int) {
    for _ in 0..<times {
      for _ in 0..<count {
        let verdict = primary.send(outgoing.packet, outgoing.byteCount)
        precondition(verdict == .hold)
        outgoing.packet.segment.sequence += byteCount
      }
      primary.takeSegmentRecords(count)
      primary.acknowledge(count)
      primary.takeReleases(count)
      acknowledgement.packet.segment.acknowledgment = outgoing.packet.segment.sequence
      primary.arrive(acknowledgement.packet, acknowledgement.byteCount, expecting: .drop)
      primary.node.flushBlocks(now: primary.now)
      primary.takeSent(1)
      primary.acknowledge(1)
      primary.takeSent(0)
    }
    precondition(primary.block?.sendUnacknowledged == outgoing.packet.segment.sequence)
  }
}

/// A segment of the peer is logged, and delivered at once or when the secondary has it. The kernel's acknowledgement
/// goes when the secondary has the segment and, each time that the window has grown by much, has heard of that.
private struct SegmentIn: Repeatable {
  private var primary: Primary
  private let isStrict: Bool
  private let byteCount: Int
  private var incoming: (packet: TCPPacket, byteCount: Int)
  private var acknowledgement = ReplicatedSocket.packet(.segmentOut(0))

  init(_ mode: ReplicationNode.Mode, byteCount: Int) {
    primary = Primary(ReplicatedSocket(mode))
    isStrict = mode == .strict
    self.byteCount = byteCount
    incoming = ReplicatedSocket.packet(.segmentIn(byteCount))
  }

  mutating func run(_ times: Int) {
    for _ in 0..<times {
      primary.arrive(incoming.packet, incoming.byteCount, expecting: isStrict ? .hold : .drop)
      primary.takeSegmentRecords(1)
      if isStrict {
        primary.acknowledge(1)
        primary.takeReleases(1)
      }
      incoming.packet.segment.sequence += byteCount
      acknowledgement.packet.segment.acknowledgment = incoming.packet.segment.sequence
      let verdict = primary.send(acknowledgement.packet, acknowledgement.byteCount)
      precondition(verdict == .hold || isStrict && verdict == .pass)
      primary.node.flushBlocks(now: primary.now)
      primary.takeSent(1)
      primary.acknowledge(isStrict ? 1 : 2)
      primary.takeReleases(verdict == .hold ? 1 : 0)
    }
    precondition(primary.block?.receiveAcknowledged == incoming.packet.segment.sequence)
  }
}

/// A segment that tells the secondary nothing.
private struct KnownSegment: Repeatable {
  private var primary = Primary(ReplicatedSocket(.overlap))
  private let isOutbound: Bool
  private let packet: TCPPacket
  private let byteCount: Int

  init(isOutbound: Bool) {
    self.isOutbound = isOutbound
    (packet, byteCount) = ReplicatedSocket.packet(isOutbound ? .segmentOut(0) : .segmentIn(0))
    // The first one has what the handshake did not know.
    present()
    primary.node.flushBlocks(now: primary.now)
    if !primary.node.actions.isEmpty {
      primary.takeSent(1)
      primary.acknowledge(1)
    }
    primary.node.actions = []
  }

  private mutating func present() {
    if isOutbound {
      let verdict = primary.send(packet, byteCount)
      precondition(verdict == .pass)
    } else {
      primary.arrive(packet, byteCount, expecting: .drop)
    }
  }

  mutating func run(_ times: Int) {
    for _ in 0..<times { present() }
    primary.node.flushBlocks(now: primary.now)
    primary.takeSent(0)
  }
}

/// An acknowledgement of the peer moves its clock: the secondary hears of it in a record of the whole control block.
private struct ChangedBlock: Repeatable {
  private var primary = Primary(ReplicatedSocket(.overlap))
  private var acknowledgement = ReplicatedSocket.packet(.segmentIn(0))

  mutating func run(_ times: Int) {
    for _ in 0..<times {
      acknowledgement.packet.segment.timestamps!.value &+= 1
      primary.arrive(acknowledgement.packet, acknowledgement.byteCount, expecting: .drop)
      primary.node.flushBlocks(now: primary.now)
      primary.takeSent(1)
      primary.acknowledge(1)
      primary.takeSent(0)
    }
    precondition(primary.block?.timestampRecent == acknowledgement.packet.segment.timestamps!.value)
  }
}

/// A datagram of ours is held until the secondary has it; one of a peer is logged and passed on.
private struct DatagramOnPrimary: Repeatable {
  private var primary = Primary(ReplicatedSocket(.overlap, .udp))
  private let isOutbound: Bool
  private let packet: UDPPacket
  private let byteCount: Int

  init(isOutbound: Bool) {
    self.isOutbound = isOutbound
    (packet, byteCount) = ReplicatedSocket.datagram(isOutbound: isOutbound, byteCount: 312)
  }

  mutating func run(_ times: Int) {
    let (reference, now) = (FrameReference(1), primary.now)
    for _ in 0..<times {
      if isOutbound {
        let verdict = primary.node.outbound(packet, reference: reference, byteCount: byteCount, now: now)
        precondition(verdict == .hold)
      } else {
        let verdict = primary.node.inbound(packet, reference: reference, byteCount: byteCount, now: now) {
          true
        }
        precondition(verdict == .pass)
      }
      primary.take(1) { if case .appendDatagram = $0 { true } else { false } }
      primary.acknowledge(1)
      primary.takeReleases(isOutbound ? 1 : 0)
    }
    precondition(primary.node.occupancy.unacknowledgedRecords == 0)
  }
}

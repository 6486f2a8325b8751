import Packet
public import Replication

/// One node, and a machine around it that does whatever the node asks for, and holds it to its word: every
/// action is checked before it is carried out.
public struct Machine {
  public static let socketLimit = 4
  public static let holdLimit = 8 << 10
  public static let recordLimit = 2 << 10
  private static let service = ServiceName("echo")!

  private struct HeldFrame {
    var bytes: [UInt8]
    var isOutbound: Bool
  }

  public private(set) var node: ReplicationNode
  public var now: Instant
  /// What the node wants the other one to read.
  public private(set) var output: [UInt8] = []
  /// What came in and is not a whole record yet.
  private var input: [UInt8] = []
  /// Why the node wants the link closed; nothing more is read from it then.
  public private(set) var closing: String?
  /// Whether a request to steer is answered at once.
  public var answersSteering = true
  /// What the kernel makes of the lease.
  private var leaseEnd: Instant
  private var held: [FrameReference: HeldFrame] = [:]
  private var lastReference: Int32 = 0

  public init(slot: UInt8, mode: ReplicationNode.Mode, now: Instant) {
    self.now = now
    leaseEnd = now
    node = ReplicationNode(
      .init(
        node: "re\(slot)", slot: slot, priority: slot == 0 ? 200 : 100,
        timing: PairTiming(interval: .milliseconds(100), misses: 3), mode: mode, timeouts: LayerTimeouts(),
        socketLimit: Self.socketLimit, holdLimit: Self.holdLimit, recordLimit: Self.recordLimit,
        incarnation: UInt64(slot) + 1), now: now)
    try? node.register(Self.service)
  }

  public mutating func takeOutput() -> [UInt8] {
    defer { output = [] }
    return output
  }

  public var heldFrameCount: Int { held.count }

  // MARK: Link

  public mutating func openLink() {
    input = []
    output = []
    closing = nil
    node.linkOpened(now: now)
    perform()
  }

  public mutating func closeLink(_ ending: LinkEnding) {
    node.linkClosed(ending, now: now)
    perform()
    output = []
  }

  /// Bytes from the link, in pieces as they come. To be called while `closing` is `nil`.
  public mutating func receive(_ bytes: some Collection<UInt8>) {
    input += bytes
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: input.count, alignment: 1)
    defer { memory.deallocate() }
    memory.copyBytes(from: input)
    let used = node.linkReceived(UnsafeRawBufferPointer(memory), now: now)
    precondition((0...input.count).contains(used), "\(used) bytes used of \(input.count)")
    let given = input
    perform(input: given, used: used)
    precondition(closing != nil || given.count - used < Self.recordLimit, "a whole record is not used")
    input.removeFirst(used)
    node.linkBatchEnded(now: now)
    perform()
  }

  // MARK: Packets

  public mutating func send(_ frame: [UInt8]) { present(frame, isOutbound: true) }

  public mutating func arrive(_ frame: [UInt8]) { present(frame, isOutbound: false) }

  private mutating func present(_ frame: [UInt8], isOutbound: Bool) {
    lastReference += 1
    let reference = FrameReference(lastReference)
    let verdict: Verdict
    if let packet = frame.withUnsafeBytes({ TCPPacket($0) }) {
      verdict =
        isOutbound
        ? node.outbound(packet, reference: reference, byteCount: frame.count, now: now)
        : node.inbound(packet, reference: reference, byteCount: frame.count, now: now) {
          frame.withUnsafeBytes { packet.checksumIsValid($0) }
        }
    } else if let packet = frame.withUnsafeBytes({ UDPPacket($0) }) {
      verdict =
        isOutbound
        ? node.outbound(packet, reference: reference, byteCount: frame.count, now: now)
        : node.inbound(packet, reference: reference, byteCount: frame.count, now: now) {
          frame.withUnsafeBytes { packet.checksumIsValid($0) }
        }
    } else {
      return
    }
    if verdict == .hold { held[reference] = HeldFrame(bytes: frame, isOutbound: isOutbound) }
    perform(frame: frame)
    node.flushBlocks(now: now)
    perform()
  }

  // MARK: Whatever else happens

  /// Calls the node and carries out what it wants then.
  public mutating func call(_ body: (inout ReplicationNode, Instant) throws -> Void) {
    // A refusal is an answer like any other.
    try? body(&node, now)
    perform()
  }

  public mutating func tick(after span: Nanoseconds) {
    now = now + span
    call { $0.tick(now: $1) }
  }

  // MARK: Actions

  private mutating func perform(frame: [UInt8] = [], input: [UInt8] = [], used: Int = 0) {
    while !node.actions.isEmpty {
      let actions = node.actions
      node.actions = []
      for action in actions { perform(action, frame, input, used) }
    }
  }

  private mutating func perform(_ action: Action, _ frame: [UInt8], _ input: [UInt8], _ used: Int) {
    func check(_ range: Range<Int>) {
      precondition(range.lowerBound >= 0 && range.upperBound <= used, "\(range) of \(used) bytes used")
    }
    switch action {
    case .release(let reference), .discard(let reference):
      precondition(held.removeValue(forKey: reference) != nil, "a frame is let go of that is not held")
    case .replay(let reference):
      guard let frame = held.removeValue(forKey: reference) else {
        preconditionFailure("a frame is replayed that is not held")
      }
      present(frame.bytes, isOutbound: frame.isOutbound)
    case .injectLate(let range, _):
      check(range)
      present(Array(input[range]), isOutbound: false)

    case .appendSegment(let record):
      precondition(record.payload.isEmpty || record.payload.upperBound <= frame.count)
      var bytes = [UInt8](repeating: 0, count: SegmentRecord.fixedByteCount)
      bytes.withUnsafeMutableBytes { record.store(in: $0) }
      append(bytes + frame[record.payload])
    case .appendDatagram(let record):
      precondition(record.payload.isEmpty || record.payload.upperBound <= frame.count)
      var bytes = [UInt8](repeating: 0xff, count: DatagramRecord.fixedByteCount)
      bytes.withUnsafeMutableBytes { record.store(in: $0) }
      append(bytes + frame[record.payload])
    case .appendLateFrame(let header):
      var bytes = [UInt8](repeating: 0, count: RecordHeader.byteCount)
      bytes.withUnsafeMutableBytes { header.store(in: $0) }
      append(bytes + frame)
    case .send(let bytes): append(bytes)
    case .closeLink(let reason):
      precondition(!reason.isEmpty)
      closing = closing ?? reason
    case .sendOnUplink(let keepalive):
      let read = keepalive.uplinkPayload().withUnsafeBytes { Keepalive(uplinkPayload: $0) }
      precondition(read == keepalive, "a keepalive that the other one cannot read")

    case .snoop(_, _, let range): check(range)
    case .snoopDatagram(_, _, let remote, let local, let range):
      check(range)
      precondition(remote.address.family == local.address.family)
    case .snoopOwnedDatagram(_, _, let datagram):
      precondition(datagram.remote.address.family == datagram.local.address.family)
      precondition(datagram.payload.count <= Self.recordLimit)
    case .snoopOwned(_, _, let bytes): precondition(bytes.count <= Self.holdLimit + Self.recordLimit)
    case .steer(let handle, let flow):
      guard answersSteering else { return }
      if node.arbiter.phase == .primary, flow.transport == .udp {
        node.datagramSnapshotTaken(handle, Frames.datagramSnapshot, now: now)
      } else if node.arbiter.phase == .primary {
        node.snapshotTaken(handle, Frames.snapshot, now: now)
      } else {
        node.steered(handle)
      }

    case .grantLease(let duration, let limit):
      let isInTime = now <= limit
      if isInTime { leaseEnd = now + duration }
      node.leaseGranted(isInTime, now: now)
    case .renewLease(let duration):
      let isInForce = now < leaseEnd
      if isInForce { leaseEnd = duration.map { now + $0 } ?? Instant(nanoseconds: .max) }
      node.leaseRenewed(isInForce, now: now)
    case .revokeLease: leaseEnd = now

    case .service(.requested(let request)):
      precondition(request.service == Self.service && request.note.count <= ReplicationRequest.noteLimit)
      if request.note.first == 0 {
        try? node.declineRequest(request.primary, because: "no")
      } else if let handle = try? node.attach(
        primary: request.primary, transport: request.flow.transport)
      {
        try? node.answerRequest(request.primary, with: handle)
      }
    case .service(.answered(let handle, let secondary)):
      do {
        try node.replicate(handle, secondary: secondary, flow: Frames.flow(3))
      } catch {
        node.withdrawRequest(handle)
      }
    default: break
    }
  }

  private mutating func append(_ record: [UInt8]) {
    let header = record.withUnsafeBytes { try? RecordHeader($0, lengthLimit: Self.recordLimit) }
    precondition(header?.byteCount == record.count, "a record that the other one cannot read")
    output += record
  }

  /// Memory stays within what the configuration allows.
  public func checkOccupancy() {
    let occupancy = node.occupancy
    let frame = 65_550
    precondition(occupancy.sockets <= Self.socketLimit)
    precondition(occupancy.flows <= Self.socketLimit * 2)
    precondition(occupancy.heldBytes <= 2 * Self.holdLimit)
    precondition(occupancy.heldPackets == held.count, "\(occupancy.heldPackets) held of \(held.count)")
    precondition(occupancy.unacknowledgedRecordBytes <= Self.holdLimit + Self.socketLimit * frame)
    precondition(
      occupancy.bufferedBytes <= Self.socketLimit * 2 * Self.holdLimit,
      "\(occupancy.bufferedBytes) bytes buffered")
  }
}

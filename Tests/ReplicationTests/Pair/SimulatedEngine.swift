import Packet
import Replication
import Simulation

/// One routing engine: a real `ReplicationNode`, and a model of the machine around it.
final class SimulatedEngine {
  enum Lease: Equatable {
    case none
    case until(Instant)
    case endless
  }

  private struct HeldFrame {
    var bytes: [UInt8]
    var isOutbound: Bool
  }

  let slot: Int
  unowned let pair: SimulatedPair
  var node: ReplicationNode
  /// False once it has stopped for good. Its lease ends when its kernel says so.
  var isAlive = true
  /// It does not run for the time being; what is meant for it waits.
  private(set) var isAsleep = false
  /// Falls asleep after deciding to renew its lease, before doing it.
  var sleepsBeforeRenewal = false
  private var unfinished: [Action] = []
  var lease = Lease.none
  var hasAddresses = false
  /// How often it was asked to end all other connections.
  private(set) var endedConnections = 0
  var sockets: [Flow: ModelTCP] = [:]
  /// What the applications of UDP sockets have not read.
  var datagramSockets: [Flow: [Datagram]] = [:]
  /// What the pairs of UDP sockets have shown.
  private(set) var shown: [Handle: [SnoopStream: [Datagram]]] = [:]
  private var steered: Set<Flow> = []
  /// Of these, those whose peers' packets the kernel has too, as they come.
  private(set) var mirrored: Set<Flow> = []
  /// The kernel has them, and the engine has not.
  var losesCopies = false
  private var held: [FrameReference: HeldFrame] = [:]
  private var lastReference: Int32 = 0
  private var linkInput: [UInt8] = []

  private(set) var replicated: Set<Handle> = []
  private(set) var unreplicated: [Handle: UnreplicateReason] = [:]
  /// What was left of records when replication ended; empty if the other RE has them.
  private(set) var leftRecords: [Handle: RecordQueue] = [:]
  /// Handles whose records may be offered again.
  var haveRoom: Set<Handle> = []
  private(set) var safeRecords: [Handle: UInt64] = [:]
  private(set) var refused: [Handle: UnreplicateReason] = [:]
  private(set) var linkClosings: [String] = []
  /// What was said of services.
  var services: [ServiceAction] = []
  /// What it has logged.
  private(set) var lines: [(level: LogLevel, text: String)] = []
  /// Follows the primary, but does not say so.
  var withholdsAcknowledgements = false
  /// For tests that keep the handshake open.
  var answersSteering = true
  /// For tests of what happens while mastership is being taken over.
  var answersLease = true

  init(
    slot: Int, pair: SimulatedPair, mode: ReplicationNode.Mode, limit: Int, priority: UInt16,
    linkVersions: ClosedRange<UInt16>
  ) {
    self.slot = slot
    self.pair = pair
    node = ReplicationNode(
      .init(
        node: "re\(slot)", slot: UInt8(slot), priority: priority,
        timing: PairTiming(interval: .milliseconds(100), misses: 3), mode: mode, timeouts: LayerTimeouts(),
        socketLimit: 64, holdLimit: limit, recordLimit: 1 << 20,
        linkVersions: linkVersions, lostSocketsTurn: 2, incarnation: UInt64(slot + 1) * 1_000_000),
      now: pair.now)
  }

  var heldFrames: Int { held.count }

  var leaseIsInForce: Bool {
    switch lease {
    case .none: false
    case .endless: true
    case .until(let end): pair.now < end
    }
  }

  // MARK: Packets

  /// Sends whatever the kernel's socket wants to.
  func transmit(_ flow: Flow) {
    guard isAlive, let frames = sockets[flow]?.output(now: pair.now) else { return }
    for frame in frames { send(frame, flow) }
    node.flushBlocks(now: pair.now)
    perform()
  }

  /// Gives the kernel what it takes of the records of the socket.
  func writeRecords(_ handle: Handle) {
    guard let flow = pair.conversation(handle)?.flow, sockets[flow] != nil else { return }
    while let (bytes, offset) = leftRecords[handle]?.unwritten ?? node.unwrittenRecord(handle) {
      let count = min(bytes.count - offset, sockets[flow]!.writableByteCount)
      guard count > 0 else { break }
      sockets[flow]!.write(bytes[offset..<offset + count])
      if leftRecords[handle]?.wrote(count) == nil { node.wroteRecords(handle, count) }
    }
    transmit(flow)
  }

  func retransmit(_ flow: Flow) {
    guard isAlive, let frames = sockets[flow]?.retransmission(now: pair.now) else { return }
    for frame in frames { send(frame, flow) }
    node.flushBlocks(now: pair.now)
    perform()
  }

  private func send(_ output: ModelTCP.Output, _ flow: Flow) {
    egress(output.frame(from: flow.local, to: flow.remote))
  }

  /// Whether packets of the flow go to the engine.
  func steers(_ flow: Flow) -> Bool { steered.contains(flow) }

  private func egress(_ frame: [UInt8]) {
    if let packet = frame.withUnsafeBytes({ UDPPacket($0) }) { return egress(packet, frame) }
    let packet = frame.withUnsafeBytes { TCPPacket($0)! }
    guard steered.contains(packet.outboundFlow()) else { return leave(frame) }
    lastReference += 1
    let reference = FrameReference(lastReference)
    let verdict = node.outbound(packet, reference: reference, byteCount: frame.count, now: pair.now)
    if verdict == .hold { held[reference] = HeldFrame(bytes: frame, isOutbound: true) }
    perform(frame: frame)
    if verdict == .pass { leave(frame) }
  }

  // MARK: Datagrams

  func send(_ datagram: Datagram) {
    guard isAlive else { return }
    egress(datagram.frame(fromPeer: false))
  }

  private func isSteered(_ flow: Flow) -> Bool {
    steered.contains(flow) || steered.contains(Flow(unconnected: flow.local, instance: flow.instance))
  }

  private func egress(_ packet: UDPPacket, _ frame: [UInt8]) {
    guard isSteered(packet.outboundFlow()) else { return leave(frame) }
    lastReference += 1
    let reference = FrameReference(lastReference)
    let verdict = node.outbound(packet, reference: reference, byteCount: frame.count, now: pair.now)
    if verdict == .hold { held[reference] = HeldFrame(bytes: frame, isOutbound: true) }
    perform(frame: frame)
    if verdict == .pass { leave(frame) }
  }

  private func arrive(_ packet: UDPPacket, _ frame: [UInt8]) {
    guard isSteered(packet.inboundFlow()) else { return deliver(packet, frame) }
    lastReference += 1
    let reference = FrameReference(lastReference)
    let verdict = node.inbound(packet, reference: reference, byteCount: frame.count, now: pair.now) {
      frame.withUnsafeBytes { packet.checksumIsValid($0) }
    }
    if verdict == .hold { held[reference] = HeldFrame(bytes: frame, isOutbound: false) }
    perform(frame: frame)
    if verdict == .pass { deliver(packet, frame) }
  }

  private func deliver(_ packet: UDPPacket, _ frame: [UInt8]) {
    let flow = packet.inboundFlow()
    let unconnected = Flow(unconnected: flow.local)
    let socket = datagramSockets[flow] == nil ? unconnected : flow
    guard datagramSockets[socket] != nil else { return pair.reset(flow, slot: slot) }
    guard frame.withUnsafeBytes({ packet.checksumIsValid($0) }) else { return }
    datagramSockets[socket]!.append(
      Datagram(remote: packet.source, local: packet.destination, payload: Array(frame[packet.payload])))
  }

  private func show(_ datagram: Datagram, _ handle: Handle, _ stream: SnoopStream) {
    shown[handle, default: [:]][stream, default: []].append(datagram)
  }

  /// What the kernel's lease lets through is on the wire.
  private func leave(_ frame: [UInt8]) {
    guard leaseIsInForce else { return }
    pair.left(frame, slot: slot)
  }

  func arrive(_ frame: [UInt8]) {
    guard isAlive else { return }
    if let packet = frame.withUnsafeBytes({ UDPPacket($0) }) { return arrive(packet, frame) }
    let packet = frame.withUnsafeBytes { TCPPacket($0)! }
    let flow = packet.inboundFlow()
    if losesCopies, mirrored.contains(flow) {
      deliver(frame)
    } else if steered.contains(flow) {
      lastReference += 1
      let reference = FrameReference(lastReference)
      let verdict = node.inbound(packet, reference: reference, byteCount: frame.count, now: pair.now) {
        frame.withUnsafeBytes { packet.checksumIsValid($0) }
      }
      if verdict == .hold { held[reference] = HeldFrame(bytes: frame, isOutbound: false) }
      let isCopy = mirrored.contains(flow)
      perform(frame: frame)
      if verdict == .pass || isCopy { deliver(frame) }
    } else {
      deliver(frame)
    }
    node.flushBlocks(now: pair.now)
    perform()
  }

  private func deliver(_ frame: [UInt8]) {
    if let packet = frame.withUnsafeBytes({ UDPPacket($0) }) { return deliver(packet, frame) }
    frame.withUnsafeBytes { bytes in
      let packet = TCPPacket(bytes)!
      let flow = packet.inboundFlow()
      guard sockets[flow] != nil else { return pair.reset(flow, slot: slot) }
      guard packet.checksumIsValid(bytes) else { return }
      sockets[flow]!.receive(
        packet.segment, UnsafeRawBufferPointer(rebasing: bytes[packet.segment.payload]), now: pair.now)
      pair.drain(flow, slot: slot)
      transmit(flow)
    }
  }

  // MARK: Link, time

  func openLink() {
    linkInput = []
    node.linkOpened(now: pair.now)
    perform()
  }

  func receive(_ bytes: ArraySlice<UInt8>) {
    guard isAlive else { return }
    linkInput += bytes
    let input = linkInput
    let used = input.withUnsafeBytes { node.linkReceived($0, now: pair.now) }
    perform(input: input)
    linkInput.removeFirst(min(used, linkInput.count))
    if !withholdsAcknowledgements { node.linkBatchEnded(now: pair.now) }
    perform()
  }

  func closeLink(byPeer: Bool, carrierLost: Bool = false) {
    guard isAlive else { return }
    linkInput = []
    node.linkClosed(
      carrierLost ? .carrierLost : byPeer ? .endOfStream : .closedHere, now: pair.now)
    perform()
  }

  func sleep() { isAsleep = true }

  func wake() {
    isAsleep = false
    sleepsBeforeRenewal = false
    let actions = unfinished
    unfinished = []
    for action in actions { perform(action, [], []) }
    perform()
  }

  func tick() {
    guard isAlive, !isAsleep else { return }
    node.tick(now: pair.now)
    perform()
  }

  // MARK: Actions

  func perform(frame: [UInt8] = [], input: [UInt8] = []) {
    while !node.actions.isEmpty {
      let actions = node.actions
      node.actions = []
      for (index, action) in actions.enumerated() {
        if case .renewLease = action, sleepsBeforeRenewal {
          unfinished = Array(actions[index...])
          return sleep()
        }
        perform(action, frame, input)
      }
    }
  }

  private func perform(_ action: Action, _ frame: [UInt8], _ input: [UInt8]) {
    switch action {
    case .release(let reference):
      guard let held = held.removeValue(forKey: reference) else { return pair.broken("released twice") }
      if held.isOutbound { leave(held.bytes) } else { deliver(held.bytes) }
    case .replay(let reference):
      guard let held = held.removeValue(forKey: reference) else { return pair.broken("replayed twice") }
      if held.isOutbound { egress(held.bytes) } else { arrive(held.bytes) }
    case .discard(let reference):
      if held.removeValue(forKey: reference) == nil { pair.broken("discarded twice") }
    case .acknowledge(let acknowledgment):
      leave(
        ModelTCP.Output(acknowledgment).frame(
          from: acknowledgment.flow.local, to: acknowledgment.flow.remote))
    case .injectLate(let range, _): arrive(Array(input[range]))

    case .appendSegment(let record):
      var bytes = [UInt8](repeating: 0, count: SegmentRecord.fixedByteCount)
      bytes.withUnsafeMutableBytes { record.store(in: $0) }
      pair.link.send(bytes + frame[record.payload], from: slot)
    case .appendDatagram(let record):
      var bytes = [UInt8](repeating: 0xff, count: DatagramRecord.fixedByteCount)
      bytes.withUnsafeMutableBytes { record.store(in: $0) }
      pair.link.send(bytes + frame[record.payload], from: slot)
    case .snoopDatagram(let handle, let stream, let remote, let local, let range):
      show(Datagram(remote: remote, local: local, payload: Array(input[range])), handle, stream)
    case .snoopOwnedDatagram(let handle, let stream, let datagram): show(datagram, handle, stream)
    case .appendLateFrame(let header):
      var bytes = [UInt8](repeating: 0, count: RecordHeader.byteCount)
      bytes.withUnsafeMutableBytes { header.store(in: $0) }
      pair.link.send(bytes + frame, from: slot)
    case .send(let bytes): pair.link.send(bytes, from: slot)
    case .closeLink(let reason):
      linkClosings.append(reason)
      pair.closeLink(by: slot)
    case .sendOnUplink(let keepalive): pair.sendOnUplink(keepalive, from: slot)

    case .snoop(let handle, let stream, let range): pair.snooped(handle, stream, input[range])
    case .snoopOwned(let handle, let stream, let bytes): pair.snooped(handle, stream, bytes[...])
    case .endSnoop(let handle, let stream): pair.snoopEnded(handle, stream)

    case .steer(let handle, let flow):
      steered.insert(flow)
      mirrored.remove(flow)
      guard answersSteering else { return }
      if let queue = datagramSockets[flow], node.arbiter.phase == .primary {
        node.datagramSnapshotTaken(
          handle, DatagramSnapshot(receiveQueue: queue, options: [4, 2]), now: pair.now)
      } else if let socket = sockets[flow] {
        node.snapshotTaken(handle, socket.snapshot(now: pair.now), now: pair.now)
      } else {
        node.steered(handle)
      }
    case .unsteer(let flow):
      steered.remove(flow)
      if mirrored.remove(flow) != nil { node.mirroringEnded(flow) }
    case .mirror(let flow):
      mirrored.insert(flow)
      node.mirrored(flow)
    case .endMirroring: mirrored = []
    case .replicated(let handle): replicated.insert(handle)
    case .refused(let handle, let reason): refused[handle] = reason
    case .unreplicated(let handle, let reason):
      unreplicated[handle] = reason
      pair.unreplicated(handle)
    case .silence(let handle):
      if let conversation = pair.conversation(handle) { sockets[conversation.flow] = nil }
      if let flow = try? node.socket(handle).flow { datagramSockets[flow] = nil }

    case .service(let action): services.append(action)

    case .writeRecords(let handle): writeRecords(handle)
    case .recordsHaveRoom(let handle): haveRoom.insert(handle)
    case .recordsSafe(let handle, let count): safeRecords[handle] = count
    case .recordsEnded(let handle, let queue):
      leftRecords[handle] = queue ?? RecordQueue(limit: 0)
      writeRecords(handle)

    case .grantLease(let duration, _):
      lease = .until(pair.now + duration)
      if answersLease { node.leaseGranted(true, now: pair.now) }
    case .renewLease(let duration):
      let renewable = leaseIsInForce
      if renewable { lease = duration.map { .until(pair.now + $0) } ?? .endless }
      node.leaseRenewed(renewable, now: pair.now)
    case .revokeLease: lease = .none
    case .takeAddresses: hasAddresses = true
    case .dropAddresses: hasAddresses = false
    case .endConnections: endedConnections += 1
    case .probe: pair.probe(from: slot)
    case .log(let level, let text): lines.append((level, text))
    case .peerClosed, .inspect, .phaseChanged, .standbyChanged: break
    }
  }
}

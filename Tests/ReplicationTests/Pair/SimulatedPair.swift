import Packet
import Replication
import Simulation

/// Two routing engines, the link and the uplink between them, and the peer: everything there is, in one
/// place, with time moved by hand and every promise checked as things happen.
final class SimulatedPair {
  var now = Instant(nanoseconds: 1_000_000_000)
  private(set) var engines: [SimulatedEngine] = []
  private(set) var conversations: [Conversation] = []
  var link = SimulatedLink()
  var uplinkWorks = true
  /// Both paths are cut: what two machines alone cannot tell from the loss of the other.
  var mayBothBeMaster = false
  /// Frames between the peer and the replicated address, in order.
  private var toPeer: [[UInt8]] = []
  private var fromPeer: [[UInt8]] = []
  private(set) var violations: [String] = []
  /// UDP: what has left the REs, and the handles of both.
  private(set) var datagramsLeft: [Datagram] = []
  private var datagramHandles: Set<Handle> = []
  private var generator: SeededGenerator
  private var lastTick = Instant(nanoseconds: 0)
  /// Called after so many records from re0 have arrived in all.
  var interruption: (after: Int, action: () -> Void)?

  init(
    mode: ReplicationNode.Mode = .overlap, seed: UInt64 = 1, limit: Int = 1 << 20,
    priorities: [UInt16] = [200, 100],
    linkVersions: [ClosedRange<UInt16>] = [
      LinkVersion.supported, LinkVersion.supported,
    ]
  ) {
    generator = SeededGenerator(seed: seed)
    engines = (0...1).map {
      SimulatedEngine(
        slot: $0, pair: self, mode: mode, limit: limit, priority: priorities[$0],
        linkVersions: linkVersions[$0])
    }
  }

  func broken(_ promise: String) { violations.append(promise) }

  // MARK: Setting up

  /// Brings the link up and waits until re0 is primary and re1 stands by.
  func start() {
    openLink()
    advance(milliseconds: 400)
    if engines[0].node.arbiter.phase != .primary || !engines[0].node.arbiter.standbyIsReady {
      broken("re0 did not become primary with re1 standing by")
    }
  }

  /// The link was closed while the engine at its other end slept.
  private var newsForSleeper = false

  func openLink() {
    guard engines.allSatisfy({ $0.isAlive && !$0.isAsleep }) else { return }
    link.open()
    for engine in engines where engine.isAlive { engine.openLink() }
  }

  func converse(
    startAt sequence: UInt32 = 1_000, capacity: Int = 1_000, windowScale: UInt8 = 2, sendCapacity: Int = .max
  ) -> Conversation {
    let conversation = Conversation(
      number: conversations.count, startAt: sequence, capacity: capacity, windowScale: windowScale,
      sendCapacity: sendCapacity, now: now)
    conversations.append(conversation)
    engines[0].sockets[conversation.flow] = ModelTCP(
      sendFrom: conversation.localStart, receiveFrom: conversation.peerStart, options: conversation.options,
      timestampOffset: 77, now: now)
    return conversation
  }

  /// Begins the handshake, as two instances of an application do.
  func replicate(_ conversation: Conversation) throws {
    let primary = try engines[0].node.allocate()
    let secondary = try engines[1].node.attach(primary: primary)
    conversation.primaryHandle = primary
    conversation.secondaryHandle = secondary
    let socket = engines[0].sockets[conversation.flow]!
    conversation.snoopStart = (
      conversation.localRead, socket.sendStart - conversation.localStart
    )
    try engines[0].node.replicate(primary, secondary: secondary, flow: conversation.flow)
    engines[0].perform()
  }

  /// A pair with one connection, which is replicated, and nothing on its way.
  static func replicating(
    mode: ReplicationNode.Mode = .overlap
  ) throws -> (pair: SimulatedPair, conversation: Conversation) {
    let pair = SimulatedPair(mode: mode)
    pair.start()
    let conversation = pair.converse()
    try pair.replicate(conversation)
    pair.settle()
    return (pair, conversation)
  }

  /// Begins the handshake of a UDP socket, of which there is one on the primary, the RE in `slot`.
  func replicate(
    _ flow: Flow, attachedFor transport: TransportProtocol = .udp, slot: Int = 0
  ) throws -> (primary: Handle, secondary: Handle) {
    let primary = try engines[slot].node.allocate()
    let secondary = try engines[1 - slot].node.attach(primary: primary, transport: transport)
    datagramHandles.formUnion([primary, secondary])
    try engines[slot].node.replicate(primary, secondary: secondary, flow: flow)
    engines[slot].perform()
    return (primary, secondary)
  }

  func conversation(_ handle: Handle) -> Conversation? {
    conversations.first { $0.primaryHandle == handle || $0.secondaryHandle == handle }
  }

  // MARK: Applications

  func peerWrites(_ conversation: Conversation, _ count: Int) {
    conversation.peer.write(conversation.nextPeerBytes(count))
    peerTransmits(conversation)
  }

  func peerCloses(_ conversation: Conversation) {
    conversation.peer.close()
    peerTransmits(conversation)
  }

  func peerReads(_ conversation: Conversation) {
    for byte in conversation.peer.read() {
      if byte != conversation.localByte(conversation.peerRead) { broken("the peer read a wrong byte") }
      conversation.peerRead += 1
    }
    peerTransmits(conversation)
  }

  func peerTransmits(_ conversation: Conversation) {
    let frames = conversation.peer.output(now: now)
    fromPeer += frames.map { $0.frame(from: conversation.flow.remote, to: conversation.flow.local) }
  }

  func peerRetransmits(_ conversation: Conversation) {
    let frames = conversation.peer.retransmission(now: now)
    fromPeer += frames.map { $0.frame(from: conversation.flow.remote, to: conversation.flow.local) }
  }

  func localWrites(_ conversation: Conversation, _ count: Int, slot: Int = 0) {
    engines[slot].sockets[conversation.flow]?.write(conversation.nextLocalBytes(count))
    engines[slot].transmit(conversation.flow)
  }

  /// From now on the application gives records.
  func beginRecords(_ conversation: Conversation, slot: Int = 0) throws {
    try engines[slot].node.beginRecords(
      conversation.primaryHandle!, writtenUpTo: engines[slot].sockets[conversation.flow]!.dataEnd)
  }

  /// The application gives a record of `count` bytes.
  @discardableResult
  func localGives(_ conversation: Conversation, _ count: Int, isLast: Bool = false) -> RecordVerdict {
    let bytes = conversation.nextLocalBytes(count)
    let verdict = engines[0].node.take(
      record: [UInt8](repeating: 0, count: RecordFraming.headroom) + bytes, of: conversation.primaryHandle!,
      isLast: isLast, now: now)
    if verdict == .taken { conversation.recordEnds.append(conversation.localWritten) }
    if verdict != .taken { conversation.localWritten -= count }
    if engines[0].isAlive { engines[0].perform() }
    return verdict
  }

  func localCloses(_ conversation: Conversation, slot: Int = 0) {
    engines[slot].sockets[conversation.flow]?.close()
    engines[slot].transmit(conversation.flow)
  }

  /// Whether the application on the RE reads as soon as there is something.
  var localReadsAtOnce = true

  /// Called when the kernel of an RE has taken something in.
  func drain(_ flow: Flow, slot: Int) {
    guard localReadsAtOnce, let conversation = conversations.first(where: { $0.flow == flow }) else { return }
    read(conversation, slot: slot)
  }

  func localReads(_ conversation: Conversation, slot: Int = 0) {
    read(conversation, slot: slot)
    engines[slot].transmit(conversation.flow)
  }

  private func read(_ conversation: Conversation, slot: Int) {
    guard let bytes = engines[slot].sockets[conversation.flow]?.read() else { return }
    for byte in bytes {
      if byte != conversation.peerByte(conversation.localRead) { broken("the application read a wrong byte") }
      conversation.localRead += 1
    }
  }

  // MARK: The wire to the peer

  /// A peer sends a datagram.
  func peerSends(_ datagram: Datagram) { fromPeer.append(datagram.frame(fromPeer: true)) }

  private func left(_ packet: UDPPacket, _ frame: [UInt8], slot: Int) {
    let datagram = Datagram(
      remote: packet.destination, local: packet.source, payload: Array(frame[packet.payload]))
    datagramsLeft.append(datagram)
    var flow = packet.outboundFlow()
    if engines[slot].datagramSockets[flow] == nil { flow = Flow(unconnected: flow.local) }
    let view = engines[slot].node.socket(of: flow)
    guard let view, view.phase == .replicating, let peer = view.peer,
      (try? engines[1 - slot].node.socket(peer).phase) == .snooping
    else { return }
    if engines[1 - slot].shown[peer]?[.snd]?.contains(datagram) != true {
      broken("promise 2: a datagram left re\(slot) that the other RE lacks")
    }
  }

  /// A frame of a replicated address is on the wire.
  func left(_ frame: [UInt8], slot: Int) {
    if let packet = frame.withUnsafeBytes({ UDPPacket($0) }) { return left(packet, frame, slot: slot) }
    let packet = frame.withUnsafeBytes { TCPPacket($0)! }
    let segment = packet.segment
    if engines[1 - slot].leaseIsInForce { broken("a frame left re\(slot) while both REs hold a lease") }
    guard let conversation = conversations.first(where: { $0.flow == packet.outboundFlow() }) else {
      return broken("a frame of no conversation left")
    }
    let edge = segment.acknowledgment + Int(segment.window) << Int(conversation.options.windowScale)
    if let (rcv, snd, knownEdge) = secondaryState(conversation, primary: slot) {
      if segment.acknowledgment > rcv {
        broken("promise 1: acknowledged \(segment.acknowledgment) of \(rcv)")
      }
      if !segment.payload.isEmpty, segment.payloadEnd > snd {
        broken("promise 2: sent up to \(segment.payloadEnd) of \(snd)")
      }
      if edge > knownEdge { broken("promise 4: window to \(edge), known \(knownEdge)") }
    }
    // What passes at once may overtake what is held; a later acknowledgement tells the later one.
    if edge < conversation.edgeLeft, segment.acknowledgment > conversation.acknowledgmentLeft {
      broken("promise 4: the window's edge went back from \(conversation.edgeLeft) to \(edge)")
    }
    if segment.payloadEnd > conversation.peer.edge {
      broken("sent up to \(segment.payloadEnd), the peer's window ends at \(conversation.peer.edge)")
    }
    conversation.acknowledgmentLeft = .later(conversation.acknowledgmentLeft, segment.acknowledgment)
    // A bare acknowledgement may overtake the bytes before it.
    if !segment.payload.isEmpty || segment.flags.contains(.fin) {
      conversation.endLeft = .later(conversation.endLeft, segment.end)
    }
    conversation.edgeLeft = .later(conversation.edgeLeft, edge)
    if let value = segment.timestamps?.value {
      if let last = conversation.timestampLeft, Int32(truncatingIfNeeded: value &- last) < 0 {
        if slot == 1 { broken("timestamps went back with the merge") }
      } else {
        conversation.timestampLeft = value
      }
    }
    toPeer.append(frame)
  }

  /// How far the secondary is, if it and the primary agree that the socket is replicated.
  private func secondaryState(
    _ conversation: Conversation, primary slot: Int
  ) -> (rcv: SequenceNumber, snd: SequenceNumber, edge: SequenceNumber)? {
    guard slot == 0, let primary = conversation.primaryHandle, let secondary = conversation.secondaryHandle,
      let here = try? engines[0].node.socket(primary), here.phase == .replicating,
      let there = try? engines[1].node.socket(secondary), there.phase == .snooping, let block = there.block
    else { return nil }
    let snd = conversation.localStart + conversation.snoopStart.snd + conversation.snooped.snd
    return (block.receiveNext, snd, block.receiveEdge)
  }

  /// A kernel without a socket answers with a reset.
  func reset(_ flow: Flow, slot: Int) { broken("re\(slot) sent a reset on \(flow)") }

  private func deliverToPeer(_ frame: [UInt8]) {
    frame.withUnsafeBytes { bytes in
      let packet = TCPPacket(bytes)!
      guard let conversation = conversations.first(where: { $0.flow == packet.outboundFlow() }) else {
        return
      }
      conversation.peer.receive(
        packet.segment, UnsafeRawBufferPointer(rebasing: bytes[packet.segment.payload]), now: now)
      if conversation.peer.heardOfTheUnsent { broken("the peer was acknowledged bytes it never sent") }
      peerTransmits(conversation)
    }
  }

  private func deliverFromPeer(_ frame: [UInt8]) {
    for engine in engines where engine.isAlive && !engine.isAsleep && engine.hasAddresses {
      engine.arrive(frame)
    }
  }

  func loseNextFromPeer() { if !fromPeer.isEmpty { fromPeer.removeFirst() } }
  func loseAllToPeer() { toPeer = [] }
  func swapFromPeer() { if fromPeer.count > 1 { fromPeer.swapAt(0, fromPeer.count - 1) } }
  func doubleFromPeer() { if let first = fromPeer.first { fromPeer.append(first) } }

  // MARK: Link and uplink

  func cutLink(carrierLost: Bool = false) {
    guard link.isUp else { return }
    link.cut()
    for engine in engines { engine.closeLink(byPeer: false, carrierLost: carrierLost) }
  }

  func closeLink(by slot: Int) {
    guard link.isUp else { return }
    link.cut()
    engines[slot].closeLink(byPeer: false)
    if engines[1 - slot].isAsleep { newsForSleeper = true } else { engines[1 - slot].closeLink(byPeer: true) }
  }

  /// Stops an engine for a while: its kernel goes on.
  func sleep(_ slot: Int) { engines[slot].sleep() }

  func wake(_ slot: Int) {
    engines[slot].wake()
    if newsForSleeper { engines[slot].closeLink(byPeer: true) }
    newsForSleeper = false
    engines[slot].tick()
  }

  /// re0 stops. If its kernel lives on it closes the link, otherwise there is only silence.
  func killPrimary(kernelLives: Bool) {
    engines[0].isAlive = false
    guard link.isUp else { return }
    if kernelLives {
      link.cut()
      engines[1].closeLink(byPeer: true)
    } else {
      link.mute = [0]
    }
  }

  func sendOnUplink(_ keepalive: Keepalive, from slot: Int) {
    let other = engines[1 - slot]
    guard uplinkWorks, other.isAlive, !other.isAsleep else { return }
    other.node.uplinkReceived(keepalive, now: now)
    other.perform()
  }

  func probe(from slot: Int) {
    let other = engines[1 - slot]
    guard uplinkWorks, other.hasAddresses, other.leaseIsInForce else { return }
    engines[slot].node.probeAnswered(now: now)
  }

  private func deliverRecords(from slot: Int, _ count: Int) {
    guard !engines[1 - slot].isAsleep else { return }
    var batch: [UInt8] = []
    for _ in 0..<count where link.hasRecords(from: slot) {
      if slot == 0, link.delivered[0] == interruption?.after { break }
      batch += link.takeRecord(from: slot)
    }
    if !batch.isEmpty { engines[1 - slot].receive(batch[...]) }
    if slot == 0, let interruption, link.delivered[0] == interruption.after {
      self.interruption = nil
      interruption.action()
    }
  }

  /// Lets half of the next record of re0 through, if one is on its way.
  func deliverHalfRecord() {
    let half = link.halfRecord(from: 0)
    if !half.isEmpty { engines[1].receive(half[...]) }
  }

  // MARK: Running

  /// Lets everything that is on its way arrive, in an order that the seed decides.
  func settle() {
    settle(atMost: 20_000)
    if !fromPeer.isEmpty || !toPeer.isEmpty { broken("no end of packets") }
  }

  /// The same for so many arrivals.
  func settle(atMost limit: Int) {
    for _ in 0..<limit {
      var choices: [() -> Void] = []
      if !fromPeer.isEmpty { choices.append { self.deliverFromPeer(self.fromPeer.removeFirst()) } }
      if !toPeer.isEmpty { choices.append { self.deliverToPeer(self.toPeer.removeFirst()) } }
      for slot in 0...1 where link.hasRecords(from: slot) && !engines[1 - slot].isAsleep {
        let count = Int.random(in: 1...3, using: &generator)
        choices.append { self.deliverRecords(from: slot, count) }
      }
      guard let choice = choices.randomElement(using: &generator) else { return }
      choice()
      now = now + Nanoseconds(100_000)
      if now - lastTick >= .milliseconds(5) { tick() }
    }
  }

  /// Delivers only the link.
  func settleLink() {
    while (0...1).contains(where: { link.hasRecords(from: $0) && !engines[1 - $0].isAsleep }) {
      for slot in 0...1 { deliverRecords(from: slot, 1) }
    }
  }

  private func tick() {
    lastTick = now
    for engine in engines { engine.tick() }
    if engines.allSatisfy(\.leaseIsInForce), !mayBothBeMaster { broken("both REs hold a lease") }
  }

  func advance(milliseconds: Int64) {
    let end = now + .milliseconds(milliseconds)
    while now < end {
      now = now + .milliseconds(5)
      tick()
      settleLink()
    }
  }

  // MARK: Snoop pairs

  func snooped(_ handle: Handle, _ stream: SnoopStream, _ bytes: ArraySlice<UInt8>) {
    guard let conversation = conversation(handle) else { return broken("snooped for no conversation") }
    if conversation.snoopEnded.contains(stream) { broken("promise 5: \(stream) goes on behind its end") }
    for byte in bytes {
      switch stream {
      case .rcv:
        let position = conversation.snoopStart.rcv + conversation.snooped.rcv
        if position >= conversation.peerWritten || byte != conversation.peerByte(position) {
          broken("promise 5: rcv is wrong at \(position)")
        }
        conversation.snooped.rcv += 1
      case .snd:
        let position = conversation.snoopStart.snd + conversation.snooped.snd
        if position >= conversation.localWritten || byte != conversation.localByte(position) {
          broken("promise 5: snd is wrong at \(position)")
        }
        conversation.snooped.snd += 1
      }
    }
  }

  func snoopEnded(_ handle: Handle, _ stream: SnoopStream) {
    if datagramHandles.contains(handle) { return }
    guard let conversation = conversation(handle) else { return broken("end for no conversation") }
    if !conversation.snoopEnded.insert(stream).inserted { broken("\(stream) ended twice") }
  }

  func unreplicated(_ handle: Handle) {
    if conversation(handle) == nil, !datagramHandles.contains(handle) {
      broken("unreplicated for no conversation")
    }
  }

  // MARK: Takeover

  /// Waits until re1 is primary; false if it does not become it.
  func takeOver() -> Bool {
    for _ in 0..<1_000 {
      advance(milliseconds: 5)
      if engines[1].node.arbiter.phase == .primary { return true }
    }
    return false
  }

  /// Turns the pair into a live socket on re1, and holds it against everything that has left re0.
  func merge(_ conversation: Conversation) throws {
    let engine = engines[1]
    guard case .stream(let plan) = try engine.node.merge(conversation.secondaryHandle!, now: now) else {
      return broken("a TCP connection is merged as a UDP socket")
    }
    let receiveEnd = plan.receiveNext + (plan.finReceived ? 1 : 0)
    let sendEnd = plan.sendUnacknowledged + plan.sendQueue.count
    if plan.flow != conversation.flow { broken("merged the wrong flow") }
    if conversation.acknowledgmentLeft > receiveEnd {
      broken("promise 3: \(conversation.acknowledgmentLeft) was acknowledged, merged at \(receiveEnd)")
    }
    if conversation.endLeft > sendEnd + (plan.finSent ? 1 : 0) {
      broken("promise 3: \(conversation.endLeft) was sent, merged up to \(sendEnd)")
    }
    if plan.sendUnacknowledged > conversation.peer.receiveNext {
      broken("promise 3: the send queue lacks bytes that the peer does not have")
    }
    if plan.receiveNext + Int(plan.receiveWindow) < conversation.edgeLeft {
      broken("promise 4: merged window ends before \(conversation.edgeLeft)")
    }
    if let last = conversation.timestampLeft, Int32(truncatingIfNeeded: plan.timestamp &- last) < 0 {
      broken("the merged clock is behind the last timestamp sent")
    }
    if conversation.endLeft > plan.sendUnacknowledged + plan.sentCount + (plan.finSent ? 1 : 0) {
      broken("promise 3: \(conversation.endLeft) was sent, merged with \(plan.sentCount) bytes sent")
    }
    let first = plan.sendUnacknowledged - conversation.localStart
    if !conversation.recordEnds.isEmpty, first + plan.sendQueue.count > conversation.recordEnds[0],
      !conversation.recordEnds.contains(first + plan.sendQueue.count)
    {
      broken("promise 9: merged at \(first + plan.sendQueue.count), inside a record")
    }
    if plan.sendQueue != (0..<plan.sendQueue.count).map({ conversation.localByte(first + $0) }) {
      broken("promise 3: the send queue holds wrong bytes")
    }
    // The application has read both descriptors to their ends.
    conversation.localRead = conversation.snoopStart.rcv + conversation.snooped.rcv
    conversation.localWritten = conversation.snoopStart.snd + conversation.snooped.snd
    if conversation.peerStart + conversation.localRead != plan.receiveNext {
      broken("promise 5: rcv and the merged socket disagree")
    }
    if conversation.localStart + conversation.localWritten != sendEnd {
      broken("promise 5: snd and the merged socket disagree")
    }
    engine.sockets[conversation.flow] = ModelTCP(
      plan, unread: [], options: conversation.options, now: now)
    engine.node.merged(conversation.secondaryHandle!, succeeded: true)
    engine.perform()
  }

  /// Runs all conversations to their ends: so many bytes each way in all, and both sides close.
  func finish(slot: Int, peerTotal: Int, localTotal: Int) {
    localReadsAtOnce = true
    for _ in 0..<400 {
      var done = true
      for conversation in conversations {
        let flow = conversation.flow
        guard let socket = engines[slot].sockets[flow] else {
          return broken("conversation \(conversation.number) has no socket on re\(slot)")
        }
        if !conversation.peer.isClosed {
          peerWrites(conversation, max(0, peerTotal - conversation.peerWritten))
          peerCloses(conversation)
        }
        if !socket.isClosed {
          localWrites(conversation, max(0, localTotal - conversation.localWritten), slot: slot)
          localCloses(conversation, slot: slot)
        }
        localReads(conversation, slot: slot)
        settle()
        peerReads(conversation)
        settle()
        peerReads(conversation)
        if conversation.peer.finIsAcknowledged, engines[slot].sockets[flow]!.finIsAcknowledged,
          conversation.peer.peerHasClosed, engines[slot].sockets[flow]!.peerHasClosed
        {
          continue
        }
        done = false
        peerRetransmits(conversation)
        engines[slot].retransmit(flow)
        settle()
      }
      if done { return checkStreams(peerTotal: peerTotal, localTotal: localTotal) }
      advance(milliseconds: 20)
    }
    broken("the conversation did not come to its end")
  }

  private func checkStreams(peerTotal: Int, localTotal: Int) {
    for conversation in conversations {
      if conversation.localRead != peerTotal {
        broken("the application read \(conversation.localRead) bytes")
      }
      if conversation.peerRead != localTotal { broken("the peer read \(conversation.peerRead) bytes") }
    }
  }
}

import Packet
import Replication

/// The engine on one RE: a real `ReplicationNode`, and what `jsrd` does around it, in the same order (targets
/// `Engine`, files `Engine.swift`, `Engine+Packets`, `Engine+Link`, `Engine+Sockets`, `Engine+Snoop`).
final class EngineProcess {
  /// What the process learns from the outside; it waits while the process works or sleeps.
  enum Input {
    case frame([UInt8], isOutbound: Bool)
    case linkOpened(InterRELink.LinkEnd)
    case linkBytes([UInt8], InterRELink.LinkEnd)
    case linkEnded(InterRELink.LinkEnd, LinkEnding)
    case linkCarrierLost
    case uplink([UInt8])
    case probeAnswered
    /// An application asks for something.
    case request((EngineProcess) -> Void)
    case applicationGone
    /// What was sent through the device's queue behind a change of what is mirrored.
    case mark((EngineProcess) -> Void)
  }

  /// The two streams that an application reads.
  final class Pair {
    let conversation: Conversation
    var rcv: SnoopBuffer
    var snd: SnoopBuffer
    var isBeingRead = false
    /// Of a UDP socket, from its handshake on.
    var ledger: DatagramLedger?
    init(_ conversation: Conversation, rcv: SnoopBuffer, snd: SnoopBuffer) {
      self.conversation = conversation
      self.rcv = rcv
      self.snd = snd
    }
  }

  /// A socket in record mode, or one whose last records are being written.
  private final class RecordWork {
    let handle: Handle
    let socket: KernelSocket
    let pipe: RecordPipe
    /// Without replication: what is left to be written.
    var left: RecordQueue?
    /// The kernel's send buffer is full.
    var waitsForKernel = false
    /// The application has closed its descriptor.
    var closesWhenDone = false
    init(_ handle: Handle, _ socket: KernelSocket, _ pipe: RecordPipe) {
      self.handle = handle
      self.socket = socket
      self.pipe = pipe
    }
  }

  private struct HeldFrame {
    var bytes: [UInt8]
    var isOutbound: Bool
    var since: TrueTime
    var conversation: Int
  }

  /// What the ranges in actions refer to.
  private enum Context {
    case nothing
    case packet([UInt8])
    case link([UInt8])
  }

  unowned(unsafe) let machine: Machine
  private let world: World
  private(set) var node: ReplicationNode
  private(set) var isAlive = true
  private(set) var isAsleep = false
  private var wakesAt: TrueTime = 0
  private var wokeAt: TrueTime
  /// Its clock has told it since what it has missed, and its lease is renewed if it could be.
  private(set) var hasTickedSinceItWoke = true
  /// It had mastership to itself before it fell asleep, with a lease that has no end.
  private(set) var wokeWithEndlessLease = false
  private var isBusy = false
  private var inbox: [Input] = []
  private var framesInInbox = 0
  private var turnIsScheduled = false
  /// Where the next sleep or crash catches the process.
  private var ambush: (place: Fault.Place, strike: () -> Void)?

  private var held: [HeldFrame?] = []
  private var freePlaces: [Int32] = []
  private var link: InterRELink.LinkEnd?
  private var linkInput: [UInt8] = []
  private var steeringAdditions: [(handle: Handle, flow: Flow)] = []
  private var steeringRemovals: [(flow: Flow, due: Instant)] = []
  /// Flows that are mirrored, while frames from before wait to be judged.
  private var pendingMirrors: Set<Flow> = []
  /// Somebody waits for what is to be written to the link.
  private var linkIsUrgent = false
  /// What a peer sent is to be told with the next word, or the next tick.
  private(set) var keepsNews = false
  private var owned: Set<Handle> = []
  /// For each place the handle that was given last.
  private var given: [UInt32: Handle] = [:]
  private var sockets: [Handle: (socket: KernelSocket, closeRequested: Instant?)] = [:]
  private var pending: [Handle: KernelSocket] = [:]
  /// About which the other RE's instance was asked.
  private var requested: [Handle: KernelSocket] = [:]
  /// Of `pending`, those for which a pair was attached on request.
  private var answered: Set<Handle> = []
  /// Of `pending`, those that their application has closed meanwhile.
  private var closedEarly: Set<Handle> = []
  private var pairs: [Handle: Pair] = [:]
  private var records: [Handle: RecordWork] = [:]
  private var lastRecords: [RecordWork] = []
  private var lastAccount: TrueTime = 0
  private var lastLookAtOrphans = Instant(nanoseconds: 0)

  /// Frames that a TAP device queues (`tun` default, drivers/net/tun.c).
  private static let deviceQueue = 500
  static let tickInterval: TrueTime = .milliseconds(10)
  static let steeringDelay = Nanoseconds.milliseconds(200)

  /// - Parameter linkVersions: what its release speaks on the link.
  init(machine: Machine, linkVersions: ClosedRange<UInt16>) {
    self.machine = machine
    world = machine.world
    wokeAt = world.now
    let scenario = world.scenario
    node = ReplicationNode(
      ReplicationNode.Configuration(
        node: machine.name, slot: UInt8(machine.slot), priority: scenario.priorities[machine.slot],
        timing: scenario.timing, mode: scenario.mode,
        timeouts: scenario.timeouts, socketLimit: scenario.limits.sockets,
        holdLimit: scenario.limits.holdBuffer, recordLimit: scenario.limits.record,
        linkVersions: linkVersions,
        // What takes several turns in an engine with thousands of sockets is to do so with a few.
        lostSocketsTurn: 1, incarnation: world.random.scheduling.next() | 1), now: machine.now)
    node.logsRecords = scenario.logsRecords
  }

  var name: String { machine.name }
  var hasLink: Bool { link != nil }
  var isWell: Bool { isAlive && !isAsleep && !machine.isStopped }
  /// It has been awake for long enough to be heard, if anything carries what it says.
  var isHeard: Bool { isWell && world.now - wokeAt > world.scenario.detection }
  var phase: MastershipPhase { node.arbiter.phase }
  var heldCount: Int { held.count - freePlaces.count }

  func start() {
    if machine.slot == 1 { world.link.connectLater() }
    tickLater(.zero)
  }

  func die() {
    isAlive = false
    // Of what is replicated the other RE has every record whole. Without it they are no better than the process that
    // was writing them: its application is told, and goes on from what the kernel has.
    let other = world.machines[1 - machine.slot].engine
    let unprotected = records.values.filter { other?.isSnooping($0.socket.conversation) != true }
    // Where replication has ended, a pair that the other RE may still have, asleep, is void.
    for work in unprotected + lastRecords {
      let conversation = work.socket.conversation
      conversation.noteWrittenPlainly(work.socket.tcp.dataEnd - conversation.localStart)
    }
    inbox = []
    ambush = nil
  }

  // MARK: Sleep

  /// Sleeps or crashes where the fault says.
  func ambush(_ place: Fault.Place, _ strike: @escaping () -> Void) {
    if case .betweenEvents = place { return strike() }
    ambush = (place, strike)
  }

  /// Does not run for a while; what is meant for it waits.
  func sleep(for duration: TrueTime) {
    guard isAlive, !isAsleep else { return }
    world.tell(name, "the engine sleeps for \(World.milliseconds(duration).drop { $0 == " " }) ms")
    machine.engineSleeps()
    isAsleep = true
    wakesAt = world.now + duration
    if isBusy, !world.isNested {
      // In the middle of its work: the world goes on around it.
      world.runNested(until: wakesAt)
      noteAwake()
      world.tell(name, "the engine goes on where it was")
    } else {
      machine.after(duration) { [weak self] in self?.wake() }
    }
  }

  func wake() {
    guard isAlive, world.now >= wakesAt, !isBusy else { return }
    if isAsleep { world.tell(name, "the engine wakes up") }
    noteAwake()
    scheduleTurn()
  }

  private func noteAwake() {
    guard isAsleep else { return }
    isAsleep = false
    noteRunning()
    wokeWithEndlessLease = machine.lease == .endless
  }

  /// It runs again, after a sleep of its own or of the whole machine.
  func noteRunning() {
    wokeAt = world.now
    hasTickedSinceItWoke = false
  }

  /// Faults are over.
  func endTroubles() {
    ambush = nil
    for layer in [Layer.sdrl, .psrm, .prl] { holdAcknowledgements(of: layer, false) }
    wakesAt = min(wakesAt, world.now)
    wake()
  }

  func holdAcknowledgements(of layer: Layer, _ isOn: Bool) {
    input(
      .request { engine in
        guard engine.node.holdsAcknowledgements(of: layer) != isOn else { return }
        engine.node.holdAcknowledgements(of: layer, isOn, now: engine.machine.now)
      })
  }

  private func step(before action: Action) {
    guard let (place, strike) = ambush else { return }
    switch place {
    case .betweenEvents: return
    case .afterRenewal:
      // The next action will do.
      if case .renewLease = action { ambush = (.afterActions(1), strike) }
      return
    case .beforeRenewal: guard case .renewLease = action else { return }
    case .afterActions(let count):
      guard count == 0 else {
        ambush = (.afterActions(count - 1), strike)
        return
      }
    }
    ambush = nil
    strike()
  }

  // MARK: Input

  func input(_ input: Input) {
    guard isAlive else { return }
    if case .frame = input {
      guard framesInInbox < Self.deviceQueue else { return }
      framesInInbox += 1
    }
    inbox.append(input)
    scheduleTurn()
  }

  /// The frame of a datagram that arrives, with a number in the order in which they are taken in.
  private func stamped(_ frame: [UInt8]) -> [UInt8] {
    guard case .udp = ModelPacket(frame) else { return frame }
    var frame = frame
    FrameStamp.put(world.nextStamp(), on: &frame)
    return frame
  }

  private func scheduleTurn() {
    guard !turnIsScheduled, !isAsleep, !isBusy, !inbox.isEmpty else { return }
    turnIsScheduled = true
    let delay: TrueTime = .microseconds(.random(in: 2...40, using: &world.random.scheduling))
    machine.after(delay) { [weak self] in self?.turn() }
  }

  private func turn() {
    turnIsScheduled = false
    guard isAlive, !isAsleep, !isBusy else { return }
    isBusy = true
    let inputs = inbox
    inbox = []
    framesInInbox = 0
    var batchIsOpen = false
    for input in inputs {
      guard isAlive else { break }
      if case .frame(let bytes, let isOutbound) = input {
        batchIsOpen = true
        judge(isOutbound ? bytes : stamped(bytes), isOutbound: isOutbound)
        continue
      }
      if batchIsOpen { endBatch() }
      batchIsOpen = false
      guard isAlive else { break }
      handle(input)
    }
    if batchIsOpen, isAlive { endBatch() }
    isBusy = false
    guard isAlive else { return }
    checkMemory()
    scheduleTurn()
  }

  /// Records of what a peer sent wait for company, as in `Engine.frameBatchEnded`.
  private func endBatch() {
    if linkIsUrgent {
      keepsNews = false
      node.flushBlocks(now: machine.now)
      settle()
    } else {
      keepsNews = true
      flushSteering()
    }
  }

  private func handle(_ input: Input) {
    switch input {
    case .frame: break
    case .mark(let body): body(self)
    case .linkOpened(let end):
      // One connection at a time, as `Link.opened` has it.
      guard link == nil else { return world.link.close(end) }
      world.link.accept(end)
      link = end
      linkInput = []
      world.tell(name, "the link is connected")
      node.linkOpened(now: machine.now)
      settle()
    case .linkBytes(let bytes, let end):
      guard let link, link === end else { return }
      receive(bytes)
    case .linkEnded(let end, let ending):
      guard let link, link === end else {
        // One that was refused before it was used.
        if self.link == nil, machine.slot == 1 { world.link.connectLater() }
        return
      }
      self.link = nil
      world.tell(name, "the link is gone")
      node.linkClosed(ending, now: machine.now)
      settle()
      if machine.slot == 1 { world.link.connectLater() }
    case .linkCarrierLost:
      dropLink()
      node.linkClosed(.carrierLost, now: machine.now)
      settle()
    case .uplink(let payload):
      guard let keepalive = payload.withUnsafeBytes({ Keepalive(uplinkPayload: $0) }) else {
        return world.broken(.protocolUse, "\(name) cannot read the keepalive of the other RE")
      }
      node.uplinkReceived(keepalive, now: machine.now)
      settle()
    case .probeAnswered: node.probeAnswered(now: machine.now)
    case .request(let body):
      body(self)
      settle()
    case .applicationGone:
      applicationGone()
      settle()
    }
  }

  private func dropLink() {
    guard let link else { return }
    self.link = nil
    world.link.close(link)
    if machine.slot == 1 { world.link.connectLater() }
  }

  // MARK: Time

  private func tickLater(_ delay: TrueTime) {
    machine.after(delay) { [weak self] in
      guard let self, isAlive else { return }
      if !isAsleep, !isBusy { tick() }
      tickLater(Self.tickInterval)
    }
  }

  private func tick() {
    isBusy = true
    hasTickedSinceItWoke = true
    keepsNews = false
    node.uplinkChanged(isRunning: world.uplink.hasCarrier[machine.slot], now: machine.now)
    node.tick(now: machine.now)
    if isAlive { sweep() }
    settle()
    isBusy = false
    scheduleTurn()
  }

  private func sweep() {
    let now = machine.now
    for (handle, entry) in sockets.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
      if let since = entry.closeRequested, now - since >= .seconds(60) {
        try? node.unreplicate(handle, because: .closed, now: now)
      }
    }
    if now - lastLookAtOrphans >= .seconds(1) {
      lastLookAtOrphans = now
      attendOrphans()
    }
    // A socket that is ended wakes whoever waits for it to take more.
    for work in records.values.sorted(by: { $0.handle.rawValue < $1.handle.rawValue })
    where work.waitsForKernel && !isThere(work.socket) {
      recordsFailed(work)
    }
    for work in lastRecords where !isThere(work.socket) { endLastRecords(work) }
    while let first = steeringRemovals.first, first.due <= now {
      steeringRemovals.removeFirst()
      machine.steered.remove(first.flow)
      if machine.mirrored.remove(first.flow) != nil {
        input(.mark { $0.node.mirroringEnded(first.flow) })
      }
    }
  }

  // MARK: Packets

  private func judge(_ frame: [UInt8], isOutbound: Bool) {
    guard let packet = ModelPacket(frame) else { return }
    let reference = FrameReference(freePlaces.last ?? Int32(held.count))
    let now = machine.now
    let verdict: Verdict
    switch (packet, isOutbound) {
    case (.tcp(let packet), true):
      verdict = node.outbound(packet, reference: reference, byteCount: frame.count, now: now)
    case (.tcp(let packet), false):
      verdict = node.inbound(packet, reference: reference, byteCount: frame.count, now: now) {
        frame.withUnsafeBytes { packet.checksumIsValid($0) }
      }
    case (.udp(let packet), true):
      verdict = node.outbound(packet, reference: reference, byteCount: frame.count, now: now)
    case (.udp(let packet), false):
      verdict = node.inbound(packet, reference: reference, byteCount: frame.count, now: now) {
        frame.withUnsafeBytes { packet.checksumIsValid($0) }
      }
    }
    if verdict == .hold { hold(frame, isOutbound: isOutbound, packet) }
    if verdict == .hold { linkIsUrgent = true }
    if case .udp = packet { linkIsUrgent = true }
    if world.isTold, verdict != .pass { tell(verdict, of: packet, frame, isOutbound: isOutbound) }
    if !node.actions.isEmpty { drain(.packet(frame)) }
    if verdict == .pass { emit(frame, isOutbound: isOutbound) }
  }

  private func tell(_ verdict: Verdict, of packet: ModelPacket, _ frame: [UInt8], isOutbound: Bool) {
    guard let conversation = world.conversation(of: packet, isOutbound: isOutbound) else { return }
    let what: String
    switch packet {
    case .tcp(let packet):
      let start = isOutbound ? conversation.localStart : conversation.peerStart
      what =
        "\(packet.segment.flags) seq \(packet.segment.sequence - start) + \(packet.segment.payload.count)"
    case .udp(let packet): what = "\(FrameStamp.read(frame)), \(packet.payload.count) bytes"
    }
    world.tell(
      name,
      "\(verdict == .hold ? "holds" : "drops") \(conversation.name) \(isOutbound ? "out" : "in") \(what)")
  }

  private func hold(_ frame: [UInt8], isOutbound: Bool, _ packet: ModelPacket) {
    let new = HeldFrame(
      bytes: frame, isOutbound: isOutbound, since: world.now,
      conversation: world.conversation(of: packet, isOutbound: isOutbound)?.number ?? -1)
    if let place = freePlaces.popLast() { held[Int(place)] = new } else { held.append(new) }
  }

  private func take(_ reference: FrameReference) -> HeldFrame? {
    let place = Int(reference.rawValue)
    guard place < held.count, let frame = held[place] else {
      world.broken(.protocolUse, "\(name): frame \(place) is asked for, and not held")
      return nil
    }
    held[place] = nil
    freePlaces.append(reference.rawValue)
    return frame
  }

  private func emit(_ frame: [UInt8], isOutbound: Bool) {
    guard isAlive else { return }
    if isOutbound {
      machine.leave(frame, byEngine: true)
    } else {
      let check = world.scenario.mode == .strict ? Judge.delivery(of: frame, to: machine) : nil
      machine.deliver(frame, byEngine: true)
      check?()
    }
  }

  // MARK: Link

  private func receive(_ bytes: [UInt8]) {
    linkInput += bytes
    let input = linkInput
    let now = machine.now
    let used = input.withUnsafeBytes { node.linkReceived($0, now: now) }
    if used < 0 || used > input.count {
      world.broken(.protocolUse, "\(name): \(used) of \(input.count) bytes used")
    }
    // Acknowledge first, and show afterwards, as `Engine.linkReceived` does.
    var deferred: [Action] = []
    while !node.actions.isEmpty, isAlive {
      let batch = node.actions
      node.actions = []
      for action in batch {
        switch action {
        case .snoop(let handle, let stream, let range):
          if reserve(range.count, handle, stream) { deferred.append(action) }
        case .snoopOwned(let handle, let stream, let piece):
          if reserve(piece.count, handle, stream) { deferred.append(action) }
        case .snoopDatagram(let handle, let stream, let remote, let local, let range):
          if receive(input[range], remote, local, handle, stream) { deferred.append(action) }
        case .snoopOwnedDatagram(let handle, let stream, let datagram):
          if receive(datagram.payload[...], datagram.remote, datagram.local, handle, stream) {
            deferred.append(action)
          }
        case .endSnoop: deferred.append(action)
        default: perform(action, .link(input))
        }
      }
    }
    guard isAlive else { return }
    linkInput.removeFirst(min(used, linkInput.count))
    if !steeringAdditions.isEmpty {
      // A handshake is complete, which may end streams: what comes before the end is shown before it.
      for action in deferred { perform(action, .link(input)) }
      deferred = []
    }
    flushSteering()
    node.linkBatchEnded(now: now)
    settle()
    for action in deferred { perform(action, .link(input)) }
    settle()
  }

  private func append(_ bytes: [UInt8]) {
    guard let link else { return }
    world.link.send(bytes, on: link)
  }

  // MARK: Actions

  private func settle() {
    drain(.nothing)
    guard isAlive else { return }
    flushSteering()
    linkIsUrgent = false
    if let link { world.link.flush(link) }
  }

  private func drain(_ context: Context) {
    while !node.actions.isEmpty, isAlive {
      let batch = node.actions
      node.actions = []
      for action in batch { perform(action, context) }
    }
  }

  private func perform(_ action: Action, _ context: Context) {
    guard isAlive else { return }
    step(before: action)
    guard isAlive else { return }
    switch action {
    case .release(let reference):
      if let frame = take(reference) { emit(frame.bytes, isOutbound: frame.isOutbound) }
    case .replay(let reference):
      if let frame = take(reference) { judge(frame.bytes, isOutbound: frame.isOutbound) }
    case .discard(let reference): _ = take(reference)
    case .acknowledge(let acknowledgment):
      machine.leave(
        ModelTCP.Output(acknowledgment).frame(
          from: acknowledgment.flow.local, to: acknowledgment.flow.remote))
    case .injectLate(let range, _):
      guard case .link(let bytes) = context else {
        return world.broken(.protocolUse, "late frame from nowhere")
      }
      judge(stamped(Array(bytes[range])), isOutbound: false)

    case .appendSegment(let record):
      if world.isTold, let conversation = world.conversation(record.handle) {
        let start = record.kind == .sdrlSegment ? conversation.localStart : conversation.peerStart
        world.tell(
          name,
          "logs \(conversation.name) \(record.kind) \(record.sequence - start) + \(record.payload.count)")
      }
      guard case .packet(let frame) = context else {
        return world.broken(.protocolUse, "segment from nowhere")
      }
      var bytes = [UInt8](repeating: 0, count: SegmentRecord.fixedByteCount)
      bytes.withUnsafeMutableBytes { record.store(in: $0) }
      bytes += frame[record.payload]
      append(bytes)
    case .appendDatagram(let record):
      Judge.datagramLogged(record, on: machine)
      guard case .packet(let frame) = context else {
        return world.broken(.protocolUse, "datagram from nowhere")
      }
      var bytes = [UInt8](repeating: 0, count: DatagramRecord.fixedByteCount)
      bytes.withUnsafeMutableBytes { record.store(in: $0) }
      bytes += frame[record.payload]
      append(bytes)
    case .appendLateFrame(let header):
      guard case .packet(let frame) = context else { return world.broken(.protocolUse, "frame from nowhere") }
      var bytes = [UInt8](repeating: 0, count: RecordHeader.byteCount)
      bytes.withUnsafeMutableBytes { header.store(in: $0) }
      bytes += frame
      linkIsUrgent = true
      append(bytes)
    case .send(let record):
      linkIsUrgent = true
      append(record)
    case .closeLink(let reason):
      world.tell(name, "closes the link: \(reason)")
      if let link { world.link.flush(link) }
      dropLink()
      node.linkClosed(.closedHere, now: machine.now)
    case .sendOnUplink(let keepalive): world.uplink.tell(keepalive.uplinkPayload(), from: machine.slot)

    case .snoop(let handle, let stream, let range):
      guard case .link(let bytes) = context else { return world.broken(.protocolUse, "snooped from nowhere") }
      snoop(bytes[range], handle, stream)
    case .snoopOwned(let handle, let stream, let bytes): snoop(bytes[...], handle, stream)
    case .snoopDatagram(let handle, let stream, let remote, _, let range):
      guard case .link(let bytes) = context else { return world.broken(.protocolUse, "snooped from nowhere") }
      snoopDatagram(bytes[range], remote, handle, stream)
    case .snoopOwnedDatagram(let handle, let stream, let datagram):
      snoopDatagram(datagram.payload[...], datagram.remote, handle, stream)
    case .endSnoop(let handle, let stream): endSnoop(handle, stream)

    case .steer(let handle, let flow): steeringAdditions.append((handle, flow))
    case .unsteer(let flow):
      steeringAdditions.removeAll { $0.flow == flow }
      steeringRemovals.append((flow, machine.now + Self.steeringDelay))
    case .mirror(let flow): mirror(flow)
    case .endMirroring:
      machine.mirrored = []
      pendingMirrors = []
    case .replicated(let handle): replicationBegan(handle)
    case .refused(let handle, let reason): replicationRefused(handle, reason)
    case .unreplicated(let handle, let reason): replicationEnded(handle, reason)
    case .peerClosed(let handle):
      // Nobody is left who could close this direction.
      if !owned.contains(handle), let entry = sockets[handle], entry.closeRequested == nil {
        closeDuplicate(handle)
      }
    case .inspect(let handle):
      if let entry = sockets[handle], entry.closeRequested == nil, entry.socket.tcp.isReset {
        try? node.unreplicate(handle, because: .reset, now: machine.now)
      }
    case .silence(let handle):
      if let socket = sockets[handle]?.socket ?? pending[handle] { machine.remove(socket.conversation.flow) }

    case .service(let action): serviceChanged(action)

    case .writeRecords(let handle): if let work = records[handle] { writeRecords(work) }
    case .recordsHaveRoom(let handle): if let work = records[handle] { readRecords(work) }
    case .recordsSafe: break
    case .recordsEnded(let handle, let queue): recordsEnded(handle, queue)

    case .grantLease(let duration, let limit):
      let isInTime = machine.now <= limit
      if isInTime {
        machine.lease = .until(machine.now + duration)
        Judge.leaseBegins(machine)
      }
      node.leaseGranted(isInTime, now: machine.now)
    case .renewLease(let duration):
      let isRenewable = machine.leaseIsInForce
      if isRenewable {
        machine.lease = duration.map { .until(machine.now + $0) } ?? .endless
        Judge.leaseBegins(machine)
      } else {
        world.tell(name, "the lease ran out before it was renewed")
      }
      node.leaseRenewed(isRenewable, now: machine.now)
    case .revokeLease: machine.lease = .none
    case .takeAddresses: takeAddresses()
    case .dropAddresses:
      machine.hasAddresses = false
      Judge.gaveWay(machine)
    case .endConnections: endConnections()
    case .probe: world.uplink.probe(from: machine.slot)
    case .phaseChanged(let phase):
      if phase == .handingOver { Judge.handsOver(machine) }
      machine.application?.roleChanged(phase)
    case .standbyChanged(let isReady): machine.application?.standbyChanged(isReady)
    case .log(_, let text): world.tell(name, text)
    }
  }

  // MARK: Mastership

  private static let announcements: [TrueTime] = [
    .zero, .milliseconds(10), .milliseconds(50), .milliseconds(200), .seconds(1), .seconds(3),
  ]

  private func takeAddresses() {
    machine.hasAddresses = true
    Judge.becamePrimary(machine)
    for time in Self.announcements {
      machine.after(time) { [weak self] in
        guard let self, isAlive, phase == .primary else { return }
        world.uplink.announce(from: machine.slot)
      }
    }
  }

  private func endConnections() {
    // What `StaleConnections.destroy` does.
    for socket in machine.sortedSockets { machine.remove(socket.conversation.flow) }
    machine.application?.connectionsDestroyed()
  }

  // MARK: Snoop pairs

  private func reserve(_ count: Int, _ handle: Handle, _ stream: SnoopStream) -> Bool {
    guard let pair = pairs[handle] else { return false }
    let fits = stream == .rcv ? pair.rcv.reserve(count) : pair.snd.reserve(count)
    if !fits { node.snoopFailed(handle, because: .snoopBufferFull) }
    return fits
  }

  private func snoop(_ bytes: ArraySlice<UInt8>, _ handle: Handle, _ stream: SnoopStream) {
    guard let pair = pairs[handle] else { return }
    world.tell(name, "shows \(bytes.count) bytes of \(stream) of \(pair.conversation.name)")
    Judge.snooped(bytes, pair, stream, on: machine)
    if stream == .rcv { pair.rcv.write(bytes.count) } else { pair.snd.write(bytes.count) }
    // The pieces of a send queue, as the handshake found it, are cut anywhere.
    if stream == .snd, (try? node.socket(handle).phase) == .snooping { Judge.snoopShows(pair, on: machine) }
    pressure(pair, handle)
    machine.application?.becameReadable(pair)
  }

  /// A datagram has come, and is to be shown in a moment, if there is room.
  private func receive(
    _ payload: ArraySlice<UInt8>, _ remote: Endpoint, _ local: Endpoint, _ handle: Handle,
    _ stream: SnoopStream
  ) -> Bool {
    guard reserve(SnoopBuffer.byteCount(ofDatagramOf: payload.count), handle, stream),
      let pair = pairs[handle]
    else { return false }
    Judge.datagramReceived(payload, remote: remote, local: local, pair, stream, on: machine)
    return true
  }

  private func snoopDatagram(
    _ payload: ArraySlice<UInt8>, _ remote: Endpoint, _ handle: Handle, _ stream: SnoopStream
  ) {
    guard let pair = pairs[handle], let datagram = ModelDatagram(payload, peerPort: remote.port) else {
      return
    }
    world.tell(name, "shows \(datagram) on \(stream) of \(pair.conversation.name)")
    if stream == .rcv { pair.rcv.write(datagram) } else { pair.snd.write(datagram) }
    pressure(pair, handle)
    machine.application?.becameReadable(pair)
  }

  private func pressure(_ pair: Pair, _ handle: Handle) {
    let longest = max(pair.rcv.queued, pair.snd.queued)
    let limit = world.scenario.limits.snoopBuffer
    if longest > limit / 2 {
      node.snoopPressure(handle, isHigh: true)
    } else if longest == 0 || longest < limit / 8 {
      node.snoopPressure(handle, isHigh: false)
    }
  }

  /// The application has read something.
  func relieved(_ pair: Pair) {
    guard let handle = pairs.first(where: { $0.value === pair })?.key else { return }
    input(.request { engine in engine.pressure(pair, handle) })
  }

  private func endSnoop(_ handle: Handle, _ stream: SnoopStream) {
    guard let pair = pairs[handle] else { return }
    if stream == .snd { Judge.snoopEnds(pair, on: machine) }
    if stream == .rcv { pair.rcv.finish() } else { pair.snd.finish() }
  }

  private func retirePair(_ handle: Handle) {
    guard let pair = pairs.removeValue(forKey: handle) else { return }
    pair.rcv.finish()
    pair.snd.finish()
  }

  // MARK: Sockets

  private func flushSteering() {
    while !steeringAdditions.isEmpty, isAlive {
      let additions = steeringAdditions
      steeringAdditions = []
      for (_, flow) in additions {
        steeringRemovals.removeAll { $0.flow == flow }
        machine.steered.insert(flow)
        machine.mirrored.remove(flow)
        pendingMirrors.remove(flow)
      }
      for (handle, flow) in additions {
        if let socket = pending[handle] {
          takeSnapshot(handle, flow, socket)
        } else {
          node.steered(handle)
        }
        drain(.nothing)
      }
    }
  }

  /// The kernel has what the peer sends from now on; what waits to be judged it has not.
  private func mirror(_ flow: Flow) {
    guard machine.steered.contains(flow) else { return }
    machine.mirrored.insert(flow)
    pendingMirrors.insert(flow)
    input(
      .mark { engine in
        if engine.pendingMirrors.remove(flow) != nil { engine.node.mirrored(flow) }
      })
  }

  private func takeSnapshot(_ handle: Handle, _ flow: Flow, _ socket: KernelSocket) {
    guard machine.sockets[flow] === socket else { return node.snapshotFailed(handle) }
    if let udp = socket.udp {
      let pair = node.socket(of: flow)?.peer.flatMap {
        world.machines[1 - machine.slot].engine?.pair(named: $0)
      }
      Judge.datagramHandshake(socket, pair)
      let unread = udp.queue.map {
        Datagram(
          remote: Endpoint(Conversation.peerAddress, $0.peerPort), local: flow.local, payload: $0.payload)
      }
      return node.datagramSnapshotTaken(
        handle, DatagramSnapshot(receiveQueue: unread, options: socket.conversation.datagramOptions),
        now: machine.now)
    }
    guard !socket.tcp.isReset else { return node.snapshotFailed(handle) }
    Judge.handshake(socket, from: machine, handle)
    node.snapshotTaken(handle, socket.tcp.snapshot(now: machine.now), now: machine.now)
  }

  private func replicationBegan(_ handle: Handle) {
    world.statistics.replications += 1
    answered.remove(handle)
    if let socket = pending.removeValue(forKey: handle) {
      sockets[handle] = (socket, nil)
      socket.engineHasIt = true
      if closedEarly.remove(handle) != nil { closeDuplicate(handle) }
    }
    machine.application?.replicated(handle)
  }

  private func replicationRefused(_ handle: Handle, _ reason: UnreplicateReason) {
    guard let socket = pending.removeValue(forKey: handle) else { return }
    if answered.remove(handle) != nil { node.withdrawRequest(handle) }
    closedEarly.remove(handle)
    socket.engineHasIt = false
    machine.application?.refused(handle, "\(reason)")
    if !owned.contains(handle) {
      machine.closeIfUnowned(socket)
      try? node.free(handle)
    }
  }

  private func replicationEnded(_ handle: Handle, _ reason: UnreplicateReason) {
    replicationRefused(handle, reason)
    world.tell(name, "\(describe(handle)) is unreplicated: \(reason)")
    Judge.unreplicated(handle, reason, on: machine)
    let isPair = pairs[handle] != nil
    retirePair(handle)
    let hadOwner = owned.contains(handle)
    let entry = sockets.removeValue(forKey: handle)
    let last = lastRecords.first { $0.handle == handle }
    if isPair || last?.closesWhenDone == true || entry?.closeRequested != nil || reason == .mastershipLost
      || !hadOwner
    {
      owned.remove(handle)
      try? node.free(handle)
    }
    machine.application?.unreplicated(handle, reason)
    if let socket = entry?.socket, last == nil {
      socket.engineHasIt = false
      machine.closeIfUnowned(socket)
    }
  }

  private func closeDuplicate(_ handle: Handle) {
    if pending[handle] != nil {
      // Not before it is known what becomes of the handshake.
      closedEarly.insert(handle)
      owned.remove(handle)
    }
    guard let entry = sockets[handle], entry.closeRequested == nil else { return }
    if let work = records[handle] {
      // Not before all of its records are written.
      work.closesWhenDone = true
      work.pipe.hasEnded = true
      return readRecords(work)
    }
    sockets[handle]!.closeRequested = machine.now
    // The last descriptor is closed: FIN, and the kernel goes on by itself.
    entry.socket.engineHasIt = false
    // Nothing on the wire says that a UDP socket is closed.
    if entry.socket.udp != nil { try? node.unreplicate(handle, because: .closed, now: machine.now) }
    if !entry.socket.applicationHasIt {
      if entry.socket.tcp?.isClosed == false { Judge.applicationIsGone(entry.socket.conversation) }
      machine.closeIfUnowned(entry.socket)
    }
  }

  private func dropHandle(_ handle: Handle) {
    if let socket = sockets.removeValue(forKey: handle)?.socket {
      socket.engineHasIt = false
      machine.closeIfUnowned(socket)
    }
    owned.remove(handle)
    pairs[handle] = nil
    try? node.free(handle)
  }

  private func applicationGone() {
    node.unregister(Self.service)
    for handle in owned.sorted(by: { $0.rawValue < $1.rawValue }) {
      owned.remove(handle)
      guard let phase = try? node.socket(handle).phase else {
        pairs[handle] = nil
        continue
      }
      switch phase {
      case .allocated, .attached, .unreplicated: dropHandle(handle)
      case .receiving, .snooping:
        node.snoopFailed(handle, because: .applicationGone)
        drain(.nothing)
        dropHandle(handle)
      case .starting, .replicating, .ending:
        if let work = records[handle] {
          work.pipe.hasEnded = true
          readRecords(work, isLast: true)
          drain(.nothing)
        }
      case .merging: break
      }
    }
    attendOrphans()
  }

  /// Replicated connections whose application is gone go to the other RE as soon as that is there.
  private func attendOrphans() {
    guard phase == .primary, node.arbiter.standbyIsReady,
      sockets.contains(where: { !owned.contains($0.key) && $0.value.closeRequested == nil })
    else { return }
    world.tell(name, "an application with replicated sockets is gone: hands mastership over")
    try? node.releaseMastership(now: machine.now)
  }

  // MARK: What applications ask for (`Engine+Control`)

  func allocate() -> Handle? {
    guard let handle = try? node.allocate() else { return nil }
    note(handle)
    return handle
  }

  /// The node has given out a handle.
  private func note(_ handle: Handle) {
    owned.insert(handle)
    if let former = given.updateValue(handle, forKey: handle.index) {
      if former.generation >= handle.generation {
        world.broken(.protocolUse, "\(name) gives \(handle) after \(former)")
      }
      if (try? node.socket(former)) != nil {
        world.broken(.protocolUse, "\(name) accepts \(former), in whose place \(handle) is")
      }
    }
  }

  func free(_ handle: Handle) {
    guard (try? node.free(handle)) != nil else { return }
    if let socket = sockets.removeValue(forKey: handle)?.socket { socket.engineHasIt = false }
    owned.remove(handle)
    pairs[handle] = nil
  }

  func attach(primary: Handle, _ conversation: Conversation) -> (Handle, Pair)? {
    guard
      let handle = try? node.attach(primary: primary, transport: conversation.flow.transport)
    else { return nil }
    let limits = world.scenario.limits
    let buffer = SnoopBuffer(start: 0, socketCapacity: limits.snoopSocket, limit: limits.snoopBuffer)
    let pair = Pair(conversation, rcv: buffer, snd: buffer)
    pairs[handle] = pair
    note(handle)
    world.name(handle, conversation)
    return (handle, pair)
  }

  /// - Returns: why not.
  func replicate(_ handle: Handle, secondary: Handle, _ socket: KernelSocket) -> String? {
    if let refusal = refusal(of: socket) { return refusal }
    do throws(SocketError) {
      try node.replicate(handle, secondary: secondary, flow: socket.conversation.flow)
    } catch { return "\(error)" }
    pending[handle] = socket
    socket.engineHasIt = true
    world.name(handle, socket.conversation)
    return nil
  }

  /// What is left of records would not be in the log.
  private func refusal(of socket: KernelSocket) -> String? {
    lastRecords.contains { $0.socket === socket }
      ? "records of an earlier replication are being written" : nil
  }

  // MARK: Rendezvous

  private static let service = ServiceName("application")!

  func register() { try? node.register(Self.service) }

  /// - Returns: why not.
  func request(_ handle: Handle, _ socket: KernelSocket) -> String? {
    if let refusal = refusal(of: socket) { return refusal }
    do throws(SocketError) {
      try node.request(
        ReplicationRequest(
          service: Self.service, primary: handle, flow: socket.conversation.flow,
          note: [UInt8(truncatingIfNeeded: socket.conversation.number)]), now: machine.now)
    } catch { return "\(error)" }
    requested[handle] = socket
    socket.engineHasIt = true
    world.name(handle, socket.conversation)
    return nil
  }

  func accept(_ primary: Handle, _ conversation: Conversation) -> (Handle, Pair)? {
    guard let transport = node.transport(requestedFor: primary) else { return nil }
    guard transport == conversation.flow.transport else {
      world.broken(.protocolUse, "\(name) is asked for \(conversation.flow), said to be \(transport)")
      return nil
    }
    guard let attached = attach(primary: primary, conversation) else { return nil }
    do throws(SocketError) {
      try node.answerRequest(primary, with: attached.0)
    } catch {
      world.broken(.protocolUse, "\(name) cannot answer what it was asked: \(error)")
    }
    return attached
  }

  /// A request that was withdrawn meanwhile needs no answer.
  func decline(_ primary: Handle) {
    // Cut behind a whole character.
    try? node.declineRequest(primary, because: String(repeating: "€", count: 100))
  }

  private func serviceChanged(_ action: ServiceAction) {
    switch action {
    case .availabilityChanged(_, let isAvailable): machine.application?.serviceChanged(isAvailable)
    case .requested(let request):
      let conversation = world.conversations.first { $0.flow == request.flow }
      guard let conversation, request.note == [UInt8(truncatingIfNeeded: conversation.number)] else {
        return world.broken(.protocolUse, "\(name) is asked for \(request.flow), which nobody has")
      }
      machine.application?.requested(request.primary, conversation)
    case .withdrawn: break
    case .answered(let handle, let secondary):
      guard let socket = requested.removeValue(forKey: handle) else { return node.withdrawRequest(handle) }
      socket.engineHasIt = false
      let isThere = machine.sockets[socket.conversation.flow] === socket
      let refusal = isThere ? replicate(handle, secondary: secondary, socket) : "the connection is gone"
      if refusal == nil { answered.insert(handle) }
      if let refusal {
        node.withdrawRequest(handle)
        machine.application?.refused(handle, refusal)
        machine.closeIfUnowned(socket)
      }
    case .refused(let handle, let refusal):
      guard let socket = requested.removeValue(forKey: handle) else { return }
      socket.engineHasIt = false
      machine.application?.refused(handle, "\(refusal)")
      machine.closeIfUnowned(socket)
    }
  }

  func unreplicate(_ handle: Handle) { try? node.unreplicate(handle, now: machine.now) }

  func close(_ handle: Handle) {
    guard let phase = try? node.socket(handle).phase else { return }
    switch phase {
    case .replicating, .ending, .starting: closeDuplicate(handle)
    case .receiving, .snooping, .attached:
      try? node.unreplicate(handle, because: .applicationGone, now: machine.now)
      drain(.nothing)
      dropHandle(handle)
    case .allocated, .unreplicated: dropHandle(handle)
    case .merging: break
    }
  }

  // MARK: An operator

  func setTimeout(of layer: Layer, _ time: Nanoseconds) { node.setTimeout(of: layer, time) }

  func logRecords(_ isOn: Bool) { node.logsRecords = isOn }

  func askForMastership() {
    do throws(PairArbiter.RequestError) {
      if phase == .primary {
        try node.releaseMastership(now: machine.now)
      } else {
        try node.acquireMastership(now: machine.now)
      }
    } catch {
      let refusal = "\(error)"
      world.tell(name, "refuses: \(refusal)")
    }
  }

  // MARK: Records (`Engine+Records`)

  /// - Returns: why not.
  func beginRecords(_ handle: Handle, _ pipe: RecordPipe) -> String? {
    guard let entry = sockets[handle], entry.closeRequested == nil else { return "there is no socket" }
    do throws(SocketError) {
      try node.beginRecords(handle, writtenUpTo: entry.socket.tcp.dataEnd)
    } catch { return "\(error)" }
    records[handle] = RecordWork(handle, entry.socket, pipe)
    return nil
  }

  /// The application has given something, or gives no more.
  func recordsGiven(_ pipe: RecordPipe) {
    if let work = records.values.first(where: { $0.pipe === pipe }) { readRecords(work) }
  }

  private func readRecords(_ work: RecordWork, isLast: Bool = false) {
    while isAlive, records[work.handle] === work, let record = work.pipe.next() {
      let count = record.count - RecordFraming.headroom
      guard node.take(record: record, of: work.handle, isLast: isLast, now: machine.now) == .taken else {
        work.pipe.putBack(record)
        break
      }
      Judge.recordTaken(work.pipe.noteTaken(count), work.pipe.conversation, on: machine)
    }
    finishRecords(work)
  }

  /// The kernel has room again.
  func socketHasRoom(_ socket: KernelSocket) {
    let all = records.values.first { $0.socket === socket } ?? lastRecords.first { $0.socket === socket }
    guard let work = all, work.waitsForKernel, socket.tcp.writableByteCount > 0 else { return }
    work.waitsForKernel = false
    input(.request { engine in engine.writeRecords(work) })
  }

  private func writeRecords(_ work: RecordWork) {
    let socket = work.socket
    guard machine.sockets[socket.conversation.flow] === socket, !socket.tcp.isClosed, !socket.tcp.isDead
    else {
      return recordsFailed(work)
    }
    var hasWritten = false
    while let (bytes, offset) = work.left.map(\.unwritten) ?? node.unwrittenRecord(work.handle) {
      let count = min(bytes.count - offset, socket.tcp.writableByteCount)
      guard count > 0 else {
        work.waitsForKernel = true
        break
      }
      socket.tcp.write(bytes[offset..<offset + count])
      hasWritten = true
      if work.left?.wrote(count) == nil { node.wroteRecords(work.handle, count) }
    }
    if hasWritten { machine.transmit(socket) }
    finishRecords(work)
  }

  private func recordsFailed(_ work: RecordWork) {
    guard work.left == nil else { return endLastRecords(work) }
    guard node.unwrittenRecord(work.handle) != nil else { return }
    node.recordsFailed(
      work.handle, because: work.socket.tcp.isDead ? .reset : .recordsCutShort, now: machine.now)
  }

  /// The channel is done when all that came over it is written.
  private func finishRecords(_ work: RecordWork) {
    if let left = work.left {
      if left.isEmpty { endLastRecords(work) }
      return
    }
    guard isAlive, records[work.handle] === work, work.pipe.hasEnded, work.pipe.isDry,
      (try? node.endRecords(work.handle)) != nil
    else { return }
    records[work.handle] = nil
    reportEnd(of: work)
    if work.closesWhenDone { closeDuplicate(work.handle) }
  }

  /// Replication has ended: what the application has given so far is taken, and nothing more.
  private func recordsEnded(_ handle: Handle, _ queue: RecordQueue?) {
    guard let work = records.removeValue(forKey: handle) else { return }
    work.pipe.isShut = true
    guard let queue else { return }
    work.left = queue
    while let record = work.pipe.next() {
      work.left!.append(record, from: RecordFraming.headroom)
      _ = work.pipe.noteTaken(record.count - RecordFraming.headroom)
    }
    lastRecords.append(work)
    writeRecords(work)
  }

  private func endLastRecords(_ work: RecordWork) {
    guard let place = lastRecords.firstIndex(where: { $0 === work }) else { return }
    lastRecords.remove(at: place)
    reportEnd(of: work)
    if work.closesWhenDone, sockets[work.handle]?.socket === work.socket {
      sockets[work.handle]!.closeRequested = machine.now
    }
    // Unless it is replicated again meanwhile, nobody but the application needs the socket.
    if !sockets.values.contains(where: { $0.socket === work.socket }) {
      work.socket.engineHasIt = false
      machine.closeIfUnowned(work.socket)
    }
  }

  private func isThere(_ socket: KernelSocket) -> Bool {
    machine.sockets[socket.conversation.flow] === socket
  }

  private func reportEnd(of work: RecordWork) {
    work.pipe.isShut = true
    guard isThere(work.socket) else { return }
    work.pipe.endedAt = work.pipe.takenUpTo
    Judge.recordsWritten(upTo: work.pipe.takenUpTo, work.socket, on: machine)
  }

  /// - Returns: the live socket, or why there is none.
  func merge(_ handle: Handle, _ conversation: Conversation) -> Result<KernelSocket, MergeRefused> {
    let plan: StreamMergePlan
    guard let pair = pairs[handle] else { return .failure(MergeRefused(reason: "no pair")) }
    do throws(SocketError) {
      switch try node.merge(handle, now: machine.now) {
      case .stream(let stream): plan = stream
      case .datagrams(let datagrams): return .success(merge(handle, datagrams, pair))
      }
    } catch { return .failure(MergeRefused(reason: "\(error)")) }
    let unread = pair.rcv.takeBack()
    Judge.merged(plan, pair, unread: unread, on: machine)
    retirePair(handle)
    let tcp = ModelTCP(
      plan, unread: conversation.peerBytes(unread), options: conversation.plan.local, now: machine.now)
    let socket = KernelSocket(
      conversation, tcp: tcp, readPosition: unread.lowerBound,
      writePosition: plan.sendUnacknowledged + plan.sendQueue.count - conversation.localStart)
    machine.add(socket)
    machine.transmit(socket)
    resend(plan, conversation)
    node.merged(handle, succeeded: true)
    owned.remove(handle)
    world.statistics.merges += 1
    return .success(socket)
  }

  private func merge(_ handle: Handle, _ plan: DatagramMergePlan, _ pair: Pair) -> KernelSocket {
    let conversation = pair.conversation
    Judge.merged(plan, pair, on: machine)
    var udp = ModelUDP(
      limit: conversation.datagrams!.plan.queueLimit, nextNumber: pair.ledger?.nextNumberOnSecondary ?? 0)
    for datagram in pair.rcv.takeBackDatagrams() { udp.receive(datagram) }
    retirePair(handle)
    let socket = KernelSocket(conversation, udp: udp)
    machine.add(socket)
    node.merged(handle, succeeded: true)
    owned.remove(handle)
    world.statistics.merges += 1
    world.statistics.datagramMerges += 1
    return socket
  }

  struct MergeRefused: Error { var reason: String }

  /// `Engine.resend`: unacknowledged bytes go out at once.
  private func resend(_ plan: StreamMergePlan, _ conversation: Conversation) {
    let block = plan.block
    let finCount: UInt32 = plan.finReceived ? 1 : 0
    let window = (plan.receiveWindow - finCount) >> UInt32(block.negotiated.receiveWindowScale ?? 0)
    let acknowledgment = plan.receiveNext + Int(finCount)
    let timestamps =
      block.negotiated.timestamps
      ? TCPTimestamps(value: plan.timestamp, echo: block.timestampRecent) : nil
    func send(_ sequence: SequenceNumber, _ payload: [UInt8]) {
      let output = ModelTCP.Output(
        sequence: sequence, acknowledgment: acknowledgment, flags: payload.isEmpty ? .ack : [.ack, .psh],
        window: UInt16(clamping: window), timestamps: timestamps, payload: payload)
      machine.leave(conversation.frame(output, fromPeer: false))
    }
    let step = Int(block.negotiated.maximumSegmentSize)
    let count = plan.sentCount
    for start in stride(from: 0, to: count, by: step) {
      send(plan.sendUnacknowledged + start, Array(plan.sendQueue[start..<min(start + step, count)]))
    }
    if count == 0 { send(plan.sendUnacknowledged, []) }
  }

  // MARK: For the checks

  /// Nothing that was said to this process waits to be read.
  var hasHeardAll: Bool { inbox.isEmpty && linkInput.isEmpty }

  func describe(_ handle: Handle) -> String {
    "\(handle)" + (world.conversation(handle).map { " (\($0.name))" } ?? "")
  }

  /// How the node sees a conversation, by its flow.
  func view(of conversation: Conversation) -> ReplicationNode.SocketView? {
    node.socket(of: conversation.flow)
  }

  func pair(of conversation: Conversation) -> (handle: Handle, pair: Pair)? {
    // Of several, the one that was made last: the application lets go of the others.
    pairs.filter { $0.value.conversation === conversation }.max { $0.key.generation < $1.key.generation }
      .map { ($0.key, $0.value) }
  }

  func pair(named handle: Handle) -> Pair? { pairs[handle] }

  /// Whether the conversation's pair could be merged, were this RE primary.
  func isSnooping(_ conversation: Conversation) -> Bool {
    guard let (handle, _) = pair(of: conversation) else { return false }
    return (try? node.socket(handle).phase) == .snooping
  }

  private func checkMemory() {
    guard world.now - lastAccount >= .milliseconds(100) else { return }
    lastAccount = world.now
    Judge.memory(of: self, on: machine)
    Judge.secondaryIsInStep(with: machine)
    for case .some(let frame) in held { Judge.stillHeld(since: frame.since, frame.conversation, on: machine) }
  }

  /// What is left when everything is over; empty if nothing is.
  var leftovers: [String] {
    var result: [String] = []
    if node.occupancy != Occupancy() { result.append("\(node.occupancy)") }
    if heldCount != 0 { result.append("\(heldCount) held frames") }
    if !owned.isEmpty { result.append("\(owned.count) handles with an owner") }
    if !sockets.isEmpty { result.append("\(sockets.count) duplicates of sockets") }
    if !pending.isEmpty { result.append("\(pending.count) handshakes") }
    if !records.isEmpty || !lastRecords.isEmpty {
      result.append("\(records.count + lastRecords.count) record channels")
    }
    if !pairs.isEmpty { result.append("\(pairs.count) snoop pairs") }
    for view in node.sockets {
      result.append("\(describe(view.handle)) is \(view.phase)")
    }
    if !machine.steered.isEmpty { result.append("\(machine.steered.count) steered flows") }
    return result
  }
}

import Packet
import Replication

/// A socket in the kernel of an RE, and who holds descriptors of it.
final class KernelSocket {
  let conversation: Conversation
  /// One of the two is there.
  var tcp: ModelTCP!
  var udp: ModelUDP!
  /// Of a UDP socket that is, or was, replicated.
  var ledger: DatagramLedger?
  /// Of the last datagram that an engine delivered to it.
  var lastStamp: UInt64 = 0
  var applicationHasIt = true
  var engineHasIt = false
  /// When its next timer is due, of those that are scheduled.
  var timer: TrueTime?
  /// Position in the peer's stream of the next byte that the application reads.
  var readPosition: Int
  /// Position in the RE's stream of the next byte that the application writes.
  var writePosition: Int
  /// The application has read the end of the peer's stream.
  var sawEnd = false

  init(_ conversation: Conversation, tcp: ModelTCP, readPosition: Int, writePosition: Int) {
    self.conversation = conversation
    self.tcp = tcp
    self.readPosition = readPosition
    self.writePosition = writePosition
  }

  init(_ conversation: Conversation, udp: ModelUDP) {
    self.conversation = conversation
    self.udp = udp
    readPosition = 0
    writePosition = 0
  }
}

/// One routing engine's machine: its clock, what its kernel holds, and the processes that run on it.
final class Machine {
  enum Lease: Equatable {
    case none
    case until(Instant)
    case endless
  }

  let slot: Int
  unowned(unsafe) let world: World
  private(set) var isOn = false
  /// Counts power-ups: what was scheduled before means nothing after.
  private(set) var boots = 0
  /// Stopped for a while, with everything on it.
  private(set) var isStopped = false
  private var stoppedSince: TrueTime = 0
  private var wentOnAt: TrueTime?
  private var clockIsStopped = false
  private var clockOffset: TrueTime
  private var missedWork: [() -> Void] = []

  private(set) var engine: EngineProcess?
  /// An engine was started before: the next is of the present release.
  private var engineWasStarted = false
  private(set) var application: Application?
  var applicationIsMissing = false

  // What the kernel holds.
  private(set) var sockets: [Flow: KernelSocket] = [:]
  var steered: Set<Flow> = []
  /// Of the steered flows, those whose peers' packets the kernel has too, as they come.
  var mirrored: Set<Flow> = []
  var lease = Lease.none
  var hasAddresses = false

  init(slot: Int, world: World) {
    self.slot = slot
    self.world = world
    clockOffset = .seconds(Int64(slot + 1) * 1_000)
  }

  var name: String { "re\(slot)" }

  // MARK: Clock

  /// What CLOCK_MONOTONIC says on this machine.
  var now: Instant { local(clockIsStopped ? stoppedSince : world.now) }

  private func local(_ time: TrueTime) -> Instant {
    let drifted = Double(time) * (1 + world.scenario.drift[slot] / 1_000_000)
    return Instant(nanoseconds: Int64(drifted) + clockOffset)
  }

  /// How much true time passes until this machine's clock says `instant`.
  func trueTime(until instant: Instant) -> TrueTime {
    let span = Double((instant - now).count) / (1 + world.scenario.drift[slot] / 1_000_000)
    return max(0, TrueTime(span) + 1)
  }

  /// Does something later, unless the machine has lost power by then. A machine that is stopped does it when
  /// it goes on.
  func after(_ delay: TrueTime, _ body: @escaping () -> Void) {
    let boot = boots
    world.after(delay) { [unowned self] in
      guard boot == boots, isOn else { return }
      if isStopped { missedWork.append(body) } else { body() }
    }
  }

  // MARK: Power and processes

  func powerOn() {
    guard !isOn else { return }
    isOn = true
    boots += 1
    world.tell(name, "boots")
    world.link.machineIsOn(slot)
    startEngine()
    if !applicationIsMissing { startApplication() }
  }

  func powerOff() {
    guard isOn else { return }
    world.tell(name, "loses power")
    lose()
    isOn = false
    isStopped = false
    clockIsStopped = false
    missedWork = []
    engine?.die()
    engine = nil
    application?.die()
    application = nil
    sockets = [:]
    steered = []
    mirrored = []
    lease = .none
    hasAddresses = false
    world.link.machineIsOff(slot)
  }

  func startEngine() {
    guard isOn, engine == nil else { return }
    world.tell(name, "the engine starts")
    // The packet filter is installed anew: nothing is steered, and the fence is shut. What the former engine
    // steered was replicated: the other RE has it.
    for socket in sortedSockets where steered.contains(socket.conversation.flow) {
      remove(socket.conversation.flow)
    }
    application?.connectionsDestroyed()
    steered = []
    mirrored = []
    lease = .none
    let supported = LinkVersion.supported
    let isOld = !engineWasStarted && world.scenario.beginsWithOldEngine[slot]
    engineWasStarted = true
    engine = EngineProcess(
      machine: self, linkVersions: isOld ? supported.lowerBound...supported.lowerBound : supported)
    engine!.start()
    application?.engineCame()
  }

  /// The process is gone; its kernel closes what it had open.
  func killEngine() {
    guard isOn, let engine else { return }
    world.tell(name, "the engine crashes")
    lose()
    engine.die()
    self.engine = nil
    world.link.processEnded(slot)
    application?.engineGone()
    for socket in sortedSockets where socket.engineHasIt {
      socket.engineHasIt = false
      closeIfUnowned(socket)
    }
  }

  func startApplication() {
    guard isOn, application == nil else { return }
    world.tell(name, "the application starts")
    applicationIsMissing = false
    application = Application(machine: self)
    application!.start()
  }

  func killApplication() {
    guard isOn, let application else { return }
    world.tell(name, "the application crashes")
    lose(engineStays: true)
    application.die()
    self.application = nil
    for socket in sortedSockets where socket.applicationHasIt {
      socket.applicationHasIt = false
      closeIfUnowned(socket)
    }
    // Its control connection ends, which the engine hears of.
    engine?.input(.applicationGone)
  }

  /// Everything on the machine stops.
  func stop(withClock: Bool) {
    guard isOn, !isStopped else { return }
    world.tell(name, withClock ? "stops, and its clock with it" : "stops; its clock goes on")
    lose()
    stoppedSince = world.now
    isStopped = true
    clockIsStopped = withClock
  }

  /// Its kernel answers what it is asked, and has for long enough for an answer to be there.
  var answers: Bool { !isStopped && wentOnAt.map { world.now - $0 >= Uplink.answerTime } ?? true }

  func goOn() {
    guard isStopped else { return }
    world.tell(name, "goes on")
    if clockIsStopped { clockOffset -= world.now - stoppedSince }
    isStopped = false
    wentOnAt = world.now
    engine?.noteRunning()
    clockIsStopped = false
    let work = missedWork
    missedWork = []
    for body in work where isOn && !isStopped { body() }
    engine?.wake()
  }

  /// Before something on this machine stops or ends: which connections may be lost by that?
  private func lose(engineStays: Bool = false) { Judge.machineFails(self, engineStays: engineStays) }

  /// The engine is about to stop for a while.
  func engineSleeps() { lose() }

  // MARK: Sockets

  /// In the order of their numbers: a dictionary has none that a seed decides.
  var sortedSockets: [KernelSocket] {
    sockets.values.sorted { $0.conversation.number < $1.conversation.number }
  }

  func add(_ socket: KernelSocket) {
    sockets[socket.conversation.flow] = socket
    arm(socket)
  }

  func remove(_ flow: Flow) { sockets[flow] = nil }

  /// The last descriptor is closed: what was not read is lost, and the peer is told.
  func closeIfUnowned(_ socket: KernelSocket) {
    guard !socket.applicationHasIt, !socket.engineHasIt, sockets[socket.conversation.flow] === socket else {
      return
    }
    guard let tcp = socket.tcp else {
      // Whoever writes to it from now on is told that there is nobody.
      Judge.applicationIsGone(socket.conversation)
      return remove(socket.conversation.flow)
    }
    let isOver = tcp.isReset || (tcp.isClosed && socket.sawEnd)
    if !isOver {
      world.tell(
        name, "nobody holds the socket of \(socket.conversation.name) any more: the kernel resets it")
      Judge.applicationIsGone(socket.conversation)
      let reset = socket.tcp.abort(now: now)
      egress(socket.conversation.frame(reset, fromPeer: false))
      remove(socket.conversation.flow)
    }
  }

  /// Sends whatever the socket has to send, and watches its timer.
  func transmit(_ socket: KernelSocket) {
    guard sockets[socket.conversation.flow] === socket else { return }
    for output in socket.tcp.output(now: now) { egress(socket.conversation.frame(output, fromPeer: false)) }
    arm(socket)
  }

  private func arm(_ socket: KernelSocket) {
    guard let deadline = socket.tcp?.deadline else { return }
    let at = world.now + trueTime(until: deadline)
    if let timer = socket.timer, timer <= at { return }
    socket.timer = at
    after(at - world.now) { [unowned self, weak socket] in
      guard let socket, sockets[socket.conversation.flow] === socket, socket.timer == at else { return }
      socket.timer = nil
      for output in socket.tcp.expire(now: now) { egress(socket.conversation.frame(output, fromPeer: false)) }
      arm(socket)
    }
  }

  /// The application sends a datagram.
  func send(_ datagram: ModelDatagram, on socket: KernelSocket) {
    var frame = datagram.frame(
      from: socket.conversation.flow.local, to: Endpoint(Conversation.peerAddress, datagram.peerPort))
    let stamp = world.nextStamp()
    FrameStamp.put(stamp, on: &frame)
    world.noteOnItsWay(
      DatagramOnItsWay(
        socket: socket, datagram: datagram, ledger: socket.ledger, seen: socket.ledger?.released.count ?? 0),
      stamp)
    egress(frame)
  }

  // MARK: The wire

  /// How often the kernel has a packet of a mirrored flow, and the engine has not: more often than on any real machine.
  private static let copyLoss = 0.001

  private func isSteered(_ packet: ModelPacket, isOutbound: Bool) -> Bool {
    let flow = packet.flow(isOutbound: isOutbound)
    return steered.contains(flow) || flow.unconnected.map(steered.contains) == true
  }

  /// A frame that the kernel has built meets the packet filter.
  func egress(_ frame: [UInt8]) {
    if isSteered(ModelPacket(frame)!, isOutbound: true) {
      // Without an engine there is no device to forward to.
      engine?.input(.frame(frame, isOutbound: true))
    } else {
      leave(frame)
    }
  }

  var leaseIsInForce: Bool {
    switch lease {
    case .none: false
    case .endless: true
    case .until(let end): now < end
    }
  }

  /// What the lease lets through is on the wire.
  ///
  /// - Parameter byEngine: the engine has put it there, not the kernel itself.
  func leave(_ frame: [UInt8], byEngine: Bool = false) {
    guard leaseIsInForce, !isStopped else { return }
    Judge.frameLeaves(frame, byEngine: byEngine, from: self)
    world.uplink.send(frame, from: slot)
  }

  /// A frame arrives from the uplink.
  func ingress(_ frame: [UInt8]) {
    guard isOn else { return }
    if isStopped {
      // The card's ring is short.
      if missedWork.count < 64 { missedWork.append { [unowned self] in ingress(frame) } }
      return
    }
    guard let packet = ModelPacket(frame) else { return }
    if isSteered(packet, isOutbound: false) {
      let isMirrored = mirrored.contains(packet.flow(isOutbound: false))
      // The kernel may be short of memory for the copy.
      if !isMirrored || !world.random.network.chance(Self.copyLoss) {
        engine?.input(.frame(frame, isOutbound: false))
      }
      if isMirrored { deliver(frame) }
    } else {
      deliver(frame)
    }
  }

  /// A frame has reached the kernel's TCP or UDP.
  func deliver(_ frame: [UInt8], byEngine: Bool = false) {
    if case .udp(let packet) = ModelPacket(frame) { return deliver(packet, frame, byEngine: byEngine) }
    frame.withUnsafeBytes { bytes in
      let packet = TCPPacket(bytes)!
      // Not an address of this machine.
      guard hasAddresses, packet.checksumIsValid(bytes) else { return }
      guard let socket = sockets[packet.inboundFlow()] else { return answerWithReset(packet) }
      if world.isTold {
        let segment = packet.segment
        let conversation = socket.conversation
        world.tell(
          name,
          "in  \(conversation.name) \(segment.flags) seq \(segment.sequence - conversation.peerStart) + "
            + "\(segment.payload.count), ack \(segment.acknowledgment - conversation.localStart), window \(segment.window)"
        )
      }
      socket.tcp.receive(
        packet.segment, UnsafeRawBufferPointer(rebasing: bytes[packet.segment.payload]), now: now)
      application?.becameReadable(socket)
      engine?.socketHasRoom(socket)
      transmit(socket)
      if socket.tcp.isReset { remove(packet.inboundFlow()) }
    }
  }

  private func deliver(_ packet: UDPPacket, _ frame: [UInt8], byEngine: Bool) {
    guard hasAddresses, frame.withUnsafeBytes({ packet.checksumIsValid($0) }) else { return }
    guard let datagram = ModelDatagram(frame[packet.payload], peerPort: packet.source.port) else {
      return world.broken(.stream, "\(name): the kernel gets a datagram that nobody wrote")
    }
    let flow = packet.inboundFlow()
    guard let socket = sockets[flow] ?? flow.unconnected.flatMap({ sockets[$0] }) else {
      return Judge.portIsUnreachable(datagram, on: self)
    }
    world.tell(name, "in  \(socket.conversation.name) \(datagram)")
    Judge.datagramDelivered(datagram, FrameStamp.read(frame), to: socket, byEngine: byEngine, on: self)
    socket.udp.receive(datagram)
    application?.becameReadable(socket)
  }

  private func answerWithReset(_ packet: TCPPacket) {
    guard !packet.segment.flags.contains(.rst) else { return }
    let output = ModelTCP.Output(
      sequence: packet.segment.acknowledgment, acknowledgment: packet.segment.end, flags: [.rst, .ack],
      window: 0, timestamps: nil, payload: [])
    egress(output.frame(from: packet.destination, to: packet.source))
  }
}

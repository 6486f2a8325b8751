import Control
import DequeModule
import Descriptors
import EngineConfiguration
import Glibc
import LinuxNetworking
import Logging
import NIOCore
import NIOPosix
import Packet
import Replication

/// One routing engine's half of JSR: joins the protocol (``ReplicationNode``) to this machine.
///
/// A packet of a replicated flow is forwarded by the kernel's packet filter to the TAP device, read here
/// (`Engine+Packets`), judged by the node, and written back to the TAP (inbound) or to the uplink
/// (outbound), at once or when the node says so. Records for the other RE leave through ``Link``. What
/// applications ask for comes in through the control socket (`Engine+Sockets`).
///
/// Everything runs on one event loop. The type is `Sendable` only so that the loop's callbacks can hold it:
/// every method but `start` and `stop` must be called on that loop.
public final class Engine: @unchecked Sendable {
  public static let version = "0.2.0"

  /// Marks the frames that the engine itself sends, so that the packet filter does not steer them back.
  static let packetMark: UInt32 = 0x4a53_5201

  /// What is in force: what may change while the engine runs is changed here too.
  var configuration: Configuration
  let logger: Logger
  /// Makes the log say more or less from now on, in every logger of the process.
  let setLogLevel: @Sendable (Logger.Level) -> Void
  let eventLoop: any EventLoop
  let startedAt: Instant

  /// The one that the engine is in first.
  let instances: [RoutingInstance]
  let linkCarrier: LinkCarrier?

  var node: ReplicationNode
  var store = FrameStore()
  var fragments = FragmentBuffer()
  var counters = EngineCounters()
  var link: Link!
  /// `nil` if the link is plain text.
  var linkCredentials: LinkCredentials?
  var control: ControlServer!
  var monitor: ReadinessMonitor!
  private var ticker: RepeatedTask?
  private var expiryWatch: RepeatedTask?
  private var isStopping = false
  private var failure: (String) -> Void = { _ in }

  /// Arrays for actions, so that carrying them out allocates nothing.
  private var spareBatches: [[Action]] = []
  /// No packet of the present batch has been read before this one.
  var batchIsFresh = true
  /// Somebody waits for what is to be written to the link.
  var linkIsUrgent = false
  /// Until when the event loop looks for more without sleeping; `nil` while it sleeps when there is nothing to do.
  private var spinsUntil: Instant?
  private let busyPoll: Nanoseconds

  /// What applications own.
  var owners: [Handle: ClientID] = [:]
  var sockets: [Handle: ReplicatedSocket] = [:]
  var pendingReplications: [Handle: PendingReplication] = [:]
  var waitingReplications: Deque<WaitingReplication> = []
  /// Which client has registered a service here.
  var serviceOwners: [ServiceName: ClientID] = [:]
  /// Sockets about which the other RE's instance has been asked.
  var requestedReplications: [Handle: RequestedReplication] = [:]
  var pairs: [Handle: SnoopPair] = [:]
  /// Pairs that have ended but whose application has not read all.
  var endingPairs: [SnoopPair] = []
  var snoopTokens: [ReadinessMonitor.Token: SnoopWatch] = [:]
  /// Applications are to be told that mastership is lost, behind what they are told of sockets.
  var owesMastershipLost = false
  /// Connections that nobody serves any more.
  var abandoned: [ReadinessMonitor.Token: AbandonedConnection] = [:]
  /// Sockets that a reset may have ended, and how often they are yet to be looked at.
  var suspects: [Handle: Int] = [:]
  /// Replicated connections of this primary that are signed.
  var signedFlows: [Flow: SignedFlow] = [:]
  /// Of sockets in record mode.
  var recordChannels: [Handle: RecordChannel] = [:]
  /// Of sockets that are not replicated any more, with records still to be written.
  var lastRecords: [RecordChannel] = []
  var recordTokens: [ReadinessMonitor.Token: RecordChannel] = [:]
  var pendingRecordModes: [PendingRecordMode] = []
  /// Sockets whose records are welcome again.
  var dueRecordReads: [Handle] = []
  /// Sockets that are to be given records once these are on their way to the other RE.
  var dueRecordWrites: [Handle] = []
  var steeringAdditions: [(handle: Handle, flow: Flow)] = []
  var steeringRemovals = SteeringRemovals()
  /// Flows that are to be mirrored.
  var mirrorAdditions: [Flow] = []
  /// Flows that are mirrored, or about to be, while what was steered before is still to be read.
  var pendingMirrors: Set<Flow> = []
  var queueMarks = QueueMarks()
  /// Sockets whose flows are steered and whose state is yet to be read.
  var dueSnapshots = Deque<Handle>()
  /// The event loop is going to read more of them.
  var snapshotsGoOn = false
  /// Why the last connection to the other RE came to nothing before it was a link, and when that was said.
  var refusal: (reason: String, saidAt: Instant)?
  /// When this RE became primary, and said so; `nil` if it is not.
  var becamePrimary: Instant?
  var lastSweep = Instant(nanoseconds: 0)
  var announcements: [Scheduled<Void>] = []

  /// How often the protocol looks at the clock.
  static let tickInterval = TimeAmount.milliseconds(10)
  /// How often the same refusal is worth a line.
  static let refusalInterval = Nanoseconds.seconds(60)

  // MARK: Start and stop

  /// Prepares the machine: TAP device, packet filter, packet sockets. Nothing runs yet.
  ///
  /// - Parameter setLogLevel: called on the event loop when an operator wants the log to say more or less; it
  ///   does so in every logger of the process.
  /// - Throws: `EngineError`, which says what is missing.
  public init(
    _ configuration: Configuration, on eventLoop: any EventLoop, logger: Logger,
    setLogLevel: @escaping @Sendable (Logger.Level) -> Void
  ) throws(EngineError) {
    self.configuration = configuration
    self.eventLoop = eventLoop
    self.logger = logger
    self.setLogLevel = setLogLevel
    startedAt = Self.now()
    busyPoll = Nanoseconds(configuration.busyPoll)
    do throws(LinkCredentialsError) {
      linkCredentials = try Self.credentials(for: configuration)
    } catch {
      throw .linkCredentials(error)
    }
    do throws(SystemError) {
      linkCarrier = try LinkCarrier(address: configuration.link.listen.address)
    } catch {
      throw EngineError(error)
    }
    instances = try Self.routingInstances(configuration)
    node = ReplicationNode(
      ReplicationNode.Configuration(
        node: configuration.node, slot: configuration.slot,
        priority: UInt16(configuration.mastership.priority),
        timing: PairTiming(
          interval: Nanoseconds(configuration.mastership.keepalive.interval),
          misses: configuration.mastership.keepalive.misses),
        mode: configuration.mode == .strict ? .strict : .overlap,
        timeouts: LayerTimeouts(configuration.timeouts),
        socketLimit: configuration.limits.sockets, holdLimit: configuration.limits.holdBuffer,
        recordLimit: configuration.limits.record, linkVersions: configuration.link.versions,
        incarnation: .random(in: 1...UInt64.max)),
      now: startedAt)
    node.logsRecords = configuration.log.level <= .debug
    for instance in instances {
      for uplink in instance.uplinks where uplink.interface == nil {
        logger.warning(
          "uplink \(uplink.name)\(instance.mention) is not there; it will be used when it comes")
      }
    }
    endFormerConnections()
  }

  /// The main one, and those that the configuration names, in their order.
  private static func routingInstances(_ configuration: Configuration) throws(EngineError)
    -> [RoutingInstance]
  {
    var others: [InstancePlace] = []
    do throws(SystemError) {
      for instance in configuration.instances { others.append(try InstancePlace(instance.place)) }
    } catch {
      throw EngineError(error)
    }
    var instances = [
      try RoutingInstance(
        replicated: configuration.addresses, uplinks: configuration.uplinks, beside: others, mark: packetMark)
    ]
    for (number, (instance, place)) in zip(configuration.instances, others).enumerated() {
      instances.append(try RoutingInstance(instance, in: place, number: number + 1, mark: packetMark))
    }
    return instances
  }

  /// Reads the files that the configuration names for the link; `nil` for a link in plain text.
  private static func credentials(
    for configuration: Configuration
  ) throws(LinkCredentialsError) -> LinkCredentials? {
    guard case .tls(let tls) = configuration.link.security else { return nil }
    return try LinkCredentials(tls, now: time(nil))
  }

  /// What an earlier run of the engine steered was replicated when it ended: the other RE has it, and may have
  /// gone on with it. What was not goes on here. The fence is shut, so that no peer hears of it.
  private func endFormerConnections() {
    for instance in instances where !instance.formerFlows.isEmpty {
      for address in instance.addresses {
        do throws(SystemError) {
          let count = try instance.endConnections(of: address, among: instance.formerFlows)
          if count > 0 { logger.info("ended \(count) connections that an earlier run had replicated") }
        } catch {
          logger.warning("replicated connections of an earlier run are left: \(error)")
        }
      }
    }
    for instance in instances { forgetUnsent(of: instance) }
  }

  /// Behind the end of connections that must not be heard: the kernel may have kept their last words, to send them when
  /// it has found out where.
  func forgetUnsent(of instance: RoutingInstance) {
    instance.forgetUnsent { [logger] uplink, error in
      logger.warning("what waits to be sent on \(uplink.name)\(instance.mention) may be sent yet: \(error)")
    }
  }

  /// Starts everything and returns when the engine is ready for its other half and for applications.
  ///
  /// - Parameter failed: called once, on the event loop, if the engine cannot go on.
  public func start(failed: @escaping @Sendable (String) -> Void) async throws {
    try await eventLoop.submit { try self.startOnLoop(failed: failed) }.get()
    try await eventLoop.flatSubmit {
      let reading = self.instances.flatMap(\.uplinks).map { uplink in
        do { return try uplink.readTap(TapHandler(self, uplink), on: self.eventLoop) } catch {
          return self.eventLoop.makeFailedFuture(error)
        }
      }
      return EventLoopFuture.andAllSucceed(reading, on: self.eventLoop)
    }.get()
  }

  private func startOnLoop(failed: @escaping @Sendable (String) -> Void) throws {
    failure = failed
    monitor = try ReadinessMonitor { [self] token, _ in
      eventLoop.execute { self.becameReady(token) }
    }
    control = ControlServer(
      path: configuration.control, eventLoop: eventLoop, logger: logger, delegate: self)
    try control.start()
    link = Link(
      delegate: self, eventLoop: eventLoop, configuration: configuration.link, credentials: linkCredentials,
      slot: configuration.slot, retryDelay: .nanoseconds(node.configuration.timing.reconnection.count),
      logger: logger)
    for instance in instances {
      for uplink in instance.uplinks { uplink.listen(uplinkReceivers(of: instance), on: eventLoop) }
    }
    expiryWatch = eventLoop.scheduleRepeatedTask(initialDelay: .zero, delay: .hours(24)) { [self] _ in
      warnOfLinkSecurity()
    }
    try link.start()
    ticker = eventLoop.scheduleRepeatedTask(initialDelay: .zero, delay: Self.tickInterval) { [self] _ in
      tick()
    }
  }

  /// Takes over what may change while the engine runs, and warns of what else has changed. The files of the link are
  /// read again, for connections to come.
  ///
  /// - Throws: `LinkCredentialsError` if one of these files cannot be used; then nothing is taken over.
  public func reconfigure(_ new: Configuration) async throws {
    let credentials = try Self.credentials(for: new)
    try await eventLoop.submit { self.takeOver(new, credentials) }.get()
  }

  /// Ends in order: hands mastership over if somebody can take it; otherwise leaves connections alone, as
  /// ordinary sockets of this machine.
  public func stop() async {
    try? await eventLoop.submit { self.beginStop() }.get()
    // The handover takes a few milliseconds; whoever cannot take it by then will find out by himself.
    for _ in 0..<100 {
      let isDone = (try? await eventLoop.submit { !self.node.isHandingOver }.get()) ?? true
      if isDone { break }
      try? await Task.sleep(for: .milliseconds(10))
    }
    try? await eventLoop.submit { self.finishStop() }.get()
  }

  private func beginStop() {
    isStopping = true
    if node.arbiter.standbyIsReady { try? node.releaseMastership(now: Self.now()) }
    settle()
  }

  private func finishStop() {
    let staysPrimary = node.arbiter.phase == .primary
    ticker?.cancel()
    expiryWatch?.cancel()
    for announcement in announcements { announcement.cancel() }
    link?.stop()
    control?.close()
    for uplink in instances.flatMap(\.uplinks) { uplink.stop() }
    monitor?.close()
    for instance in instances {
      do throws(PacketFilterError) {
        if staysPrimary {
          try instance.filter.remove()
        } else {
          // Sockets of a lost mastership may still be about; the fence outlives the engine.
          try instance.filter.revokeLease(instance.addresses)
        }
      } catch {
        logger.error("packet filter\(instance.mention): \(error)")
      }
    }
  }

  /// Something without which the engine cannot work is gone.
  func fail(because reason: String) {
    guard !isStopping else { return }
    isStopping = true
    logger.critical("\(reason)")
    failure(reason)
  }

  // MARK: Time

  static func now() -> Instant {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Instant(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
  }

  private func tick() {
    let now = Self.now()
    lookAtUplinks(now: now)
    // Wherever peers cannot be reached, the other RE may reach them.
    node.uplinkChanged(isRunning: instances.allSatisfy(\.isRunning), now: now)
    watchLinkCarrier(now: now)
    node.tick(now: now)
    inspectSuspects(now: now)
    sweepSockets(now: now)
    expireFragments(now: now)
    beginPendingRecords(now: now)
    beginReplications()
    unsteerWhatIsDue(now: now)
    expireMarks(now: now)
    settle()
  }

  private func watchLinkCarrier(now: Instant) {
    guard linkCarrier?.wasLost() == true else { return }
    link.drop()
    node.linkClosed(.carrierLost, now: now)
  }

  /// More is about to come, mostly: an answer to what was delivered, an acknowledgement of what was sent. To be woken
  /// costs more than to wait for it awake.
  func stayAwake() {
    guard busyPoll.count > 0 else { return }
    let isSpinning = spinsUntil != nil
    spinsUntil = Self.now() + busyPoll
    if !isSpinning { spinOn() }
  }

  /// An event loop that has something to do in a moment does not sleep for long.
  private func spinOn() { eventLoop.executeBehindInput(after: .microseconds(5)) { self.spin() } }

  private func spin() {
    if let until = spinsUntil, Self.now() < until {
      spinOn()
    } else {
      spinsUntil = nil
    }
  }

  // MARK: Actions

  /// Carries out what the protocol has asked for, and whatever that leads to; then writes what is due.
  func settle() {
    drain(.nothing)
    flushSteering()
    flushMirroring()
    flushLink()
    while hasDueRecords {
      readDueRecords()
      writeDueRecords()
      drain(.nothing)
      flushLink()
    }
  }

  func flushLink() {
    linkIsUrgent = false
    link.flush()
  }

  /// What the ranges in actions refer to.
  enum ActionContext {
    case nothing
    /// A packet: the virtio-net header, then the frame.
    case packet(ByteBuffer)
    case link(UnsafeRawBufferPointer)
  }

  func drain(_ context: ActionContext) {
    while !node.actions.isEmpty {
      var batch = takeBatch()
      for action in batch { perform(action, context) }
      giveBack(&batch)
    }
  }

  /// What the protocol has asked for so far; it goes on with an empty array.
  func takeBatch() -> [Action] {
    var batch = spareBatches.popLast() ?? []
    swap(&batch, &node.actions)
    return batch
  }

  func giveBack(_ batch: inout [Action]) {
    batch.removeAll(keepingCapacity: true)
    spareBatches.append(batch)
    batch = []
  }

  func perform(_ action: Action, _ context: ActionContext) {
    switch action {
    case .release(let reference): release(reference)
    case .replay(let reference): replay(reference)
    case .discard(let reference): _ = store.take(reference)
    case .acknowledge(let acknowledgment): send(acknowledgment)
    case .injectLate(let range, let id):
      guard case .link(let bytes) = context else { preconditionFailure("late frames come from the link") }
      inject(UnsafeRawBufferPointer(rebasing: bytes[range]), id)

    case .appendSegment(let record):
      guard case .packet(let buffer) = context else { preconditionFailure("a segment comes from a packet") }
      link.append(record, of: buffer, origin: VirtioNetHeader.byteCount)
    case .appendDatagram(let record):
      guard case .packet(let buffer) = context else { preconditionFailure("a datagram comes from a packet") }
      link.append(record, of: buffer, origin: VirtioNetHeader.byteCount)
    case .appendLateFrame(let header):
      guard case .packet(let buffer) = context else { preconditionFailure("a frame comes from a packet") }
      linkIsUrgent = true
      link.append(header, body: buffer)
    case .send(let record):
      linkIsUrgent = true
      link.append(record)
    case .closeLink(let reason): closeLink(because: reason)
    case .sendOnUplink(let keepalive): sendOnUplinks(keepalive)

    case .snoop(let handle, let stream, let range):
      guard case .link(let bytes) = context else { preconditionFailure("snooped bytes come from the link") }
      snoop(UnsafeRawBufferPointer(rebasing: bytes[range]), handle, stream)
    case .snoopOwned(let handle, let stream, let bytes): bytes.withUnsafeBytes { snoop($0, handle, stream) }
    case .snoopDatagram(let handle, let stream, let remote, let local, let range):
      guard case .link(let bytes) = context else { preconditionFailure("snooped bytes come from the link") }
      snoop(bytes[range], remote: remote, local: local, handle, stream)
    case .snoopOwnedDatagram(let handle, let stream, let datagram):
      snoop(datagram.payload[...], remote: datagram.remote, local: datagram.local, handle, stream)
    case .endSnoop(let handle, let stream): endSnoop(handle, stream)

    case .steer(let handle, let flow): steeringAdditions.append((handle, flow))
    case .unsteer(let flow): unsteer(flow)
    case .mirror(let flow): mirrorAdditions.append(flow)
    case .endMirroring: endMirroring()
    case .replicated(let handle): replicationBegan(handle)
    case .refused(let handle, let reason): replicationRefused(handle, reason)
    case .unreplicated(let handle, let reason): replicationEnded(handle, reason)
    case .peerClosed(let handle): peerClosed(handle)
    case .inspect(let handle): inspect(handle)
    case .silence(let handle): silence(handle)

    case .service(let action): serviceChanged(action)

    case .writeRecords(let handle): if dueRecordWrites.last != handle { dueRecordWrites.append(handle) }
    case .recordsHaveRoom(let handle): dueRecordReads.append(handle)
    case .recordsSafe(let handle, let count): recordsSafe(handle, count)
    case .recordsEnded(let handle, let queue): recordsEnded(handle, queue)

    case .grantLease(let duration, let limit): grantLease(duration, notAfter: limit)
    case .renewLease(let duration): renewLease(duration)
    case .revokeLease: revokeLease()
    case .takeAddresses: takeAddresses()
    case .dropAddresses: dropAddresses()
    case .endConnections: endConnections()
    case .probe: probeAddresses()
    case .phaseChanged(let phase): phaseChanged(phase)
    case .standbyChanged(let isReady):
      publish(isReady ? .secondaryUp : .secondaryDown(reason: "no secondary is in step"))

    case .log(let level, let text):
      switch level {
      case .debug: logger.debug("\(text)")
      case .info: logger.info("\(text)")
      case .warning: logger.warning("\(text)")
      case .error: logger.error("\(text)")
      }
    }
  }
}

extension Nanoseconds {
  /// Below a nanosecond is cut off.
  init(_ duration: Duration) {
    let (seconds, attoseconds) = duration.components
    self.init(seconds * 1_000_000_000 + attoseconds / 1_000_000_000)
  }

  var duration: Duration { .nanoseconds(count) }
}

extension LayerTimeouts {
  init(_ timeouts: Configuration.Timeouts) {
    self.init()
    prl = Nanoseconds(timeouts.prl)
    sdrl = Nanoseconds(timeouts.sdrl)
    psrm = Nanoseconds(timeouts.psrm)
  }
}

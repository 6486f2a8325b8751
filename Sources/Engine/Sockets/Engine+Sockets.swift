import Control
import DequeModule
import Descriptors
import EngineConfiguration
import Glibc
import LinuxNetworking
import Logging
import NIOCore
import Packet
import Replication

/// The engine's duplicate of a replicated socket: it keeps the connection when the application dies.
final class ReplicatedSocket {
  private var owned: OwnedDescriptor?
  /// The number of the duplicate, this socket's unless `closeRequested`.
  let descriptor: Int32
  let transport: TransportProtocol
  /// When the engine gave this one up, because the application had closed its own or is gone: nothing but the
  /// end of the connection is awaited.
  private(set) var closeRequested: Instant?
  /// Where the kernel's counters began, as the handshake found them.
  var origin: TCPSequenceOrigin?

  /// - Throws: that it is no socket that could be replicated.
  init(_ descriptor: consuming OwnedDescriptor) throws(ReplicationRefusal) {
    transport = try InternetSocket.transport(of: descriptor.rawValue)
    self.descriptor = descriptor.rawValue
    owned = consume descriptor
  }

  /// Behind the last byte that was written, a FIN too.
  func writeEnd() throws(SystemError) -> SequenceNumber {
    guard let origin else { throw SystemError("getsockopt(TCP_INFO)", code: ENOTCONN) }
    return try TCPRepair.settledInfo(of: descriptor).sequenceNumbers(from: origin).writeSequence
  }

  /// Gives up the duplicate, which is closed when whoever takes it lets go of it.
  func giveUp(now: Instant) -> OwnedDescriptor? {
    closeRequested = now
    return owned.take()
  }
}

/// A connection that nobody serves any more, while its peer takes leave.
final class AbandonedConnection {
  let ending: OrderlyClose
  let since: Instant

  init(_ descriptor: consuming OwnedDescriptor, now: Instant) {
    ending = OrderlyClose(descriptor)
    since = now
  }
}

/// A handshake that is under way.
final class PendingReplication {
  let socket: ReplicatedSocket
  let flow: Flow
  let reply: ReplyPort
  /// The pair was attached for this one alone.
  let answersRequest: Bool
  /// The application has closed its descriptor meanwhile.
  var isClosed = false

  init(_ socket: ReplicatedSocket, _ flow: Flow, answersRequest: Bool, reply: ReplyPort) {
    self.socket = socket
    self.flow = flow
    self.answersRequest = answersRequest
    self.reply = reply
  }
}

/// A handshake that was asked for while as many as may be were under way.
struct WaitingReplication {
  var socket: ReplicatedSocket
  var primary: Handle
  var secondary: Handle
  /// The pair was attached for this one alone.
  var answersRequest: Bool
  var reply: ReplyPort
}

// The life of a socket between its application, the kernel and the protocol.
extension Engine {
  // MARK: From a live socket to a replicated one

  /// Handshakes under way at once. Hundreds that come together would be read, sent, steered and answered in a few
  /// turns of both event loops, each longer than a lease lasts.
  static let handshakesAtOnce = 32

  func replicate(
    _ descriptor: consuming OwnedDescriptor, _ primary: Handle, _ secondary: Handle, reply: ReplyPort
  ) {
    guard let (socket, reply) = take(descriptor, reply) else { return }
    replicate(socket, primary, secondary, answersRequest: false, reply: reply)
  }

  /// The socket behind a descriptor that an application gave, and the port; refuses what cannot be replicated.
  func take(
    _ descriptor: consuming OwnedDescriptor, _ reply: ReplyPort
  ) -> (socket: ReplicatedSocket, reply: ReplyPort)? {
    do throws(ReplicationRefusal) {
      return (try ReplicatedSocket(descriptor), reply)
    } catch {
      reply.refuse(.unsuitableSocket, "\(error)")
      return nil
    }
  }

  func replicate(
    _ socket: ReplicatedSocket, _ primary: Handle, _ secondary: Handle, answersRequest: Bool, reply: ReplyPort
  ) {
    waitingReplications.append(
      WaitingReplication(
        socket: socket, primary: primary, secondary: secondary, answersRequest: answersRequest, reply: reply))
    beginReplications()
  }

  /// What has lost its primary is made alive again before what has lost its secondary gets another one: an application may
  /// replicate each socket as soon as it is merged, and a peer waits for the last one meanwhile.
  private var mergesGoFirst: Bool {
    guard let becamePrimary, !pairs.isEmpty else { return false }
    return Self.now() - becamePrimary < ReplicationNode.mergePrecedence
  }

  /// Begins handshakes that wait, as many as may be.
  func beginReplications() {
    guard !waitingReplications.isEmpty, !mergesGoFirst else { return }
    while pendingReplications.count < Self.handshakesAtOnce, let next = waitingReplications.popFirst() {
      let hasBegun = begin(next)
      if !hasBegun, next.answersRequest { node.withdrawRequest(next.primary) }
    }
  }

  /// - Returns: whether the handshake has begun.
  private func begin(_ wanted: WaitingReplication) -> Bool {
    guard let (flow, reply) = replicableFlow(of: wanted.socket, wanted.reply) else { return false }
    do throws(SocketError) {
      try node.replicate(wanted.primary, secondary: wanted.secondary, flow: flow)
    } catch {
      reply.refuse(error)
      return false
    }
    pendingReplications[wanted.primary] = PendingReplication(
      wanted.socket, flow, answersRequest: wanted.answersRequest, reply: reply)
    return true
  }

  /// The flow of a socket that can be replicated, and the port; refuses what cannot.
  func replicableFlow(of socket: ReplicatedSocket, _ reply: ReplyPort) -> (Flow, ReplyPort)? {
    var flow: Flow
    let instance: RoutingInstance
    do throws(ReplicationRefusal) {
      instance = try self.instance(ofSocket: socket.descriptor)
      switch socket.transport {
      case .tcp: flow = try connection(of: socket.descriptor)
      case .udp:
        let ends = try UDPSocket.ends(of: socket.descriptor)
        flow = ends.remote.map { Flow(.udp, local: ends.local, remote: $0) } ?? Flow(unconnected: ends.local)
      }
      flow.instance = instance.id
    } catch {
      reply.refuse(.unsuitableSocket, "\(error)")
      return nil
    }
    guard instance.has(flow.local.address) else {
      reply.refuse(
        .unsuitableSocket,
        "the socket's local address \(flow.local.address) is not a replicated one\(instance.mention)")
      return nil
    }
    guard !flow.remote.address.isLinkLocal else {
      reply.refuse(
        .unsuitableSocket,
        "the peer's address \(flow.remote.address) is valid on one link only; connect it with a global one")
      return nil
    }
    // One that has to do with link-local addresses always is.
    if let name = instance.foreignInterface(of: socket.descriptor) {
      reply.refuse(.unsuitableSocket, "\(ReplicationRefusal.boundToInterface(name))")
      return nil
    }
    guard !lastRecords.contains(where: { $0.flow == flow }) else {
      reply.refuse(
        .wrongState,
        "\(flow) has records from before that are still to be written: wait for the end of their channel")
      return nil
    }
    return (flow, reply)
  }

  private func connection(of descriptor: Int32) throws(ReplicationRefusal) -> Flow {
    try TCPRepair.validate(descriptor)
    do throws(SystemError) {
      let ends = try TCPRepair.ends(of: descriptor)
      return Flow(.tcp, local: ends.local, remote: ends.remote)
    } catch {
      throw .system(error)
    }
  }

  private func instance(ofSocket socket: Int32) throws(ReplicationRefusal) -> RoutingInstance {
    let namespace: NetworkNamespaceCookie
    let device: Int32
    do throws(SystemError) {
      namespace = try NetworkNamespaceCookie(of: socket)
      device = try VRF.device(of: socket)
    } catch { throw .system(error) }
    guard let instance = instances.first(where: { $0.has(socketIn: namespace, boundTo: device) }) else {
      throw .otherNamespace
    }
    return instance
  }

  /// Puts the flows that have been collected into the packet filter, in one transaction, and goes on with
  /// the sockets that waited for it.
  func flushSteering() {
    guard !steeringAdditions.isEmpty else { return }
    let additions = steeringAdditions
    steeringAdditions.removeAll(keepingCapacity: true)
    for (_, flow) in additions {
      steeringRemovals.cancel(flow)
      pendingMirrors.remove(flow)
    }
    var failed: Set<Handle> = []
    for (id, additions) in Dictionary(grouping: additions, by: \.flow.instance) {
      guard let instance = instance(id) else {
        // The other RE has an instance that this one has not.
        for (handle, _) in additions {
          logger.warning("socket \(handle) is of a routing instance that is not configured here")
          node.snoopFailed(handle, because: .unknownInstance)
          failed.insert(handle)
        }
        continue
      }
      do throws(PacketFilterError) {
        try instance.filter.steer(adding: additions.map(\.flow))
      } catch {
        logger.error("steering of \(additions.count) flows\(instance.mention) failed: \(error)")
        for (handle, _) in additions {
          node.snapshotFailed(handle)
          node.snoopFailed(handle, because: .limitReached)
          failed.insert(handle)
        }
      }
    }
    if !failed.isEmpty { drain(.nothing) }
    for (handle, flow) in additions where !failed.contains(handle) {
      if pendingReplications[handle] == nil {
        node.steered(handle)
        drain(.nothing)
      } else if flow.transport == .udp {
        eventLoop.scheduleTask(in: Self.datagramSettlingTime) { self.takeSnapshotOfDatagrams(handle) }
      } else {
        dueSnapshots.append(handle)
      }
    }
    if !snapshotsGoOn { takeSnapshots() }
  }

  /// Bytes of sockets' queues that are read in one turn of the event loop: keepalives and the lease must not
  /// wait for the megabytes that many sockets at once may hold.
  static let snapshotTurn = 1 << 20
  static let snapshotPause = TimeAmount.milliseconds(1)

  /// Reads sockets that are to be replicated, in turns, so that everything else has its turn in between.
  private func takeSnapshots() {
    snapshotsGoOn = false
    var byteCount = 0
    while byteCount < Self.snapshotTurn, let handle = dueSnapshots.popFirst() {
      guard let pending = pendingReplications[handle] else { continue }
      byteCount += takeSnapshot(handle, pending)
      drain(.nothing)
    }
    guard !dueSnapshots.isEmpty else { return }
    snapshotsGoOn = true
    eventLoop.scheduleTask(in: Self.snapshotPause) {
      self.takeSnapshots()
      self.settle()
    }
  }

  func unsteer(_ flow: Flow) {
    steeringAdditions.removeAll { $0.flow == flow }
    signedFlows[flow] = nil
    steeringRemovals.add(flow, now: Self.now())
  }

  func unsteerWhatIsDue(now: Instant) {
    let flows = steeringRemovals.takeDue(now: now)
    guard !flows.isEmpty else { return }
    for (id, flows) in Dictionary(grouping: flows, by: \.instance) {
      guard let instance = instance(id) else { continue }
      let mirrored = flows.filter(instance.filter.isMirrored)
      do throws(PacketFilterError) {
        try instance.filter.steer(removing: flows)
        if !mirrored.isEmpty { mark(.mirroringEnded(mirrored), in: instance) }
      } catch {
        logger.error("\(flows.count) flows\(instance.mention) are still steered: \(error)")
      }
    }
  }

  /// How long a datagram that was past the hook when its flow was steered may take to its socket: no number would tell
  /// later that it was overlooked.
  static let datagramSettlingTime = TimeAmount.milliseconds(2)

  private func takeSnapshotOfDatagrams(_ handle: Handle) {
    guard let pending = pendingReplications[handle] else { return }
    let descriptor = pending.socket.descriptor
    do {
      let ends = try UDPSocket.ends(of: descriptor)
      // The secondary has the same limit, and each has a header there.
      let limit = configuration.limits.snoopBuffer / 2
      if let unread = try UDPSocket.unread(of: descriptor, limit: limit) {
        let options = SocketOptions(of: descriptor, family: ends.local.address.family)
        let queue = unread.map { Datagram(remote: $0.source, local: ends.local, payload: $0.payload) }
        node.datagramSnapshotTaken(
          handle,
          DatagramSnapshot(receiveQueue: queue, options: options.encoded(isIPv6Socket: ends.isIPv6Socket)),
          now: Self.now())
      } else {
        logger.info("socket \(handle) is not replicated: it has more than \(limit) bytes unread")
        node.snapshotFailed(handle, because: .snoopBufferFull)
      }
    } catch {
      logger.warning("socket \(handle) cannot be read: \(error)")
      node.snapshotFailed(handle)
    }
    settle()
  }

  /// - Returns: how many bytes were in the queues.
  private func takeSnapshot(_ handle: Handle, _ pending: PendingReplication) -> Int {
    let socket = pending.socket
    guard mayBeRead(handle, socket) else {
      node.snapshotFailed(handle, because: .snoopBufferFull)
      return 0
    }
    do throws(TCPRepairError) {
      var snapshot = try TCPRepair.snapshot(of: socket.descriptor)
      snapshot.options[.isSigned] = noteSigningKey(of: pending.flow).map { $0 ? 1 : 0 }
      socket.origin = try? TCPRepair.settledInfo(of: socket.descriptor).origin(of: snapshot)
      node.snapshotTaken(handle, SocketSnapshot(snapshot), now: Self.now())
      return snapshot.sendQueue.count + snapshot.receiveQueue.count
    } catch {
      logger.warning("socket \(handle) cannot be read: \(error)")
      node.snapshotFailed(handle)
      return 0
    }
  }

  /// Whether a snoop pair could hold what is in the queues of a socket.
  ///
  /// A receive queue may hold `net.ipv4.tcp_rmem[2]` bytes, up to 32 MiB by default on Linux 6.18 (tcp_init). Read and sent in one
  /// piece, that much would keep both engines from renewing leases and from hearing each other, only to be refused
  /// in the end: the secondary has the same limit.
  private func mayBeRead(_ handle: Handle, _ socket: ReplicatedSocket) -> Bool {
    // What the kernel will not say now, it will not say to the snapshot either, which tells why.
    guard let info = try? TCPRepair.info(of: socket.descriptor) else { return true }
    let limit = configuration.limits.snoopBuffer
    guard max(info.unread, info.unacknowledged) > limit else { return true }
    logger.info(
      "socket \(handle) is not replicated: \(info.unread) bytes unread, \(info.unacknowledged) unacknowledged, more than limits.snoop-buffer (\(limit))"
    )
    return false
  }

  func replicationBegan(_ handle: Handle) {
    publish(.replicated(handle), to: owners[handle])
    guard let pending = pendingReplications.removeValue(forKey: handle) else { return }
    sockets[handle] = pending.socket
    pending.reply.send(.done)
    if pending.isClosed { closeDuplicate(handle, .byApplication) }
    if owners[handle] == nil { attendOrphans() }
    beginReplications()
  }

  func replicationRefused(_ handle: Handle, _ reason: UnreplicateReason) {
    guard let pending = pendingReplications.removeValue(forKey: handle) else { return }
    let code: RefusalCode =
      switch reason {
      case .prlTimeout, .sdrlTimeout, .psrmTimeout: .timeout
      case .linkLost: .noSecondary
      case .mastershipLost: .notPrimary
      default: .wrongState
      }
    pending.reply.refuse(code, "replication refused: \(reason)")
    if pending.answersRequest { node.withdrawRequest(handle) }
    if owners[handle] == nil { try? node.free(handle) }
    beginReplications()
  }

  // MARK: Ends

  func replicationEnded(_ handle: Handle, _ reason: UnreplicateReason) {
    // A handshake whose answer will never be known.
    replicationRefused(handle, reason)
    logger.info("socket \(handle) unreplicated: \(reason)")
    let isPair = pairs[handle] != nil
    retirePair(handle)
    publish(.unreplicated(handle, reason: "\(reason)"), to: owners[handle])
    // A handle whose socket goes on is the application's to free; of the others nothing is left to name.
    let last = lastRecords.first { $0.handle == handle }
    let closing = sockets[handle]?.closeRequested != nil || last?.closing != nil
    // The socket goes on as an ordinary one of its application; what the engine kept it for is over. If the
    // application is gone, nobody can go on with it: mastership is elsewhere, or cannot be moved.
    if owners[handle] == nil, reason != .mastershipLost {
      if let last { last.closing = last.closing ?? .abandoned } else { closeDuplicate(handle, .abandoned) }
    }
    sockets[handle] = nil
    if isPair || closing || reason == .mastershipLost || owners[handle] == nil {
      owners[handle] = nil
      try? node.free(handle)
    }
  }

  func peerClosed(_ handle: Handle) {
    publish(.peerClosed(handle), to: owners[handle])
    // Nobody is left who could close this direction, unless it is about to be served by the other RE.
    if owners[handle] == nil, node.arbiter.phase == .primary { closeDuplicate(handle, .abandoned) }
  }

  // MARK: Resets

  /// How often it is looked, at ticks, whether a reset has ended a connection. The reset that gives the reason is
  /// on its way to the kernel yet, which may besides be busy with the socket.
  static let inspections = 3

  /// A reset went by: the kernel may have ended the connection.
  func inspect(_ handle: Handle) { suspects[handle] = Self.inspections }

  func inspectSuspects(now: Instant) {
    guard !suspects.isEmpty else { return }
    for (handle, left) in suspects {
      suspects[handle] = left > 1 ? left - 1 : nil
      guard let socket = sockets[handle], isEnded(socket, handle) else { continue }
      suspects[handle] = nil
      try? node.unreplicate(handle, because: .reset, now: now)
    }
  }

  private func isEnded(_ socket: ReplicatedSocket, _ handle: Handle) -> Bool {
    if socket.closeRequested == nil { return isClosed(socket.descriptor) }
    guard let flow = try? node.socket(handle).flow else { return false }
    do throws(SystemError) {
      guard let instance = instance(of: flow) else { return true }
      return try !instance.hasConnection(flow)
    } catch {
      logger.error("socket \(handle): whether the kernel still has it is not known: \(error)")
      return false
    }
  }

  /// Whether the kernel has ended the connection.
  func isClosed(_ descriptor: Int32) -> Bool {
    (try? TCPRepair.info(of: descriptor))?.state == Self.stateClosed
  }

  /// TCP_CLOSE (include/net/tcp_states.h).
  private static let stateClosed: UInt8 = 7

  func silence(_ handle: Handle) {
    let socket = sockets[handle] ?? pendingReplications[handle]?.socket
    guard let socket, socket.closeRequested == nil else { return }
    do throws(SystemError) {
      switch socket.transport {
      case .tcp: try TCPRepair.disconnectSilently(socket.descriptor)
      case .udp: try UDPSocket.silence(socket.descriptor)
      }
    } catch {
      logger.error("socket \(handle) cannot be silenced: \(error)")
    }
  }

  /// The application has closed its descriptor: the kernel sends FIN when the engine's duplicate goes too.
  func close(_ handle: Handle, reply: ReplyPort) {
    let view: ReplicationNode.SocketView
    do throws(HandleError) {
      view = try node.socket(handle)
    } catch {
      // A merged socket has no handle any more; closing it is the application's own affair.
      if case .stale = error { return reply.send(.done) }
      return reply.refuse(SocketError.handle(error))
    }
    switch view.phase {
    case .replicating, .ending, .starting: closeDuplicate(handle, .byApplication)
    case .receiving, .snooping, .attached:
      try? node.unreplicate(handle, because: .applicationGone, now: Self.now())
      drain(.nothing)
      dropHandle(handle)
    case .allocated, .unreplicated: dropHandle(handle)
    case .merging: break
    }
    reply.send(.done)
  }

  /// Why the engine's duplicate of a socket goes.
  enum Closing {
    /// Its application has closed it. What that means for bytes that were not read is for the application to know.
    case byApplication
    /// Its application is gone, and nobody else serves it: the peer is to see an end in order.
    case abandoned
  }

  /// The engine's duplicate of a socket that is still connected goes, when its records are written.
  func closeDuplicate(_ handle: Handle, _ closing: Closing) {
    if let pending = pendingReplications[handle] {
      // Not before it is known what becomes of the handshake.
      pending.isClosed = true
      owners[handle] = nil
    }
    guard let socket = sockets[handle], socket.closeRequested == nil, !closesAfterRecords(handle, closing)
    else {
      return
    }
    giveUp(socket, of: handle, closing)
  }

  /// The one place where a duplicate goes, and a FIN with it.
  func giveUp(_ socket: ReplicatedSocket, of handle: Handle, _ closing: Closing) {
    let now = Self.now()
    if socket.transport == .udp {
      // Nobody is told of the end of a UDP socket.
      _ = socket.giveUp(now: now)
      try? node.unreplicate(handle, because: .closed, now: now)
      return
    }
    guard let descriptor = socket.giveUp(now: now), closing == .abandoned else {
      // There may be nothing left to say good-bye to: the peer had reset the connection, or this has done it.
      return inspect(handle)
    }
    let connection = AbandonedConnection(descriptor, now: now)
    if connection.ending.discardInput() { return }
    do throws(SystemError) {
      abandoned[try monitor.add(connection.ending.descriptor, .read)] = connection
    } catch {
      logger.error("socket \(handle) is closed at once, since it cannot be watched: \(error)")
    }
  }

  /// The peer of a connection that nobody serves has sent something, or ended its direction.
  func drainAbandoned(_ token: ReadinessMonitor.Token, _ connection: AbandonedConnection) {
    if connection.ending.discardInput() { return forgetAbandoned(token) }
    do throws(SystemError) {
      try monitor.rearm(token, .read)
    } catch {
      logger.error("a connection without an application is closed at once: \(error)")
      forgetAbandoned(token)
    }
  }

  private func forgetAbandoned(_ token: ReadinessMonitor.Token) {
    monitor.remove(token)
    abandoned[token] = nil
  }

  private func dropHandle(_ handle: Handle) {
    sockets[handle] = nil
    owners[handle] = nil
    forgetPair(handle)
    try? node.free(handle)
  }

  /// How long a socket that its application has closed may take to say good-bye to its peer; the kernel
  /// itself waits this long in FIN-WAIT-2 (tcp_fin_timeout).
  static let closeTimeout = Nanoseconds.seconds(60)

  func sweepSockets(now: Instant) {
    guard now - lastSweep >= .seconds(1) else { return }
    lastSweep = now
    for (handle, socket) in sockets {
      if let since = socket.closeRequested, now - since >= Self.closeTimeout {
        _ = socket.giveUp(now: now)
        try? node.unreplicate(handle, because: .closed, now: now)
      }
    }
    for (token, connection) in abandoned where now - connection.since >= Self.closeTimeout {
      forgetAbandoned(token)
    }
    attendOrphans()
  }

  // MARK: Applications

  public func clientGone(_ client: ClientID) {
    for (handle, owner) in owners where owner == client {
      owners[handle] = nil
      guard let phase = try? node.socket(handle).phase else {
        forgetPair(handle)
        continue
      }
      switch phase {
      case .allocated, .attached, .unreplicated: dropHandle(handle)
      case .receiving, .snooping:
        node.snoopFailed(handle, because: .applicationGone)
        drain(.nothing)
        dropHandle(handle)
      // Its connections live on in the engine's duplicates.
      case .starting, .replicating, .ending: takeLastRecords(handle)
      case .merging: break
      }
    }
    unregisterServices(of: client)
    attendOrphans()
    settle()
  }

  /// Replicated connections whose application is gone: does with them what the configuration says.
  ///
  /// Where they are to move and no secondary stands by, they are left alone: one may come. With their replication
  /// their time is over too (`replicationEnded`).
  private func attendOrphans() {
    let orphans = sockets.filter {
      owners[$0.key] == nil && $0.value.closeRequested == nil && recordChannels[$0.key]?.closing == nil
    }.keys
    guard !orphans.isEmpty, node.arbiter.phase == .primary else { return }
    switch configuration.onApplicationFailure {
    case .close:
      logger.warning("an application is gone: \(orphans.count) replicated sockets of it are closed")
      for handle in orphans { closeDuplicate(handle, .abandoned) }
    case .switchover:
      guard node.arbiter.standbyIsReady else { return }
      do throws(PairArbiter.RequestError) {
        try node.releaseMastership(now: Self.now())
        logger.warning(
          "an application is gone: mastership is handed over with \(orphans.count) replicated sockets of it")
      } catch {
        logger.debug("mastership cannot be handed over yet: \(error)")
      }
    }
  }

  // MARK: Merge

  func merge(_ handle: Handle, signingKey: [UInt8]?, reply: ReplyPort) {
    let begun = Self.now()
    defer { counters.mergeNanoseconds += UInt64(clamping: (Self.now() - begun).count) }
    // What is not a snoop pair is refused below.
    if let encoded = try? node.options(of: handle), let options = try? SocketOptions(encoded),
      let complaint = complaint(about: signingKey, of: handle, options)
    {
      return reply.refuse(complaint.code, complaint.text)
    }
    let plan: MergePlan
    do throws(SocketError) {
      plan = try node.merge(handle, now: Self.now())
    } catch {
      return reply.refuse(error)
    }
    let unread = pairs[handle]?.rcv.takeBack() ?? []
    retirePair(handle)
    do throws(MergeError) {
      let descriptor = try makeSocket(plan, unread: unread, signingKey: signingKey)
      node.merged(handle, succeeded: true)
      owners[handle] = nil
      var parcel = DescriptorParcel()
      parcel.append(descriptor)
      reply.send(.done, descriptors: parcel)
    } catch {
      logger.error("socket \(handle) cannot be merged: \(error)")
      node.merged(handle, succeeded: false)
      owners[handle] = nil
      reply.refuse(.system, "\(error)")
    }
  }

  private func makeSocket(
    _ plan: MergePlan, unread: [[UInt8]], signingKey: [UInt8]?
  ) throws(MergeError) -> OwnedDescriptor {
    let flow =
      switch plan {
      case .stream(let plan): plan.flow
      case .datagrams(let plan): plan.flow
      }
    guard let instance = instance(of: flow) else { throw .system(SystemError("socket", code: ENODEV)) }
    return try instance.inside { () throws(MergeError) in
      switch plan {
      case .stream(let plan):
        try makeSocket(plan, unread: Array(unread.joined()), signingKey: signingKey, in: instance)
      case .datagrams(let plan): try makeSocket(plan, unread: unread, in: instance)
      }
    }
  }

  /// - Parameter unread: messages of the snoop descriptor. They are put into the queue of the new socket as the frames
  ///   that they may have been.
  private func makeSocket(
    _ plan: DatagramMergePlan, unread: [[UInt8]], in instance: RoutingInstance
  ) throws(MergeError) -> OwnedDescriptor {
    let options: SocketOptions
    do throws(SnapshotDecodingError) {
      options = try SocketOptions(plan.options)
    } catch { throw .options(error) }
    let ends = UDPSocket.Ends(
      local: plan.flow.local, remote: plan.flow.isUnconnected ? nil : plan.flow.remote,
      isIPv6Socket: plan.options.first == 1)
    let descriptor: OwnedDescriptor
    do throws(SystemError) {
      descriptor = try UDPSocket.restore(ends, in: instance.vrf, options: options) { [logger] error in
        logger.warning("a socket option is not restored: \(error)")
      }
    } catch { throw .system(error) }
    for message in unread {
      guard let datagram = message.withUnsafeBytes({ SnoopedDatagram(message: $0) }) else { continue }
      let uplink = instance.defaultUplink
      let builder = UDPFrameBuilder(
        sourceMAC: .zero, destinationMAC: uplink.hardwareAddress, source: datagram.source,
        destination: datagram.destination)
      let frame = datagram.payload.withUnsafeBytes { builder.frame(payload: $0) }
      let bytes = [UInt8](repeating: 0, count: VirtioNetHeader.byteCount) + frame
      let error = bytes.withUnsafeBytes { uplink.deliver($0) }
      if error != 0 {
        logger.error("a datagram of \(plan.flow) cannot be delivered: \(SystemError("write", code: error))")
      }
    }
    return descriptor
  }

  private func makeSocket(
    _ plan: StreamMergePlan, unread: [UInt8], signingKey: [UInt8]?, in instance: RoutingInstance
  ) throws(MergeError) -> OwnedDescriptor {
    let snapshot = try TCPSnapshot(plan, receiveQueue: unread)
    let begun = Self.now()
    let descriptor: OwnedDescriptor
    do throws(TCPRepairError) {
      descriptor = try TCPRepair.restore(
        snapshot, in: instance.vrf, signingKey: signingKey, defaults: instance.socketDefaults
      ) { [logger] error in
        logger.warning("a socket option is not restored: \(error)")
      }
    } catch { throw .repair(error) }
    do throws(SystemError) {
      try TCPRepair.activate(descriptor.rawValue, snapshot)
      counters.restoreNanoseconds += UInt64(clamping: (Self.now() - begun).count)
      if plan.finSent { _ = shutdown(descriptor.rawValue, Int32(SHUT_WR)) }
      let timestamp = plan.block.negotiated.timestamps ? try TCPRepair.timestamp(of: descriptor.rawValue) : 0
      if plan.finReceived { deliverFIN(plan, timestamp: timestamp, signingKey: signingKey, in: instance) }
      resend(plan, timestamp: timestamp, signingKey: signingKey, in: instance)
    } catch { throw .system(error) }
    return descriptor
  }

  /// The peer's FIN is no part of what a restored socket knows; it gets it as the segment that it was.
  private func deliverFIN(
    _ plan: StreamMergePlan, timestamp: UInt32, signingKey: [UInt8]?, in instance: RoutingInstance
  ) {
    let block = plan.block
    let uplink = instance.defaultUplink
    let builder = TCPFrameBuilder(
      sourceMAC: .zero, destinationMAC: uplink.hardwareAddress, source: plan.flow.remote,
      destination: plan.flow.local, signingKey: signingKey)
    let scaled = block.sendWindow >> UInt32(block.negotiated.sendWindowScale ?? 0)
    let frame = builder.frame(
      sequence: plan.receiveNext, acknowledgment: plan.sendUnacknowledged, flags: [.fin, .ack],
      window: UInt16(clamping: scaled),
      timestamps: block.negotiated.timestamps
        ? TCPTimestamps(value: block.timestampRecent, echo: timestamp) : nil,
      payload: UnsafeRawBufferPointer(start: nil, count: 0))
    let bytes = [UInt8](repeating: 0, count: VirtioNetHeader.byteCount) + frame
    let error = bytes.withUnsafeBytes { uplink.deliver($0) }
    if error != 0 {
      logger.error("FIN of \(plan.flow) cannot be delivered: \(SystemError("write", code: error))")
    }
  }

  /// Puts unacknowledged bytes on the wire at once: the kernel alone would wait for its initial
  /// retransmission timeout. A segment without data, where there are none, tells the peer where we stand.
  private func resend(
    _ plan: StreamMergePlan, timestamp: UInt32, signingKey: [UInt8]?, in instance: RoutingInstance
  ) {
    let block = plan.block
    let finCount: UInt32 = plan.finReceived ? 1 : 0
    let window = (plan.receiveWindow - finCount) >> UInt32(block.negotiated.receiveWindowScale ?? 0)
    let acknowledgment = plan.receiveNext + Int(finCount)
    let builder = TCPFrameBuilder(
      sourceMAC: .zero, destinationMAC: .zero, source: plan.flow.local, destination: plan.flow.remote,
      signingKey: signingKey)
    let timestamps =
      block.negotiated.timestamps ? TCPTimestamps(value: timestamp, echo: block.timestampRecent) : nil
    func send(_ sequence: SequenceNumber, _ flags: TCPFlags, _ payload: UnsafeRawBufferPointer) {
      let frame = builder.frame(
        sequence: sequence, acknowledgment: acknowledgment, flags: flags, window: UInt16(clamping: window),
        timestamps: timestamps, payload: payload)
      counters.segmentsResent += 1
      sendBuilt(frame, along: plan.flow)
    }

    let step = segmentSize(plan, isSigned: signingKey != nil, in: instance)
    // What was certainly not sent is the kernel's to send, as the peer's window allows.
    let count = plan.sentCount
    plan.sendQueue.withUnsafeBytes { queue in
      for start in stride(from: 0, to: count, by: step) {
        let piece = UnsafeRawBufferPointer(rebasing: queue[start..<min(start + step, count)])
        send(plan.sendUnacknowledged + start, [.ack, .psh], piece)
      }
      if count == 0 { send(plan.sendUnacknowledged, .ack, UnsafeRawBufferPointer(start: nil, count: 0)) }
    }
  }

  /// Bytes of payload in a full segment: what the peer takes, and what every uplink carries.
  private func segmentSize(_ plan: StreamMergePlan, isSigned: Bool, in instance: RoutingInstance) -> Int {
    let ipHeader = plan.flow.local.address.family == .v4 ? 20 : 40
    let options =
      (plan.block.negotiated.timestamps ? 12 : 0) + (isSigned ? TCPSignature.optionByteCount : 0)
    let limit = min(
      Int(plan.block.negotiated.maximumSegmentSize),
      instance.mtu - ipHeader - TCPSegment.minimumHeaderByteCount)
    return max(limit - options, 88)
  }
}

/// Why a snoop pair did not become a socket.
enum MergeError: Error, CustomStringConvertible {
  case options(SnapshotDecodingError)
  case repair(TCPRepairError)
  case system(SystemError)

  var description: String {
    switch self {
    case .options(let error): "socket options: \(error)"
    case .repair(let error): "\(error)"
    case .system(let error): "\(error)"
    }
  }
}

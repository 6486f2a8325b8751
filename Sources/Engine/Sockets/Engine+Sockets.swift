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
  /// The number of the duplicate, open unless `closeRequested`.
  let descriptor: Int32
  /// When the application closed its descriptor, and this one was closed too: nothing but the end of the
  /// connection is awaited.
  private(set) var closeRequested: Instant?
  /// Where the kernel's counters began, as the handshake found them.
  var origin: TCPSequenceOrigin?

  init(_ descriptor: consuming OwnedDescriptor) {
    self.descriptor = descriptor.rawValue
    owned = consume descriptor
  }

  /// Behind the last byte that was written, a FIN too.
  func writeEnd() throws(SystemError) -> SequenceNumber {
    guard let origin else { throw SystemError("getsockopt(TCP_INFO)", code: ENOTCONN) }
    return try TCPRepair.settledInfo(of: descriptor).sequenceNumbers(from: origin).writeSequence
  }

  func close(now: Instant) {
    closeRequested = now
    owned = nil
  }
}

/// A handshake that is under way.
final class PendingReplication {
  let socket: ReplicatedSocket
  let reply: ReplyPort
  /// The application has closed its descriptor meanwhile.
  var isClosed = false

  init(_ socket: ReplicatedSocket, reply: ReplyPort) {
    self.socket = socket
    self.reply = reply
  }
}

// The life of a socket between its application, the kernel and the protocol.
extension Engine {
  // MARK: From a live socket to a replicated one

  func replicate(
    _ descriptor: consuming OwnedDescriptor, _ primary: Handle, _ secondary: Handle, reply: ReplyPort
  ) {
    let snapshot: TCPSnapshot
    do throws(ReplicationRefusal) {
      try TCPRepair.validate(descriptor.rawValue)
    } catch {
      return reply.refuse(.unsuitableSocket, "\(error)")
    }
    do throws(TCPRepairError) {
      snapshot = try TCPRepair.snapshot(of: descriptor.rawValue, includingQueues: false)
    } catch {
      return reply.refuse(.unsuitableSocket, "\(error)")
    }
    guard configuration.addresses.contains(where: { $0.address == snapshot.local.address }) else {
      return reply.refuse(
        .unsuitableSocket, "the socket's local address \(snapshot.local.address) is not a replicated one")
    }
    let flow = Flow(.tcp, local: snapshot.local, remote: snapshot.remote)
    guard !lastRecords.contains(where: { $0.flow == flow }) else {
      return reply.refuse(
        .wrongState,
        "\(flow) has records from before that are still to be written: wait for the end of their channel")
    }
    let socket = ReplicatedSocket(descriptor)
    do throws(SocketError) {
      try node.replicate(
        primary, secondary: secondary, flow: flow)
    } catch {
      return reply.refuse(error)
    }
    pendingReplications[primary] = PendingReplication(socket, reply: reply)
  }

  /// Puts the flows that have been collected into the packet filter, in one transaction, and goes on with
  /// the sockets that waited for it.
  func flushSteering() {
    guard !steeringAdditions.isEmpty else { return }
    let additions = steeringAdditions
    steeringAdditions.removeAll(keepingCapacity: true)
    for (_, flow) in additions { steeringRemovals.cancel(flow) }
    do throws(PacketFilterError) {
      try filter.steer(adding: additions.map(\.flow))
    } catch {
      logger.error("steering of \(additions.count) flows failed: \(error)")
      for (handle, _) in additions {
        node.snapshotFailed(handle)
        node.snoopFailed(handle, because: .limitReached)
      }
      return drain(.nothing)
    }
    for (handle, _) in additions {
      if pendingReplications[handle] != nil {
        dueSnapshots.append(handle)
      } else {
        node.steered(handle)
        drain(.nothing)
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
    steeringRemovals.add(flow, now: Self.now())
  }

  func unsteerWhatIsDue(now: Instant) {
    let flows = steeringRemovals.takeDue(now: now)
    guard !flows.isEmpty else { return }
    do throws(PacketFilterError) {
      try filter.steer(removing: flows)
    } catch {
      logger.error("\(flows.count) flows are still steered: \(error)")
    }
  }

  /// - Returns: how many bytes were in the queues.
  private func takeSnapshot(_ handle: Handle, _ pending: PendingReplication) -> Int {
    let socket = pending.socket
    do throws(TCPRepairError) {
      let snapshot = try TCPRepair.snapshot(of: socket.descriptor)
      socket.origin = try? TCPRepair.settledInfo(of: socket.descriptor).origin(of: snapshot)
      node.snapshotTaken(handle, SocketSnapshot(snapshot), now: Self.now())
      return snapshot.sendQueue.count + snapshot.receiveQueue.count
    } catch {
      logger.warning("socket \(handle) cannot be read: \(error)")
      node.snapshotFailed(handle)
      return 0
    }
  }

  func replicationBegan(_ handle: Handle) {
    publish(.replicated(handle), to: owners[handle])
    guard let pending = pendingReplications.removeValue(forKey: handle) else { return }
    sockets[handle] = pending.socket
    pending.reply.send(.done)
    if pending.isClosed { closeDuplicate(handle) }
  }

  func replicationRefused(_ handle: Handle, _ reason: UnreplicateReason) {
    guard let pending = pendingReplications.removeValue(forKey: handle) else { return }
    pending.reply.refuse(.wrongState, "replication refused: \(reason)")
    if owners[handle] == nil { try? node.free(handle) }
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
    let closing =
      sockets[handle]?.closeRequested != nil
      || lastRecords.contains { $0.handle == handle && $0.closesWhenDone }
    // The socket goes on as an ordinary one of its application; what the engine kept it for is over.
    sockets[handle] = nil
    if isPair || closing || reason == .mastershipLost || owners[handle] == nil {
      owners[handle] = nil
      try? node.free(handle)
    }
  }

  func peerClosed(_ handle: Handle) {
    publish(.peerClosed(handle), to: owners[handle])
    // Nobody is left who could close this direction.
    if owners[handle] == nil, sockets[handle]?.closeRequested == nil { closeDuplicate(handle) }
  }

  /// The kernel may have ended the connection.
  func inspect(_ handle: Handle) {
    guard let socket = sockets[handle], socket.closeRequested == nil,
      isClosed(socket.descriptor)
    else { return }
    try? node.unreplicate(handle, because: .reset, now: Self.now())
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
      try TCPRepair.disconnectSilently(socket.descriptor)
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
    case .replicating, .ending, .starting: closeDuplicate(handle)
    case .receiving, .snooping, .attached:
      try? node.unreplicate(handle, because: .applicationGone, now: Self.now())
      drain(.nothing)
      dropHandle(handle)
    case .allocated, .unreplicated: dropHandle(handle)
    case .merging: break
    }
    reply.send(.done)
  }

  func closeDuplicate(_ handle: Handle) {
    if let pending = pendingReplications[handle] {
      // Not before it is known what becomes of the handshake.
      pending.isClosed = true
      owners[handle] = nil
    }
    guard let socket = sockets[handle], socket.closeRequested == nil, !closesAfterRecords(handle) else {
      return
    }
    socket.close(now: Self.now())
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
        socket.close(now: now)
        try? node.unreplicate(handle, because: .closed, now: now)
      }
    }
  }

  // MARK: Applications

  public func clientGone(_ client: ClientID) {
    var needsHelp = false
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
      case .starting, .replicating, .ending:
        takeLastRecords(handle)
        if let socket = sockets[handle], socket.closeRequested == nil { needsHelp = true }
      case .merging: break
      }
    }
    // Its connections live on in the engine's duplicates, but nobody serves them here.
    if needsHelp, node.arbiter.standbyIsReady {
      logger.warning("an application with replicated sockets is gone: handing mastership over")
      try? node.releaseMastership(now: Self.now())
    }
    settle()
  }

  // MARK: Merge

  func merge(_ handle: Handle, reply: ReplyPort) {
    let plan: MergePlan
    do throws(SocketError) {
      plan = try node.merge(handle, now: Self.now())
    } catch {
      return reply.refuse(error)
    }
    let unread = pairs[handle]?.rcv.takeBack() ?? []
    retirePair(handle)
    do throws(MergeError) {
      let descriptor = try makeSocket(plan, unread: unread)
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

  private func makeSocket(_ plan: MergePlan, unread: [UInt8]) throws(MergeError) -> OwnedDescriptor {
    let snapshot = try TCPSnapshot(plan, receiveQueue: unread)
    let descriptor: OwnedDescriptor
    do throws(TCPRepairError) {
      descriptor = try TCPRepair.restore(snapshot) { [logger] error in
        logger.warning("a socket option is not restored: \(error)")
      }
    } catch { throw .repair(error) }
    do throws(SystemError) {
      try TCPRepair.activate(descriptor.rawValue, snapshot)
      if plan.finSent { _ = shutdown(descriptor.rawValue, Int32(SHUT_WR)) }
      let timestamp = plan.block.negotiated.timestamps ? try TCPRepair.timestamp(of: descriptor.rawValue) : 0
      if plan.finReceived { deliverFIN(plan, timestamp: timestamp) }
      resend(plan, timestamp: timestamp)
    } catch { throw .system(error) }
    return descriptor
  }

  /// The peer's FIN is no part of what a restored socket knows; it gets it as the segment that it was.
  private func deliverFIN(_ plan: MergePlan, timestamp: UInt32) {
    let block = plan.block
    let builder = TCPFrameBuilder(
      sourceMAC: .zero, destinationMAC: uplink.hardwareAddress, source: plan.flow.remote,
      destination: plan.flow.local)
    let scaled = block.sendWindow >> UInt32(block.negotiated.sendWindowScale ?? 0)
    let frame = builder.frame(
      sequence: plan.receiveNext, acknowledgment: plan.sendUnacknowledged, flags: [.fin, .ack],
      window: UInt16(clamping: scaled),
      timestamps: block.negotiated.timestamps
        ? TCPTimestamps(value: block.timestampRecent, echo: timestamp) : nil,
      payload: UnsafeRawBufferPointer(start: nil, count: 0))
    let bytes = [UInt8](repeating: 0, count: VirtioNetHeader.byteCount) + frame
    let error = bytes.withUnsafeBytes { tap.write($0) }
    if error != 0 {
      logger.error("FIN of \(plan.flow) cannot be delivered: \(SystemError("write", code: error))")
    }
  }

  /// Puts unacknowledged bytes on the wire at once: the kernel alone would wait for its initial
  /// retransmission timeout. A segment without data, where there are none, tells the peer where we stand.
  private func resend(_ plan: MergePlan, timestamp: UInt32) {
    let block = plan.block
    let finCount: UInt32 = plan.finReceived ? 1 : 0
    let window = (plan.receiveWindow - finCount) >> UInt32(block.negotiated.receiveWindowScale ?? 0)
    let acknowledgment = plan.receiveNext + Int(finCount)
    let builder = TCPFrameBuilder(
      sourceMAC: .zero, destinationMAC: .zero, source: plan.flow.local, destination: plan.flow.remote)
    let timestamps =
      block.negotiated.timestamps ? TCPTimestamps(value: timestamp, echo: block.timestampRecent) : nil
    func send(_ sequence: SequenceNumber, _ flags: TCPFlags, _ payload: UnsafeRawBufferPointer) {
      let frame = builder.frame(
        sequence: sequence, acknowledgment: acknowledgment, flags: flags, window: UInt16(clamping: window),
        timestamps: timestamps, payload: payload)
      counters.segmentsResent += 1
      sendBuilt(frame, to: plan.flow.remote.address)
    }

    let step = segmentSize(plan)
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

  /// Bytes of payload in a full segment: what the peer takes, and what the uplink carries.
  private func segmentSize(_ plan: MergePlan) -> Int {
    let ipHeader = plan.flow.local.address.family == .v4 ? 20 : 40
    let options = plan.block.negotiated.timestamps ? 12 : 0
    let limit = min(
      Int(plan.block.negotiated.maximumSegmentSize), uplink.mtu - ipHeader - TCPSegment.minimumHeaderByteCount
    )
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

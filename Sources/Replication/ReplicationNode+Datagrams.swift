import OrderedCollections
import Packet

// What is different with UDP sockets. A datagram is a unit: it is in the log, whole, or it is not; nobody sends it again,
// so that no copy, no gap and no state beyond it has to be told.
//
// An incoming datagram is delivered when the secondary has it (strict), or at once, behind its record in the log
// (overlap). An outgoing one is always held until the secondary has it, and with it all that stands before it in the
// log: whatever was taken in before. What cannot be logged for want of room is dropped, in either direction, as any
// network may do; it never goes on without the secondary.
extension ReplicationNode {
  /// A datagram that this RE's kernel wants to send.
  ///
  /// - Parameters:
  ///   - reference: what to call the frame should it be held.
  ///   - byteCount: what the frame occupies, in bytes.
  ///   - instance: the routing instance that it is sent in.
  public mutating func outbound(
    _ packet: UDPPacket, reference: FrameReference, byteCount: Int, instance: RoutingInstanceID = .main,
    now: Instant
  ) -> Verdict {
    statistics.outboundPackets += 1
    let flow = packet.outboundFlow(in: instance)
    guard let place = place(ofDatagram: flow) else { return strayOutbound() }
    if entries[place]!.phase == .snooping, entries[place]!.flow != flow, arbiter.phase == .primary {
      // The unconnected socket is not merged yet. It is a connected one that sends, which is.
      return strayOutbound()
    }
    if let verdict = outboundVerdict(place, reference, byteCount, remote: flow.remote) { return verdict }
    return replicate(
      packet, place, reference, byteCount, isOutbound: true, now: now, checksumIsValid: { true })
  }

  /// A datagram that a peer sent to this RE.
  ///
  /// - Parameter checksumIsValid: called when the payload or the header is about to be believed.
  public mutating func inbound(
    _ packet: UDPPacket, reference: FrameReference, byteCount: Int, instance: RoutingInstanceID = .main,
    now: Instant, checksumIsValid: () -> Bool
  ) -> Verdict {
    statistics.inboundPackets += 1
    let flow = packet.inboundFlow(in: instance)
    guard let place = place(ofDatagram: flow) else {
      let unconnected = Flow(unconnected: flow.local, instance: instance)
      return strayInbound(forwards[unconnected] == nil ? flow : unconnected, byteCount)
    }
    // Not before what waits already.
    if entries[place]!.isEnding {
      return wait(place, reference, byteCount, isOutbound: false, remote: flow.remote)
    }
    if let verdict = inboundVerdict(
      place, entries[place]!.flow!, reference, byteCount, remote: flow.remote)
    {
      return verdict
    }
    return replicate(
      packet, place, reference, byteCount, isOutbound: false, now: now, checksumIsValid: checksumIsValid)
  }

  /// Where the socket stands that a datagram of `flow` belongs to: the one that is connected to this peer, or else the
  /// unconnected one of the local end.
  private func place(ofDatagram flow: Flow) -> Int? {
    if let place = flows[flow], !planted(.unconnectedFlowComesFirst) { return place }
    guard let place = flows[Flow(unconnected: flow.local, instance: flow.instance)], aloneFlows[flow] == nil
    else { return flows[flow] }
    return place
  }

  /// A datagram of a socket that is replicated.
  private mutating func replicate(
    _ packet: UDPPacket, _ place: Int, _ reference: FrameReference, _ byteCount: Int, isOutbound: Bool,
    now: Instant, checksumIsValid: () -> Bool
  ) -> Verdict {
    let remote = isOutbound ? packet.destination : packet.source
    guard entries[place]!.pausedSince == nil, !(isOutbound && drainingUntil != nil) else {
      return wait(place, reference, byteCount, isOutbound: isOutbound, remote: remote)
    }
    let record = DatagramRecord(
      kind: isOutbound ? .sdrlDatagram : .prlDatagram, handle: entries[place]!.peer!, remote: remote,
      local: isOutbound ? packet.source : packet.destination, payload: packet.payload)
    let isHeld = isOutbound || configuration.mode == .strict
    // What is in the log is on the secondary's descriptors: there has to be room for all that is to become of it.
    guard log.unacknowledgedBytes < configuration.holdLimit,
      !isHeld || holds.byteCount + byteCount <= configuration.holdLimit,
      record.byteCount <= configuration.linkRecordLimit
    else {
      statistics.datagramsDropped += 1
      return planted(.fullLogIsPassedBy) && !isOutbound ? .pass : .drop
    }
    // The kernel would not take it, so the secondary must not have it.
    guard checksumIsValid() else {
      statistics.droppedForChecksum += 1
      return .drop
    }
    let layer = record.kind.layer
    let position = log.append(
      byteCount: record.byteCount, layer: layer, socket: entries[place]!.handle, now: now)
    actions.append(.appendDatagram(record))
    noteAppended(record, at: position, place)
    if isOutbound {
      statistics.sdrlRecordsSent += 1
      statistics.sdrlBytesSent += UInt64(record.payload.count)
      entries[place]!.positions.sdrl = position
    } else {
      statistics.prlRecordsSent += 1
      statistics.prlBytesSent += UInt64(record.payload.count)
      entries[place]!.positions.prl = position
    }
    guard isHeld, !(isOutbound && planted(.datagramPassesUnheld)) else {
      statistics.passedAtOnce += 1
      return .pass
    }
    entries[place]!.heldDatagrams += 1
    return hold(place, reference, byteCount, until: position, isOutbound: isOutbound)
  }

  /// Primary: datagrams of any socket wait for the secondary.
  var holdsDatagrams: Bool { entries.contains { ($0?.heldDatagrams ?? 0) > 0 } }

  /// Primary: mastership stays here. What waited for it to go is sent.
  mutating func resumeDatagrams() {
    for place in entries.indices {
      guard let entry = entries[place], entry.transport == .udp, entry.phase == .replicating,
        entry.pausedSince == nil
      else { continue }
      endWaiting(place, .replayed)
    }
  }

  /// Replication of a socket is over: lets its held datagrams go, before those that waited behind them. (The queue of all
  /// sockets may yet have to wait for others.)
  mutating func releaseHeldDatagrams(_ place: Int) {
    guard entries[place]!.heldDatagrams > 0, !planted(.waitingOvertakesHeld) else { return }
    entries[place]!.heldDatagrams = 0
    let entry = entries[place]!
    for held in holds.removeAll(ofSocket: Int32(place), generation: entry.handle.generation) {
      letGo(held.frame, isOutbound: held.isOutbound, entry.pathAfterEnd, isJudged: true)
    }
  }

  /// The socket goes on as an ordinary one, if it is one that has a peer of its own.
  mutating func goOnAlone(_ place: Int) {
    guard let flow = entries[place]!.flow, flow.transport == .udp else { return }
    releaseHeldDatagrams(place)
    if !flow.isUnconnected { aloneFlows[flow] = place }
  }

  // MARK: Handshake

  /// Primary: a connected socket is to be replicated. Up to now what it exchanged counted as the unconnected one's of the
  /// same local end, if that is replicated: what is held of it must have gone before the handshake reads the socket, or
  /// it would be in neither's log as it should.
  ///
  /// - Returns: whether the flow is steered later.
  mutating func separateFromUnconnected(_ place: Int) -> Bool {
    let flow = entries[place]!.flow!
    let unconnected = Flow(unconnected: flow.local, instance: flow.instance)
    guard flow.transport == .udp, !flow.isUnconnected, let other = flows[unconnected] else { return false }
    for frame in entries[other]!.takeWaiting(of: flow.remote) {
      let fits = entries[place]!.wait(frame)
      assert(fits, "one socket may keep as much as another")
    }
    guard entries[other]!.heldDatagrams > 0 else { return false }
    entries[place]!.steersBehind = holds.lastRequired
    dueSteering.append((holds.lastRequired, entries[place]!.handle))
    return true
  }

  /// Begins the handshakes for which nothing is held any more.
  mutating func steerDue() {
    while let due = dueSteering.first, holds.first.map({ $0.required > due.required }) ?? true {
      dueSteering.removeFirst()
      guard let place = try? find(due.handle), entries[place]!.phase == .starting,
        entries[place]!.steersBehind == due.required
      else { continue }
      entries[place]!.steersBehind = nil
      actions.append(.steer(due.handle, entries[place]!.flow!))
    }
  }

  /// Primary: what the kernel said of a UDP socket, once its packets were held.
  public mutating func datagramSnapshotTaken(_ handle: Handle, _ snapshot: DatagramSnapshot, now: Instant) {
    guard let place = placeOfHandshake(handle, .udp) else { return }
    let limit = configuration.linkRecordLimit - DatagramRecord.fixedByteCount
    guard snapshot.receiveQueue.allSatisfy({ $0.payload.count <= limit }) else {
      return refuse(place, .limitReached)
    }
    beginHandshake(place, options: snapshot.options, now: now)
    for datagram in snapshot.receiveQueue {
      let start = DatagramRecord.fixedByteCount
      let record = DatagramRecord(
        kind: .prlDatagram, handle: entries[place]!.peer!, remote: datagram.remote, local: datagram.local,
        payload: 0..<datagram.payload.count)
      var bytes = [UInt8](repeating: 0, count: start)
      bytes.reserveCapacity(record.byteCount)
      bytes.withUnsafeMutableBytes { record.store(in: $0) }
      bytes += datagram.payload
      append(bytes, layer: .prl, place: place, now: now)
    }
    say(.info, "PRL handshake for socket \(handle): \(snapshot.receiveQueue.count) unread datagrams sent")
    let position = commitHandshake(place, now: now)
    entries[place]!.positions.sdrl = position
    entries[place]!.positions.prl = position
  }

  // MARK: Secondary: following the primary

  mutating func receiveDatagram(
    _ header: RecordHeader, _ record: UnsafeRawBufferPointer, at offset: Int
  ) throws(RecordError) {
    guard let version = linkVersion, version >= LinkVersion.hasDatagrams else {
      throw .unexpected(header.kind)
    }
    let datagram = try DatagramRecord(header, record, at: offset)
    guard let place = try handshakePlace(header), entries[place]!.isFollowing else { return }
    let entry = entries[place]!
    guard entry.transport == .udp, datagram.local.address.family == entry.flow!.local.address.family else {
      throw .unexpected(header.kind)
    }
    if entry.phase == .receiving {
      // What the primary's application has not read. It may be of others than the present peer, from before the socket
      // was connected.
      guard header.kind == .prlDatagram else { throw .unexpected(header.kind) }
      guard !planted(.unreadDatagramsForgotten) else { return }
      let unread = Datagram(
        remote: datagram.remote, local: datagram.local,
        payload: [UInt8](record[DatagramRecord.fixedByteCount...]))
      return actions.append(.snoopOwnedDatagram(entry.handle, .rcv, unread))
    }
    guard datagram.local == entry.flow!.local,
      entry.flow!.isUnconnected || datagram.remote == entry.flow!.remote
    else { throw .invalidField("datagram's flow") }
    let stream: SnoopStream
    if header.kind == .sdrlDatagram {
      stream = .snd
      entries[place]!.positions.sdrl = receivedPosition
    } else {
      stream = .rcv
      entries[place]!.positions.prl = receivedPosition
    }
    actions.append(
      .snoopDatagram(
        entry.handle, stream, remote: datagram.remote, local: datagram.local, datagram.payload))
  }
}

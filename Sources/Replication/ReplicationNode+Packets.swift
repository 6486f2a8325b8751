import OrderedCollections
import Packet

// What the primary does with the packets of replicated flows, and every RE with those that reach it while
// a flow changes hands.
extension ReplicationNode {
  /// A packet that this RE's kernel wants to send.
  ///
  /// - Parameters:
  ///   - reference: what to call the frame should it be held.
  ///   - byteCount: what the frame occupies, in bytes.
  ///   - instance: the routing instance that it is sent in.
  public mutating func outbound(
    _ packet: TCPPacket, reference: FrameReference, byteCount: Int, instance: RoutingInstanceID = .main,
    now: Instant
  ) -> Verdict {
    statistics.outboundPackets += 1
    guard let place = flows[packet.outboundFlow(in: instance)] else { return strayOutbound() }
    if case .ending(.closed) = entries[place]!.phase, isAcknowledged(packet.segment, place) {
      // Had it to wait for the secondary, it would come after the end of the connection, and the peer's answer to it
      // would be answered with a reset.
      statistics.droppedAsAcknowledged += 1
      return .drop
    }
    if let verdict = outboundVerdict(place, reference, byteCount) { return verdict }
    return sendReplicated(packet.segment, place, reference: reference, byteCount: byteCount, now: now)
  }

  mutating func strayOutbound() -> Verdict {
    statistics.strayPackets += 1
    return .pass
  }

  /// What becomes of an outgoing packet by the phase of its socket; `nil` if it is replicated.
  ///
  /// - Parameter remote: of a datagram, its other end.
  mutating func outboundVerdict(
    _ place: Int, _ reference: FrameReference, _ byteCount: Int, remote: Endpoint? = nil
  ) -> Verdict? {
    switch entries[place]!.phase {
    case .replicating where !speaksForConnections:
      // Handed over: what is not known to the other RE must not leave, nor need it.
      statistics.droppedAsSecondary += 1
      return .drop
    case .replicating where isSevered(place):
      return wait(place, reference, byteCount, isOutbound: true, remote: remote)
    case .replicating:
      return nil
    case .starting, .ending:
      return wait(place, reference, byteCount, isOutbound: true, remote: remote)
    case .merging:
      // Nothing is sent before the merge is complete: the kernel's socket has not heard of a FIN yet.
      return wait(place, reference, byteCount, isOutbound: true, remote: remote)
    case .allocated, .attached, .receiving, .snooping:
      // A socket of a former life of this RE.
      statistics.droppedAsSecondary += 1
      return .drop
    case .unreplicated:
      return .pass
    }
  }

  /// A copy of bytes, or of a FIN, that the peer has acknowledged.
  private func isAcknowledged(_ segment: TCPSegment, _ place: Int) -> Bool {
    let takesNumbers = !segment.payload.isEmpty || segment.flags.contains(.fin)
    return takesNumbers && !(segment.end > entries[place]!.block.sendUnacknowledged)
  }

  /// A packet that the peer sent to this RE.
  ///
  /// - Parameter checksumIsValid: called when the payload or the header is about to be believed.
  public mutating func inbound(
    _ packet: TCPPacket, reference: FrameReference, byteCount: Int, instance: RoutingInstanceID = .main,
    now: Instant, checksumIsValid: () -> Bool
  ) -> Verdict {
    statistics.inboundPackets += 1
    let flow = packet.inboundFlow(in: instance)
    guard let place = flows[flow] else {
      let verdict = strayInbound(flow, byteCount)
      return verdict == .pass && mirroredFlows.contains(flow) ? .drop : verdict
    }
    let verdict =
      inboundVerdict(place, flow, reference, byteCount)
      ?? receiveReplicated(
        packet.segment, place, reference: reference, byteCount: byteCount, now: now,
        checksumIsValid: checksumIsValid)
    // The kernel has had it.
    return verdict == .pass && entries[place]!.isMirrored ? .drop : verdict
  }

  /// What becomes of a packet of the peer by the phase of its socket; `nil` if it is replicated.
  ///
  /// - Parameter remote: of a datagram, its other end.
  mutating func inboundVerdict(
    _ place: Int, _ flow: Flow, _ reference: FrameReference, _ byteCount: Int, remote: Endpoint? = nil
  ) -> Verdict? {
    switch entries[place]!.phase {
    case .replicating where !speaksForConnections:
      return strayInbound(flow, byteCount)
    case .replicating where isSevered(place):
      return wait(place, reference, byteCount, isOutbound: false, remote: remote)
    case .replicating:
      return nil
    case .starting, .merging:
      return wait(place, reference, byteCount, isOutbound: false, remote: remote)
    case .snooping where arbiter.phase == .primary:
      return planted(.packetOvertakesTheMerge)
        ? .pass : wait(place, reference, byteCount, isOutbound: false, remote: remote)
    case .snooping where arbiter.phase == .takingOver:
      // The old primary has handed over, and passes on what still reaches it.
      return wait(place, reference, byteCount, isOutbound: false, remote: remote)
    case .ending, .unreplicated:
      return .pass
    case .allocated, .attached, .receiving, .snooping:
      // The flow may be replicated again, this time from the other RE, and the packet have waited here since before.
      if passOnLate(flow, byteCount) { return .drop }
      statistics.droppedAsSecondary += 1
      return .drop
    }
  }

  /// A packet of no socket that is replicated here, perhaps of one that was.
  mutating func strayInbound(_ flow: Flow, _ byteCount: Int) -> Verdict {
    if passOnLate(flow, byteCount) { return .drop }
    guard arbiter.phase == .primary else {
      // The kernel would answer with a reset.
      statistics.droppedAsSecondary += 1
      return .drop
    }
    statistics.strayPackets += 1
    return .pass
  }

  /// Old primary: a packet that reaches it yet, shortly after it handed over, goes to the new one over the link.
  private mutating func passOnLate(_ flow: Flow, _ byteCount: Int) -> Bool {
    // An RE that takes over again meanwhile must not send back what the other one passes on to it.
    guard arbiter.phase != .takingOver, forwards[flow] != nil, case .up = linkState else { return false }
    statistics.forwardedLate += 1
    actions.append(
      .appendLateFrame(
        RecordHeader(
          kind: .prlLateFrame, byteCount: RecordHeader.byteCount + byteCount,
          handle: Handle(rawValue: flow.instance.rawValue))))
    return true
  }

  mutating func wait(
    _ place: Int, _ reference: FrameReference, _ byteCount: Int, isOutbound: Bool, remote: Endpoint? = nil
  ) -> Verdict {
    let frame = SocketEntry.WaitingFrame(
      reference: reference, byteCount: byteCount, isOutbound: isOutbound, remote: remote,
      isCopy: !isOutbound && entries[place]!.isMirrored)
    guard waitingBytes + byteCount <= configuration.holdLimit, entries[place]!.wait(frame) else {
      if entries[place]!.transport == .udp {
        statistics.datagramsDropped += 1
      } else {
        statistics.droppedForLimit += 1
      }
      return .drop
    }
    waitingBytes += byteCount
    waitingCount += 1
    statistics.held += 1
    notePeaks()
    return .hold
  }

  /// The frames that wait for the socket rather than for the log; they do not any more.
  mutating func takeWaiting(_ place: Int) -> [SocketEntry.WaitingFrame] {
    waitingBytes -= entries[place]!.waitingBytes
    waitingCount -= entries[place]!.waiting.count
    return entries[place]!.takeWaiting()
  }

  /// Lets the frames go that wait for the socket rather than for the log.
  mutating func endWaiting(_ place: Int, _ path: Reinjection.Path) {
    for frame in takeWaiting(place) {
      letGo(frame.reference, isOutbound: frame.isOutbound, path, isJudged: true, isCopy: frame.isCopy)
    }
  }

  /// - Parameters:
  ///   - isJudged: what was decided on the frame when it came still holds.
  ///   - isCopy: the kernel has had it.
  mutating func letGo(
    _ frame: FrameReference, isOutbound: Bool, _ path: Reinjection.Path, isJudged: Bool, isCopy: Bool = false
  ) {
    if isOutbound { statistics.sdrlReinjection.count(path) } else { statistics.prlReinjection.count(path) }
    switch path {
    case .acknowledged, .rejected, .timedOut, .unreplicated:
      actions.append(isCopy ? .discard(frame) : isJudged ? .release(frame) : .replay(frame))
    case .replayed: actions.append(.replay(frame))
    case .discarded: actions.append(.discard(frame))
    }
  }

  // MARK: Outgoing

  private mutating func sendReplicated(
    _ segment: TCPSegment, _ place: Int, reference: FrameReference, byteCount: Int, now: Instant
  ) -> Verdict {
    // An acknowledgement of bytes that are not in the log would be the end of promise 1. The kernel may have
    // had them before replication began, ahead of others; or it took in what this node did not. As long as
    // they are not acknowledged the peer sends them again, and then they are logged.
    if segment.flags.contains(.ack), segment.acknowledgment > entries[place]!.inbound.acknowledgeable,
      !(planted(.mirroredAcknowledgementBelieved) && entries[place]!.isMirrored)
    {
      // What it acknowledges may stand before it in the queue of this pause.
      if entries[place]!.isMirrored, entries[place]!.pausedSince != nil {
        return wait(place, reference, byteCount, isOutbound: true)
      }
      return refuseAcknowledgment(segment, place, reference: reference, byteCount: byteCount, now: now)
    }
    if segment.flags.contains(.ack) { entries[place]!.refused = nil }

    let scale = segment.flags.contains(.syn) ? 0 : entries[place]!.block.negotiated.receiveWindowScale ?? 0
    let window = UInt32(segment.window) << UInt32(scale)
    // Also in strict mode, where the kernel is given only what is safe: it may have had bytes before replication
    // began that are in the log by now, and are not safe yet.
    var required =
      planted(.acknowledgementPassesUnheld)
      ? 0 : entries[place]!.inbound.requirement(of: segment.acknowledgment, acknowledged: log.acknowledged)

    if entries[place]!.records != nil, breaksRecordMode(segment, place, now: now) {
      return wait(place, reference, byteCount, isOutbound: true)
    }
    switch entries[place]!.outbound.judge(segment) {
    case .new where entries[place]!.pausedSince != nil, .gap where entries[place]!.pausedSince != nil:
      return wait(place, reference, byteCount, isOutbound: true)
    case .gap:
      statistics.droppedForGap += 1
      return .drop
    case .new(let sequence):
      guard log.unacknowledgedBytes < configuration.holdLimit || planted(.holdingIsUnbounded) else {
        statistics.droppedForLimit += 1
        return .drop
      }
      let skipped = max(0, min(sequence - segment.sequence, segment.payload.count))
      let record = SegmentRecord(
        kind: .sdrlSegment, handle: entries[place]!.peer!, sequence: segment.sequence + skipped,
        segment: segment, window: window, payload: segment.payload.dropFirst(skipped))
      required = log.append(
        byteCount: record.byteCount, layer: .sdrl, socket: entries[place]!.handle, now: now)
      actions.append(.appendSegment(record))
      noteAppended(record, at: required, place)
      statistics.sdrlRecordsSent += 1
      statistics.sdrlBytesSent += UInt64(record.payload.count)
      entries[place]!.outbound.append(segment, at: required)
      noteSent(segment, place, window: window)
      entries[place]!.announce(
        entries[place]!.block.receiveEdge, at: required, acknowledged: log.acknowledged)
      entries[place]!.sendLimit.announce(segment.end, at: required, acknowledged: log.acknowledged)

    case .known:
      let sends = !segment.payload.isEmpty || segment.flags.contains(.fin)
      if sends, !planted(.retransmissionPassesUnheld) {
        required = max(
          required, entries[place]!.sendLimit.requirement(of: segment.end, acknowledged: log.acknowledged))
      }
      let isBeyondLimit =
        sends && segment.end > entries[place]!.sendLimit.announced && !planted(.sendLimitNotAwaited)
      let before: ControlBlock = entries[place]!.block
      noteSent(segment, place, window: window)
      let edge = entries[place]!.block.receiveEdge
      if isBeyondLimit || edge > entries[place]!.announcedEdge && !planted(.windowEdgeNotAwaited) {
        required = appendBlock(place, now: now)
      } else {
        required = max(
          required, entries[place]!.requirement(ofEdge: edge, acknowledged: log.acknowledged))
        if entries[place]!.block != before { markDirty(place) }
      }
    }

    if segment.flags.contains(.rst) {
      actions.append(.inspect(entries[place]!.handle))
    }
    endIfClosed(place, now: now)
    if required <= log.acknowledged {
      statistics.passedAtOnce += 1
      return .pass
    }
    return hold(place, reference, byteCount, until: required, isOutbound: true)
  }

  /// The kernel acknowledges what is not in the log: as long as the log comes nearer, the segment is lost. If it
  /// does not, the secondary is out of step for good.
  private mutating func refuseAcknowledgment(
    _ segment: TCPSegment, _ place: Int, reference: FrameReference, byteCount: Int, now: Instant
  ) -> Verdict {
    let logged = entries[place]!.inbound.acknowledgeable
    let before = entries[place]!.refused.flatMap { $0.logged == logged ? $0 : nil }
    let since = before?.since ?? now
    entries[place]!.refused = SocketEntry.RefusedAcknowledgment(
      acknowledgment: segment.acknowledgment, window: segment.window, timestamps: segment.timestamps,
      logged: logged, since: since)
    guard now - since >= timeouts.prl else {
      refusing.insert(place)
      statistics.droppedForUnknownAcknowledgment += 1
      acknowledgeWhatIsSafe(place, now: now)
      return .drop
    }
    say(
      .error,
      "kernel acknowledges \(segment.acknowledgment) on socket \(entries[place]!.handle), log has \(logged)")
    endReplication(place, because: .diverged, now: now)
    return wait(place, reference, byteCount, isOutbound: true)
  }

  /// More is safe than before: for sockets whose kernel is ahead of the log.
  mutating func acknowledgeRefused(now: Instant) {
    guard !refusing.isEmpty, speaksForConnections else { return }
    for place in refusing.sorted() {
      if entries[place]?.phase == .replicating, entries[place]!.refused != nil {
        acknowledgeWhatIsSafe(place, now: now)
      } else {
        refusing.remove(place)
      }
    }
  }

  /// Tells the peer how far the log has its bytes, in place of the kernel, which has them further: so that the
  /// peer sends the others again.
  private mutating func acknowledgeWhatIsSafe(_ place: Int, now: Instant) {
    let entry = entries[place]!
    let block: ControlBlock = entry.block
    let refused = entry.refused!
    let unit = 1 << Int(block.negotiated.receiveWindowScale ?? 0)
    let number = entry.inbound.acknowledgeable
    guard number > block.receiveAcknowledged, number < refused.acknowledgment,
      entries[place]!.inbound.requirement(of: number, acknowledged: log.acknowledged) <= log.acknowledged
    else { return }
    // The window's right edge: not behind what was advertised, nor beyond what the kernel will advertise.
    let field = (refused.acknowledgment - number + Int(refused.window) * unit) / unit
    let edge = number + field * unit
    if edge > entry.announcedEdge {
      // The secondary has to know of it first.
      entries[place]!.block.receiveEdge = .later(block.receiveEdge, edge)
      appendBlock(place, now: now)
      return
    }
    guard field <= 65_535, edge >= block.advertisedEdge,
      entries[place]!.requirement(ofEdge: edge, acknowledged: log.acknowledged) <= log.acknowledged
    else { return }
    entries[place]!.block.noteSent(
      end: block.sendNext, acknowledgment: number, window: UInt32(field * unit),
      timestamps: refused.timestamps)
    markDirty(place)
    actions.append(
      .acknowledge(
        Acknowledgment(
          flow: entry.flow!, sequence: block.sendNext, acknowledgment: number, window: UInt16(field),
          timestamps: refused.timestamps)))
  }

  private mutating func noteSent(_ segment: TCPSegment, _ place: Int, window: UInt32) {
    guard segment.flags.contains(.ack) else { return }
    entries[place]!.block.noteSent(
      end: segment.end, acknowledgment: segment.acknowledgment, window: window,
      timestamps: segment.timestamps)
  }

  mutating func hold(
    _ place: Int, _ reference: FrameReference, _ byteCount: Int, until required: LogPosition,
    isOutbound: Bool, isUnjudged: Bool = false
  ) -> Verdict {
    guard holds.byteCount + byteCount <= configuration.holdLimit || planted(.holdingIsUnbounded) else {
      statistics.droppedForLimit += 1
      return .drop
    }
    statistics.held += 1
    holds.append(
      HoldQueue.Entry(
        required: max(required, holds.lastRequired), frame: reference, byteCount: Int32(byteCount),
        socket: Int32(place), generation: entries[place]!.handle.generation, isOutbound: isOutbound,
        isUnjudged: isUnjudged))
    notePeaks()
    return .hold
  }

  // MARK: Incoming

  private mutating func receiveReplicated(
    _ segment: TCPSegment, _ place: Int, reference: FrameReference, byteCount: Int, now: Instant,
    checksumIsValid: () -> Bool
  ) -> Verdict {
    let block: ControlBlock = entries[place]!.block
    // What the kernel will discard or only answer is none of the log's business.
    guard !segment.flags.contains(.syn), segment.flags.contains(.ack) || segment.flags.contains(.rst) else {
      return .pass
    }
    // Whatever is not logged now waits like what is: the kernel may see it otherwise, since what it has
    // taken in is behind what this node has seen.
    let carriesBytes = !segment.payload.isEmpty || segment.flags.contains(.fin)
    var required = carriesBytes && !planted(.copyDeliveredUnheld) ? entries[place]!.inbound.position : 0
    if block.isOldDuplicate(segment.timestamps) {
      statistics.oldDuplicates += 1
      // The kernel discards it, unless it has not seen yet what this node has; then the peer sends it again.
      if carriesBytes, case .new = entries[place]!.inbound.judge(segment) { return .drop }
      return deliver(place, reference, byteCount, after: required, isUnjudged: true)
    }
    if segment.flags.contains(.rst) {
      actions.append(.inspect(entries[place]!.handle))
      return .pass
    }

    // What is news for the log may be old for a kernel that is ahead of it, which then does not remember its timestamp
    // (`tcp_sequence` comes before `tcp_replace_ts_recent`).
    var segment = segment
    if let refused = entries[place]!.refused, segment.end < refused.acknowledgment {
      segment.timestamps = nil
    }

    // An old duplicate or a forgery: the kernel takes neither its bytes nor its acknowledgement.
    guard block.accepts(segment) else {
      return deliver(place, reference, byteCount, after: required, isUnjudged: true)
    }

    switch entries[place]!.inbound.judge(segment) {
    case .tooFragmented:
      statistics.droppedForLimit += 1
      return .drop
    case .new where entries[place]!.pausedSince != nil || planted(.onePausesAll) && !paused.isEmpty:
      return wait(place, reference, byteCount, isOutbound: false)
    case .new(let sequence):
      guard log.unacknowledgedBytes < configuration.holdLimit || planted(.holdingIsUnbounded) else {
        statistics.droppedForLimit += 1
        return .drop
      }
      guard checksumIsValid() || planted(.damageIsLogged) else {
        statistics.droppedForChecksum += 1
        return .drop
      }
      let skipped = max(0, min(sequence - segment.sequence, segment.payload.count))
      let window = UInt32(segment.window) << UInt32(block.negotiated.sendWindowScale ?? 0)
      let record = SegmentRecord(
        kind: .prlSegment, handle: entries[place]!.peer!, sequence: segment.sequence + skipped,
        segment: segment, window: window, payload: segment.payload.dropFirst(skipped))
      required = log.append(
        byteCount: record.byteCount, layer: .prl, socket: entries[place]!.handle, now: now)
      actions.append(.appendSegment(record))
      noteAppended(record, at: required, place)
      statistics.prlRecordsSent += 1
      statistics.prlBytesSent += UInt64(record.payload.count)
      entries[place]!.inbound.append(segment, from: sequence, at: required)
      noteReceived(record, segmentSequence: segment.sequence, place)
      // The record tells the secondary where its bytes begin, not where the segment did.
      if skipped > 0 { markDirty(place) }
      if entries[place]!.inbound.fin == entries[place]!.inbound.next, !entries[place]!.peerClosedReported {
        entries[place]!.peerClosedReported = true
        actions.append(.peerClosed(entries[place]!.handle))
      }

    case .known:
      var updated = block
      updated.noteReceived(
        sequence: segment.sequence, acknowledgment: segment.acknowledgment,
        window: UInt32(segment.window) << UInt32(block.negotiated.sendWindowScale ?? 0),
        timestamps: segment.timestamps)
      if updated != block {
        // Bytes that a damaged header acknowledges would be missing after a merge.
        guard checksumIsValid() else {
          statistics.droppedForChecksum += 1
          return .drop
        }
        entries[place]!.block = updated
        markDirty(place)
      }
    }

    endIfClosed(place, now: now)
    return deliver(place, reference, byteCount, after: required)
  }

  /// - Parameter isUnjudged: what it carries is not in the log: it is judged again before it is delivered, since
  ///   the kernel may have opened its window meanwhile.
  private mutating func deliver(
    _ place: Int, _ reference: FrameReference, _ byteCount: Int, after required: LogPosition,
    isUnjudged: Bool = false
  ) -> Verdict {
    guard configuration.mode == .strict, required > log.acknowledged else {
      statistics.passedAtOnce += 1
      return .pass
    }
    return hold(
      place, reference, byteCount, until: required, isOutbound: false, isUnjudged: isUnjudged)
  }

  private mutating func noteReceived(_ record: SegmentRecord, segmentSequence: SequenceNumber, _ place: Int) {
    entries[place]!.block.noteReceived(
      sequence: segmentSequence, acknowledgment: record.acknowledgment, window: record.window,
      timestamps: record.timestamps)
  }

  /// Both FINs are sent and acknowledged: replication has nothing left to protect.
  private mutating func endIfClosed(_ place: Int, now: Instant) {
    guard let finSent = entries[place]!.outbound.fin, let finReceived = entries[place]!.inbound.fin,
      entries[place]!.block.sendUnacknowledged > finSent,
      entries[place]!.block.receiveAcknowledged > finReceived
    else { return }
    endReplication(place, because: .closed, now: now)
  }

  // MARK: Release

  /// Lets go of whatever need not wait any longer.
  mutating func pump() {
    releaseHolds()
    if !dueSteering.isEmpty { steerDue() }
  }

  private mutating func releaseHolds() {
    while let head = holds.first {
      let place = Int(head.socket)
      // An entry is not copied for that: it refers to much, which is counted.
      let isCurrent = entries[place] != nil && entries[place]!.handle.generation == head.generation
      let waits = isCurrent && (entries[place]!.phase == .replicating || entries[place]!.isEnding)
      let isSafe = head.required <= log.acknowledged + (planted(.releasedOnePositionEarly) ? 1 : 0)
      if !isSafe, waits || planted(.endedSocketBlocksTheQueue) { return }
      _ = holds.removeFirst()
      if isCurrent, entries[place]!.transport == .udp { entries[place]!.heldDatagrams -= 1 }
      var path = isCurrent ? entries[place]!.pathAfterEnd : .unreplicated
      if path != .discarded, isSafe { path = head.isUnjudged && waits ? .replayed : .acknowledged }
      // A socket that was unreplicated may be replicated again meanwhile, by a log that lacks what was held.
      letGo(head.frame, isOutbound: head.isOutbound, path, isJudged: waits)
    }
  }
}

extension SocketEntry {
  var isEnding: Bool { if case .ending = phase { true } else { false } }
}

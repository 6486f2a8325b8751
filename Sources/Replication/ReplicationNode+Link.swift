import OrderedCollections
import Packet

// The inter-RE link: greeting, records in both directions, acknowledgements.
extension ReplicationNode {
  /// The link is connected; the other side has not spoken yet.
  public mutating func linkOpened(now: Instant) {
    session &+= 1
    log.restart()
    receivedHold.restart()
    accepted = []
    madeUpHandle = nil
    recordsOnTheirWay.removeAll()
    // Of a log that is no more; their handshakes have ended with it.
    dueSteering.removeAll()
    receivedPosition = 0
    acknowledgedPosition = 0
    linkState = .greeting(since: now)
    let hello = Hello(
      slot: configuration.slot, node: configuration.node, session: session,
      handleLimit: UInt32(configuration.socketLimit), versions: configuration.linkVersions)
    actions.append(.send(hello.record()))
  }

  /// The link is gone.
  public mutating func linkClosed(_ ending: LinkEnding, now: Instant) {
    guard case .up = linkState else {
      if case .greeting = linkState { linkState = .down }
      obey(arbiter.linkWentDown(ending, now: now), now: now)
      return
    }
    linkState = .down
    say(.warning, "KKCM link lost: \(ending)")
    for place in entries.indices where entries[place]?.phase == .starting {
      endReplication(place, because: .linkLost, now: now)
    }
    for place in entries.indices where entries[place]?.phase == .receiving {
      letGo(place, because: .linkLost, tellPrimary: false)
    }
    if planted(.releasedAtLinkLoss) { releaseSevered() }
    if arbiter.phase == .secondary, !entries.contains(where: { $0?.isFollowing == true }) {
      voidedSession = peerSession
    }
    services.there = []
    endRequests(.linkLost)
    let outputs = arbiter.linkWentDown(ending, now: now)
    // First what has happened, then what it means for each socket.
    noteStandby()
    obey(outputs, now: now)
  }

  /// Bytes from the link, in order.
  ///
  /// - Returns: how many were used; the rest is the beginning of a record, and must come again with what
  ///   follows it. After an error all bytes count as used, and `closeLink` is among the actions.
  public mutating func linkReceived(_ bytes: UnsafeRawBufferPointer, now: Instant) -> Int {
    var offset = 0
    arbiter.linkMoved(now: now)
    do throws(RecordError) {
      while bytes.count - offset >= RecordHeader.byteCount {
        let header = try RecordHeader(
          UnsafeRawBufferPointer(rebasing: bytes[offset...]), lengthLimit: configuration.linkRecordLimit)
        guard bytes.count - offset >= header.byteCount else { return offset }
        let record = UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + header.byteCount])
        try receive(header, record, at: offset, now: now)
        offset += header.byteCount
      }
      return offset
    } catch {
      closeLink("\(error)")
      return bytes.count
    }
  }

  /// The actions of a batch of link input are carried out: acknowledges what has arrived and is safe.
  public mutating func linkBatchEnded(now: Instant) {
    let position = receivedHold.permitted(receivedPosition)
    guard position > acknowledgedPosition, case .up = linkState else { return }
    acknowledgedPosition = position
    statistics.acknowledgementsSent += 1
    var writer = ByteWriter(.kkcmAcknowledge, capacity: 8)
    writer.integer(position)
    actions.append(.send(writer.record()))
  }

  private mutating func receive(
    _ header: RecordHeader, _ record: UnsafeRawBufferPointer, at offset: Int, now: Instant
  ) throws(RecordError) {
    statistics.recordsReceived += 1
    guard case .up = linkState else {
      guard case .greeting = linkState, header.kind == .kkcmHello else { throw .unexpected(header.kind) }
      var reader = ByteReader(UnsafeRawBufferPointer(rebasing: record[RecordHeader.byteCount...]))
      return try greet(Hello(&reader), now: now)
    }
    if header.kind.isLogged {
      // The sender believes to be the primary. To acknowledge what this RE does not follow would let it
      // send on.
      guard arbiter.phase != .primary else { throw .unexpected(header.kind) }
      receivedPosition += 1
      receivedHold.note(header.kind.layer, at: receivedPosition)
    }
    if logsRecords { traceReceived(header, record) }
    if header.kind == .sdrlSegment || header.kind == .prlSegment {
      let segment = try SegmentRecord(header, record, at: offset)
      guard let place = try place(of: header.handle) else { return }
      try checkSnapshot(place, header.kind)
      let payload = UnsafeRawBufferPointer(rebasing: record[SegmentRecord.fixedByteCount...])
      if header.kind == .sdrlSegment {
        entries[place]!.positions.sdrl = receivedPosition
        follow(outgoing: segment, payload, place, now: now)
      } else {
        entries[place]!.positions.prl = receivedPosition
        follow(incoming: segment, payload, place)
      }
      return
    }

    if header.kind == .sdrlRecord {
      let outgoing = try OutgoingRecord(header, record, at: offset)
      guard let place = try place(of: header.handle) else { return }
      try checkSnapshot(place, header.kind)
      entries[place]!.positions.sdrl = receivedPosition
      follow(
        record: outgoing, UnsafeRawBufferPointer(rebasing: record[OutgoingRecord.fixedByteCount...]), place)
      return
    }

    if header.kind == .sdrlDatagram || header.kind == .prlDatagram {
      return try receiveDatagram(header, record, at: offset)
    }

    var reader = ByteReader(UnsafeRawBufferPointer(rebasing: record[RecordHeader.byteCount...]))
    switch header.kind {
    case .sdrlSegment, .sdrlRecord, .sdrlDatagram, .prlSegment, .prlDatagram: break
    case .kkcmHello: throw .unexpected(.kkcmHello)
    case .kkcmKeepalive:
      let keepalive = try Keepalive(&reader)
      try reader.finish()
      guard keepalive.slot != configuration.slot else { throw .invalidField("slot") }
      if !formerPairsAreVoid {
        // The other RE has greeted too, and given up its pairs of the former link before it said this.
        formerPairsAreVoid = true
        releaseSevered()
      }
      obey(arbiter.received(keepalive, onLink: true, now: now), now: now)
      noteStandby()
    case .kkcmAcknowledge:
      let position: LogPosition = try reader.integer()
      try reader.finish()
      guard log.acknowledge(position) else { throw .invalidField("acknowledged position") }
      statistics.acknowledgementsReceived += 1
      acknowledged(now: now)
    case .kkcmClose:
      actions.append(.closeLink("the other RE says: \(try reader.text(limit: 1024))"))
    case .mastershipRequest:
      try reader.finish()
      try? releaseMastership(now: now)
    case .mastershipHandover:
      let term = try reader.term()
      let echo: Int64 = try reader.integer()
      try reader.finish()
      guard term > 0 else { throw .invalidField("term") }
      obey(arbiter.handedOver(term: term, echo: echo, now: now), now: now)
    case .mastershipGrant:
      let term = try reader.term()
      let echo: Int64 = try reader.integer()
      try reader.finish()
      obey(arbiter.granted(term: term, echo: echo, now: now), now: now)
    case .prlLateFrame:
      if arbiter.phase == .primary || arbiter.phase == .takingOver {
        let range = (offset + RecordHeader.byteCount)..<(offset + header.byteCount)
        // What other records call a handle. Version 2 says 0 here, as the main instance is called.
        actions.append(.injectLate(range, RoutingInstanceID(rawValue: header.handle.rawValue)))
      }
    case .ihaBegin, .sdrlInitial, .psrmSnapshot, .prlInitial, .ihaCommit, .psrmUpdate, .ihaEnd:
      try followHandshake(header, &reader, now: now)
    case .ihaService, .ihaRequest, .ihaAnswer, .ihaWithdraw:
      try receiveService(header, &reader, now: now)
    case .ihaAccept:
      try reader.finish()
      guard let place = try place(of: header.handle), entries[place]!.phase == .starting else { return }
      guard entries[place]!.handshakePosition != nil else { throw .unexpected(.ihaAccept) }
      entries[place]!.isAccepted = true
      accepted.append(place)
      beginAccepted()
    case .ihaPause, .ihaResume:
      try reader.finish()
      guard let place = try place(of: header.handle), entries[place]!.phase == .replicating else { return }
      if header.kind == .ihaPause {
        entries[place]!.pausedSince = now
        paused.insert(place)
        statistics.pauses += 1
      } else {
        resume(place)
      }
    case .ihaReject, .ihaEnded:
      let reason = try Self.reason(&reader)
      guard let place = try place(of: header.handle) else { return }
      switch entries[place]!.phase {
      case .starting:
        entries[place]!.wasRejected = header.kind == .ihaReject
        refuse(place, reason)
      case .replicating:
        entries[place]!.wasRejected = header.kind == .ihaReject
        finishReplication(place, because: reason)
      case .ending(let first): finishReplication(place, because: first)
      default: break
      }
    }
  }

  /// Primary: more of the log is safe.
  mutating func acknowledged(now: Instant) {
    pump()
    endDraining(now: now)
    beginAccepted()
    acknowledgeRefused(now: now)
    noteSafeRecords()
    offerRoomForRecords()
  }

  /// Primary: a handshake is over when the secondary has the socket and has acknowledged all that was said of
  /// it, which comes in the same breath, unless acknowledgements are held.
  private mutating func beginAccepted() {
    guard !accepted.isEmpty else { return }
    var waiting: [Int] = []
    for place in accepted where entries[place]?.phase == .starting && entries[place]!.isAccepted {
      let isSafe = entries[place]!.handshakePosition! <= log.acknowledged
      if isSafe { begin(place) } else { waiting.append(place) }
    }
    accepted = waiting
  }

  private static func reason(_ reader: inout ByteReader) throws(RecordError) -> UnreplicateReason {
    guard let reason = UnreplicateReason(rawValue: try reader.integer()) else {
      throw .invalidField("reason")
    }
    try reader.finish()
    return reason
  }

  /// Where the socket of a record stands; `nil` for a socket that is gone, which may be spoken of as long
  /// as the news is on its way.
  private mutating func place(of handle: Handle) throws(RecordError) -> Int? {
    do {
      return try handles.place(of: handle)
    } catch {
      guard case .stale = error else { throw .unknownHandle(handle) }
      statistics.staleRecords += 1
      return nil
    }
  }

  /// Secondary: whether `session` shows that the engine which this RE follows is no more, so that it must take
  /// over what it follows.
  private func isOfAnotherRun(_ session: UInt64, now: Instant) -> Bool {
    peerSession != 0 && Hello.incarnation(of: session) != Hello.incarnation(of: peerSession)
      && arbiter.isLicensed(now: now) && entries.contains { $0?.phase == .snooping }
  }

  /// Ends the link from this side, and says so: an end without a word means that this engine is no more.
  mutating func closeLink(_ reason: String) {
    var writer = ByteWriter(.kkcmClose)
    writer.text(reason)
    actions.append(.send(writer.record()))
    actions.append(.closeLink(reason))
  }

  private mutating func greet(_ hello: Hello, now: Instant) throws(RecordError) {
    guard hello.slot != configuration.slot else {
      throw .noPair("the other RE has slot \(hello.slot) too; set one of them to \(1 - hello.slot)")
    }
    let (here, there) = (configuration.linkVersions, hello.versions)
    guard here.overlaps(there) else {
      throw .noPair(
        "the other RE speaks versions \(there.lowerBound) to \(there.upperBound) of the link, "
          + "this one \(here.lowerBound) to \(here.upperBound)")
    }
    let version = min(here.upperBound, there.upperBound)
    // Pairs of an earlier link belong to a log that has no continuation. But if the engine that kept the log
    // is no more, nobody can have gone on without them.
    let primaryRestarted = isOfAnotherRun(hello.session, now: now)
    if !primaryRestarted, !planted(.pairsOutliveTheirLink) { voidPairs(tellPrimary: false) }
    formerPairsAreVoid = false
    linkState = .up(hello, version: version)
    peerSession = hello.session
    statistics.linkSessions += 1
    say(.info, "KKCM link up with \(hello.node), slot \(hello.slot), version \(version)")
    arbiter.linkCameUp(primaryRestarted: primaryRestarted, now: now)
    if primaryRestarted { obey(arbiter.peerRestarted(now: now), now: now) }
    // Speak first: the arbiters decide on what they hear of each other.
    actions.append(.send(keepalive(now: now).record()))
    tellServices()
  }

  mutating func keepalive(now: Instant) -> Keepalive {
    arbiter.keepalive(session: session, voidedSession: voidedSession, now: now)
  }

  /// A keepalive of the other RE came in on an uplink.
  public mutating func uplinkReceived(_ keepalive: Keepalive, now: Instant) {
    guard keepalive.slot != configuration.slot else { return }
    if isOfAnotherRun(keepalive.session, now: now) { obey(arbiter.peerRestarted(now: now), now: now) }
    if keepalive.voidedSession == session { obey(arbiter.peerVoidedPairs(), now: now) }
    obey(arbiter.received(keepalive, onLink: false, now: now), now: now)
  }

  /// Primary: packets with new bytes, which had to wait, are judged now.
  private mutating func resume(_ place: Int) {
    entries[place]!.pausedSince = planted(.pauseNeverEnds) ? Instant(nanoseconds: .max) : nil
    endWaiting(place, .replayed)
    offerRoomForRecords()
  }

  /// Secondary: the application's buffer is filling up, or has room again.
  public mutating func snoopPressure(_ handle: Handle, isHigh: Bool) {
    guard let place = try? find(handle), entries[place]!.isFollowing,
      entries[place]!.hasPausedPrimary != isHigh, case .up = linkState
    else { return }
    entries[place]!.hasPausedPrimary = isHigh
    actions.append(.send(ByteWriter(isHigh ? .ihaPause : .ihaResume, to: entries[place]!.peer!).record()))
  }

  /// Primary: the secondary has the socket.
  private mutating func begin(_ place: Int) {
    let handle = entries[place]!.handle
    entries[place]!.phase = .replicating
    statistics.socketsReplicated += 1
    sayInitialized(place)
    actions.append(.replicated(handle))
    // Overlap is what the kernel can do by itself. A datagram would be lost, or come twice, where copies begin and end.
    if configuration.mode == .overlap, let flow = entries[place]!.flow, flow.transport == .tcp {
      actions.append(.mirror(flow))
    }
    endWaiting(place, .replayed)
  }

  // MARK: Secondary: following the primary

  /// Where the pair stands that a handshake speaks of; `nil` if it is gone, or if there never was one. Which handle
  /// a handshake names is an application's word, which must not cost others the link.
  mutating func handshakePlace(_ header: RecordHeader) throws(RecordError) -> Int? {
    do throws(RecordError) {
      return try place(of: header.handle)
    } catch {
      switch header.kind {
      case .ihaBegin: madeUpHandle = header.handle
      // The records of a handshake come one after the other; what ends it may come later.
      case .sdrlInitial, .psrmSnapshot, .prlInitial, .prlDatagram, .ihaCommit:
        guard header.handle == madeUpHandle else { throw error }
      case .ihaEnd: break
      default: throw error
      }
      return nil
    }
  }

  private mutating func followHandshake(
    _ header: RecordHeader, _ reader: inout ByteReader, now: Instant
  ) throws(RecordError) {
    guard let place = try handshakePlace(header) else {
      if header.kind == .ihaBegin {
        // The application let go of its pair, or never had one; the primary must learn it.
        reject(try reader.handle(), because: .notAttached)
      }
      return
    }
    switch header.kind {
    case .ihaBegin:
      let version = linkVersion ?? configuration.linkVersions.lowerBound
      let primary = try reader.handle()
      let flow = try reader.flow(version: version)
      let options = try reader.byteArray(limit: 4096)
      try reader.finish()
      guard entries[place]!.phase == .attached, entries[place]!.peer == primary, flows[flow] == nil else {
        return reject(primary, because: .notAttached)
      }
      guard entries[place]!.transport == flow.transport else {
        return reject(
          primary, because: version >= LinkVersion.hasDatagrams ? .wrongTransport : .notAttached)
      }
      entries[place]!.phase = .receiving
      entries[place]!.flow = flow
      entries[place]!.options = options
      flows[flow] = place
      guard flow.transport == .tcp else { return }
      let zero = SequenceNumber(0)
      entries[place]!.snoop = SnoopState(
        reassembly: Reassembly(next: zero, finReceived: false),
        unacknowledged: UnacknowledgedBytes(start: zero), timestampHeard: now)

    case .sdrlInitial:
      let bytes = try reader.byteArray(limit: configuration.recordLimit)
      try reader.finish()
      guard entries[place]!.phase == .receiving else { return }
      try checkIsStream(place, header.kind)
      guard entries[place]!.snoop!.unacknowledged.count + bytes.count <= configuration.holdLimit else {
        return letGo(place, because: .limitReached, tellPrimary: true)
      }
      bytes.withUnsafeBytes { entries[place]!.snoop!.unacknowledged.append($0) }
      actions.append(.snoopOwned(entries[place]!.handle, .snd, bytes))

    case .psrmSnapshot:
      let block = try ControlBlock(&reader)
      let sendStart = try reader.sequence()
      guard (0...1).contains(block.sendUnacknowledged - sendStart) else { throw .invalidField("send queue") }
      let finSent = try reader.boolean()
      let finReceived = try reader.boolean()
      try reader.finish()
      guard entries[place]!.phase == .receiving else { return }
      try checkIsStream(place, header.kind)
      entries[place]!.block = block
      entries[place]!.positions.psrm = receivedPosition
      let queue = entries[place]!.snoop!.unacknowledged.bytes
      var unacknowledged = UnacknowledgedBytes(start: sendStart)
      queue.withUnsafeBytes { unacknowledged.append($0) }
      entries[place]!.snoop!.unacknowledged = unacknowledged
      entries[place]!.snoop!.finSent = finSent ? unacknowledged.end : nil
      entries[place]!.snoop!.reassembly = Reassembly(
        next: block.receiveNext - (finReceived ? 1 : 0), finReceived: finReceived)
      entries[place]!.snoop!.timestampHeard = now

    case .prlInitial:
      let bytes = try reader.byteArray(limit: configuration.recordLimit)
      try reader.finish()
      guard entries[place]!.phase == .receiving else { return }
      try checkIsStream(place, header.kind)
      actions.append(.snoopOwned(entries[place]!.handle, .rcv, bytes))

    case .ihaCommit:
      try reader.finish()
      guard entries[place]!.phase == .receiving,
        entries[place]!.block != nil || entries[place]!.transport == .udp
      else { return }
      // As on the primary: all that the handshake has said of the two streams is behind this.
      entries[place]!.positions.sdrl = receivedPosition
      entries[place]!.positions.prl = receivedPosition
      actions.append(.steer(entries[place]!.handle, entries[place]!.flow!))

    case .psrmUpdate:
      var block = try ControlBlock(&reader)
      let announcedEdge = try reader.sequence()
      try reader.finish()
      guard entries[place]!.isFollowing else { return }
      try checkSnapshot(place, header.kind)
      entries[place]!.positions.psrm = receivedPosition
      block.receiveEdge = .later(announcedEdge, entries[place]!.block.receiveEdge)
      if block.timestampSent != entries[place]!.block.timestampSent {
        entries[place]!.snoop!.timestampHeard = now
      }
      entries[place]!.block = block
      entries[place]!.snoop!.unacknowledged.acknowledge(upTo: block.sendUnacknowledged)

    case .ihaEnd:
      let version = linkVersion ?? configuration.linkVersions.lowerBound
      let primary = version >= LinkVersion.endsNamePrimary ? try reader.handle() : nil
      let reason = try Self.reason(&reader)
      guard let peer = entries[place]!.peer, primary == nil || primary == peer else { return }
      if entries[place]!.isFollowing { letGo(place, because: reason, tellPrimary: false) }
      var writer = ByteWriter(.ihaEnded, to: peer)
      writer.integer(reason.rawValue)
      actions.append(.send(writer.record()))

    default: throw .unexpected(header.kind)
    }
  }

  /// Of a UDP socket there are no streams to be told.
  private func checkIsStream(_ place: Int, _ kind: RecordKind) throws(RecordError) {
    guard entries[place]!.transport == .tcp else { throw .unexpected(kind) }
  }

  /// What happens to a connection is told after the state that it happens to. (A UDP socket has none.)
  private func checkSnapshot(_ place: Int, _ kind: RecordKind) throws(RecordError) {
    if entries[place]!.isFollowing, entries[place]!.block == nil { throw .unexpected(kind) }
  }

  private mutating func reject(_ primary: Handle, because reason: UnreplicateReason) {
    var writer = ByteWriter(.ihaReject, to: primary)
    writer.integer(reason.rawValue)
    actions.append(.send(writer.record()))
  }

  private mutating func follow(
    outgoing record: SegmentRecord, _ payload: UnsafeRawBufferPointer, _ place: Int, now: Instant
  ) {
    guard entries[place]!.isFollowing else { return }
    // The log has no gaps; if this one has, somebody is wrong, and the pair must not be trusted.
    guard payload.isEmpty || record.sequence == entries[place]!.snoop!.unacknowledged.end else {
      return letGo(place, because: .diverged, tellPrimary: true)
    }
    guard entries[place]!.snoop!.unacknowledged.count + payload.count <= configuration.holdLimit else {
      return letGo(place, because: .limitReached, tellPrimary: true)
    }
    if !payload.isEmpty {
      entries[place]!.snoop!.unacknowledged.append(payload)
      actions.append(.snoop(entries[place]!.handle, .snd, record.payload))
    }
    if record.flags.contains(.fin) {
      entries[place]!.snoop!.finSent = entries[place]!.snoop!.unacknowledged.end
    }
    let timestampBefore = entries[place]!.block.timestampSent
    entries[place]!.block.noteSent(
      end: record.payloadEnd + (record.flags.contains(.fin) ? 1 : 0), acknowledgment: record.acknowledgment,
      window: record.window, timestamps: record.timestamps)
    if entries[place]!.block.timestampSent != timestampBefore {
      entries[place]!.snoop!.timestampHeard = now
    }
    endSnoopIfComplete(place)
  }

  /// A whole record of the primary's application, of which nothing, a part or all may leave from now on.
  private mutating func follow(
    record: OutgoingRecord, _ payload: UnsafeRawBufferPointer, _ place: Int
  ) {
    guard entries[place]!.isFollowing else { return }
    guard record.sequence == entries[place]!.snoop!.unacknowledged.end, entries[place]!.snoop!.finSent == nil
    else { return letGo(place, because: .diverged, tellPrimary: true) }
    guard entries[place]!.snoop!.unacknowledged.count + payload.count <= configuration.holdLimit else {
      return letGo(place, because: .limitReached, tellPrimary: true)
    }
    entries[place]!.snoop!.unacknowledged.append(payload)
    entries[place]!.block.sendNext = .later(entries[place]!.block.sendNext, record.sendLimit)
    actions.append(.snoop(entries[place]!.handle, .snd, record.payload))
  }

  private mutating func follow(
    incoming record: SegmentRecord, _ payload: UnsafeRawBufferPointer, _ place: Int
  ) {
    guard entries[place]!.isFollowing else { return }
    let handle = entries[place]!.handle
    entries[place]!.block.noteReceived(
      sequence: record.sequence, acknowledgment: record.acknowledgment, window: record.window,
      timestamps: record.timestamps)
    entries[place]!.snoop!.unacknowledged.acknowledge(upTo: entries[place]!.block.sendUnacknowledged)
    if record.flags.contains(.fin) { entries[place]!.snoop!.reassembly.noteFIN(at: record.payloadEnd) }
    let ready = entries[place]!.snoop!.reassembly.receive(payload, at: record.sequence)
    if !ready.isEmpty {
      let start = record.payload.lowerBound
      actions.append(.snoop(handle, .rcv, (start + ready.lowerBound)..<(start + ready.upperBound)))
      while let piece = entries[place]!.snoop!.reassembly.takeReady() {
        actions.append(.snoopOwned(handle, .rcv, piece))
      }
    }
    guard entries[place]!.snoop!.reassembly.byteCount <= configuration.holdLimit else {
      return letGo(place, because: .limitReached, tellPrimary: true)
    }
    endSnoopIfComplete(place)
  }

  /// A FIN whose every byte has been shown is the end of that stream.
  mutating func endSnoopIfComplete(_ place: Int) {
    guard entries[place]!.phase == .snooping, entries[place]!.snoop != nil else { return }
    let handle = entries[place]!.handle
    if entries[place]!.snoop!.reassembly.isComplete, !entries[place]!.snoop!.rcvEnded {
      entries[place]!.snoop!.rcvEnded = true
      actions.append(.endSnoop(handle, .rcv))
      actions.append(.peerClosed(handle))
    }
    if entries[place]!.snoop!.finSent != nil, !entries[place]!.snoop!.sndEnded {
      entries[place]!.snoop!.sndEnded = true
      actions.append(.endSnoop(handle, .snd))
    }
  }
}

extension SocketEntry {
  /// Secondary: records about the socket are welcome.
  var isFollowing: Bool { phase == .receiving || phase == .snooping }
}

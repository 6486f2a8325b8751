import Packet

/// Why the protocol refuses what an application asks for.
public enum SocketError: Error, Hashable, Sendable, CustomStringConvertible {
  case handle(HandleError)
  case wrongPhase(Handle, SocketPhase, wanted: String)
  case notPrimary
  case notSecondary
  case noSecondary
  /// Primary and secondary handle must come from different REs.
  case sameSide(Handle)
  case flowInUse(Flow)
  /// Bytes that were written plainly are not in the log yet.
  case plainBytes(Handle, count: Int)
  /// The socket is in record mode already.
  case recordMode(Handle)
  case noRecordMode(Handle)
  case recordsToBeWritten(Handle, byteCount: Int)
  /// A UDP socket has no record mode.
  case noRecordsInDatagrams(Handle)
  /// The version of the link, which is that of the older engine, cannot say what is wanted.
  case engineTooOld(version: UInt16, lacks: String)
  /// The application has ended its direction.
  case outputEnded(Handle)
  /// Another application of this RE has registered the service.
  case serviceTaken(ServiceName)
  case tooManyServices(limit: Int)
  /// The other RE's instance was asked for this handle already.
  case requestPending(Handle)
  /// The other RE's instance asks for nothing under this handle (any more).
  case noRequest(Handle)
  case requestRefused(RequestRefusal)

  public var description: String {
    switch self {
    case .handle(let error): "\(error)"
    case .wrongPhase(let handle, let phase, let wanted): "handle \(handle) is \(phase), not \(wanted)"
    case .notPrimary: "this RE is not the primary"
    case .notSecondary: "this RE is not the secondary"
    case .noSecondary: "there is no secondary that could take part"
    case .sameSide(let handle): "handle \(handle) was allocated by this RE, not by the other one"
    case .flowInUse(let flow): "\(flow) is replicated already"
    case .plainBytes(let handle, let count):
      "handle \(handle): \(count) bytes that were written to the socket are not replicated yet"
    case .recordMode(let handle): "handle \(handle) is in record mode already"
    case .noRecordMode(let handle): "handle \(handle) is not in record mode"
    case .recordsToBeWritten(let handle, let byteCount):
      "handle \(handle) has \(byteCount) bytes of records that are yet to be written"
    case .noRecordsInDatagrams(let handle): "handle \(handle) is of a UDP socket, which has no record mode"
    case .engineTooOld(let version, let what):
      "the engine of the other RE is too old: version \(version) of the link has no \(what)"
    case .outputEnded(let handle): "handle \(handle): the outgoing direction has been closed"
    case .serviceTaken(let service): "service \(service) is registered already on this RE"
    case .tooManyServices(let limit): "this RE has \(limit) services, which is the most"
    case .requestPending(let handle): "handle \(handle) is waiting for an answer of the other RE's instance"
    case .noRequest(let handle): "the other RE's instance asks for nothing under handle \(handle)"
    case .requestRefused(let refusal): "\(refusal)"
    }
  }
}

// The life of a socket, as applications ask for it.
extension ReplicationNode {
  public mutating func allocate() throws(SocketError) -> Handle {
    let new: (handle: Handle, place: Int)
    do { new = try handles.allocate() } catch { throw .handle(error) }
    if new.place == entries.count { entries.append(nil) }
    entries[new.place] = SocketEntry(handle: new.handle)
    return new.handle
  }

  /// Gives a handle back whose socket is not, or no longer, replicated.
  public mutating func free(_ handle: Handle) throws(SocketError) {
    let place = try find(handle)
    switch entries[place]!.phase {
    case .allocated, .attached, .unreplicated:
      if services.service(askedFor: handle) != nil { withdrawRequest(handle) }
      remove(place)
    case let phase: throw .wrongPhase(handle, phase, wanted: "allocated, attached or unreplicated")
    }
  }

  /// Secondary: a handle for the socket that the other RE calls `primary`; its snoop pair fills when the
  /// primary replicates.
  ///
  /// - Parameter transport: what kind of pair waits. A handshake for a socket of the other is rejected.
  public mutating func attach(
    primary: Handle, transport: TransportProtocol = .tcp
  ) throws(SocketError) -> Handle {
    guard arbiter.phase == .secondary else { throw .notSecondary }
    guard let version = linkVersion else { throw .noSecondary }
    if transport == .udp { try checkLinkCarriesDatagrams(version) }
    try checkIsOfOtherSide(primary)
    let handle = try allocate()
    let place = try find(handle)
    entries[place]!.phase = .attached
    entries[place]!.transport = transport
    entries[place]!.peer = primary
    return handle
  }

  /// Primary: where a handle stands under which replication may begin.
  func placeToBegin(_ handle: Handle) throws(SocketError) -> Int {
    let place = try find(handle)
    switch entries[place]!.phase {
    case .allocated, .unreplicated: break
    case let phase: throw .wrongPhase(handle, phase, wanted: "allocated or unreplicated")
    }
    guard services.service(askedFor: handle) == nil else { throw .requestPending(handle) }
    guard arbiter.phase == .primary else { throw .notPrimary }
    return place
  }

  /// Primary: begins the handshake for an established TCP socket, or a UDP socket that is bound and perhaps connected.
  /// The flow is steered first; when packets are being held, the engine brings the snapshot.
  public mutating func replicate(_ handle: Handle, secondary: Handle, flow: Flow) throws(SocketError) {
    let place = try placeToBegin(handle)
    guard let version = linkVersion, arbiter.standbyIsReady else { throw .noSecondary }
    try checkLinkCarries(flow, version: version)
    try checkIsOfOtherSide(secondary)
    guard flows[flow] == nil else { throw .flowInUse(flow) }
    // A socket may be replicated again under the same name; nothing of its former life may remain.
    entries[place] = SocketEntry(handle: handle)
    entries[place]!.phase = .starting
    entries[place]!.transport = flow.transport
    entries[place]!.peer = secondary
    entries[place]!.flow = flow
    flows[flow] = place
    aloneFlows[flow] = nil
    mirroredFlows.remove(flow)
    if !separateFromUnconnected(place) { actions.append(.steer(handle, flow)) }
  }

  /// Primary: what the kernel said of a TCP socket, once its packets were held.
  public mutating func snapshotTaken(_ handle: Handle, _ snapshot: SocketSnapshot, now: Instant) {
    guard let place = placeOfHandshake(handle, .tcp) else { return }
    beginHandshake(place, options: snapshot.options, now: now)
    let peer = entries[place]!.peer!
    appendQueue(snapshot.sendQueue, kind: .sdrlInitial, to: peer, place: place, now: now)
    say(
      .info, "SDRL handshake for socket \(handle): \(snapshot.sendQueue.count) bytes of the send queue sent")

    var block = ByteWriter(.psrmSnapshot, to: peer)
    snapshot.block.write(to: &block)
    block.sequence(snapshot.sendStart)
    block.boolean(snapshot.finSent)
    block.boolean(snapshot.finReceived)
    append(block.record(), layer: .psrm, place: place, now: now)
    statistics.psrmRecordsSent += 1
    entries[place]!.positions.psrm = log.position
    say(.info, "PSRM handshake for socket \(handle): control block sent")

    appendQueue(snapshot.receiveQueue, kind: .prlInitial, to: peer, place: place, now: now)
    say(
      .info,
      "PRL handshake for socket \(handle): \(snapshot.receiveQueue.count) bytes of the receive queue sent")

    let position = commitHandshake(place, now: now)
    let finCount = snapshot.finReceived ? 1 : 0
    entries[place]!.block = snapshot.block
    entries[place]!.beginAnnouncing(snapshot.block.receiveEdge)
    entries[place]!.sendLimit = SendLimit(snapshot.block.sendNext)
    entries[place]!.outbound = OutboundStream(
      next: snapshot.sendStart + snapshot.sendQueue.count, position: position,
      finSent: snapshot.finSent)
    entries[place]!.inbound = InboundStream(
      next: snapshot.block.receiveNext - finCount, position: position, finReceived: snapshot.finReceived)
    entries[place]!.peerClosedReported = snapshot.finReceived
  }

  /// Primary: where the socket stands whose handshake is to be spoken, as a socket of `transport`; `nil` if there is
  /// none any more.
  func placeOfHandshake(_ handle: Handle, _ transport: TransportProtocol) -> Int? {
    guard let place = try? find(handle), entries[place]!.phase == .starting,
      entries[place]!.transport == transport
    else { return nil }
    return place
  }

  /// Primary: the first record of a handshake. (The link is up: with it a handshake ends.)
  mutating func beginHandshake(_ place: Int, options: [UInt8], now: Instant) {
    entries[place]!.session = session
    var begin = ByteWriter(.ihaBegin, to: entries[place]!.peer!)
    begin.handle(entries[place]!.handle)
    begin.flow(entries[place]!.flow!, version: linkVersion!)
    begin.byteArray(options)
    append(begin.record(), layer: .iha, place: place, now: now)
  }

  /// Primary: the last record of a handshake.
  mutating func commitHandshake(_ place: Int, now: Instant) -> LogPosition {
    let commit = ByteWriter(.ihaCommit, to: entries[place]!.peer!).record()
    let position = append(commit, layer: .iha, place: place, now: now)
    entries[place]!.handshakePosition = position
    return position
  }

  private mutating func appendQueue(
    _ bytes: [UInt8], kind: RecordKind, to peer: Handle, place: Int, now: Instant
  ) {
    let step = min(256 << 10, configuration.recordLimit - RecordHeader.byteCount - 4)
    let end = planted(.onlyFirstPieceCopied) ? min(step, bytes.count) : bytes.count
    for start in stride(from: 0, to: end, by: step) {
      let piece = bytes[start..<min(start + step, bytes.count)]
      var writer = ByteWriter(kind, to: peer, capacity: piece.count + 4)
      writer.byteArray(piece)
      append(writer.record(), layer: kind.layer, place: place, now: now)
    }
  }

  /// Primary: the kernel would not say, or said that the secondary could not take it; the socket is left as it is.
  public mutating func snapshotFailed(_ handle: Handle, because reason: UnreplicateReason = .requested) {
    guard let place = try? find(handle), entries[place]!.phase == .starting else { return }
    refuse(place, reason)
  }

  /// The flow is being steered now.
  public mutating func steered(_ handle: Handle) {
    guard let place = try? find(handle), entries[place]!.phase == .receiving else { return }
    entries[place]!.phase = .snooping
    statistics.socketsReplicated += 1
    sayInitialized(place)
    actions.append(.send(ByteWriter(.ihaAccept, to: entries[place]!.peer!).record()))
    actions.append(.replicated(handle))
    endSnoopIfComplete(place)
  }

  /// What comes in of this flow from now on are copies of what the kernel has had.
  public mutating func mirrored(_ flow: Flow) {
    mirroredFlows.insert(flow)
    if let place = flows[flow] { entries[place]!.isMirrored = true }
  }

  /// No more copies will come in of this flow.
  public mutating func mirroringEnded(_ flow: Flow) {
    mirroredFlows.remove(flow)
    if let place = flows[flow] { entries[place]!.isMirrored = false }
  }

  /// What peers send is this node's alone again, and goes to the RE whose it is.
  mutating func endMirroring() {
    guard configuration.mode == .overlap else { return }
    mirroredFlows = []
    for place in entries.indices where entries[place] != nil { entries[place]!.isMirrored = false }
    actions.append(.endMirroring)
  }

  /// Primary: stops replicating. On the secondary: lets go of the pair.
  public mutating func unreplicate(
    _ handle: Handle, because reason: UnreplicateReason = .requested, now: Instant
  ) throws(SocketError) {
    let place = try find(handle)
    switch entries[place]!.phase {
    case .replicating: endReplication(place, because: reason, now: now)
    case .receiving, .snooping: letGo(place, because: reason, tellPrimary: true)
    case .attached: remove(place)
    case .allocated, .starting, .ending, .unreplicated, .merging:
      throw .wrongPhase(handle, entries[place]!.phase, wanted: "replicated")
    }
  }

  /// Secondary: the application does not take what is meant for it, or is gone.
  public mutating func snoopFailed(_ handle: Handle, because reason: UnreplicateReason) {
    guard let place = try? find(handle) else { return }
    switch entries[place]!.phase {
    case .receiving, .snooping: letGo(place, because: reason, tellPrimary: true)
    default: break
    }
  }

  // MARK: Ends

  /// Primary: asks the secondary to let go of the pair. Until it has, it might still merge it: nothing
  /// may leave that it does not have.
  mutating func endReplication(_ place: Int, because reason: UnreplicateReason, now: Instant) {
    guard entries[place]?.phase == .replicating || entries[place]?.phase == .starting else { return }
    // Before the snapshot has gone out the secondary has nothing that it could merge.
    if entries[place]!.handshakePosition == nil { return refuse(place, reason) }
    // It ends when the other RE has said that its pair is void.
    if isSevered(place) { return }
    entries[place]!.phase = .ending(reason)
    if case .up(_, let version) = linkState, speaksForConnections {
      var writer = ByteWriter(.ihaEnd, to: entries[place]!.peer!)
      if version >= LinkVersion.endsNamePrimary { writer.handle(entries[place]!.handle) }
      writer.integer(reason.rawValue)
      append(writer.record(), layer: .iha, place: place, now: now)
    }
    if planted(.finishedBeforeTheSecondary), reason != .closed { finishReplication(place, because: reason) }
  }

  /// The secondary has let go: the socket goes on alone.
  mutating func finishReplication(_ place: Int, because reason: UnreplicateReason) {
    let handle = entries[place]!.handle
    let flow = entries[place]!.flow!
    flows[flow] = nil
    actions.append(.unsteer(flow))
    entries[place]!.phase = .unreplicated(reason)
    statistics.socketsUnreplicated += 1
    sayCleanedUp(place)
    handOverRecords(place)
    actions.append(.unreplicated(handle, reason))
    goOnAlone(place)
    if planted(.waitingFramesLeak) { _ = takeWaiting(place) }
    endWaiting(place, entries[place]!.pathAfterEnd)
    pump()
  }

  /// Primary: the handshake has come to nothing.
  mutating func refuse(_ place: Int, _ reason: UnreplicateReason) {
    let flow = entries[place]!.flow!
    flows[flow] = nil
    actions.append(.unsteer(flow))
    entries[place]!.phase = .unreplicated(reason)
    actions.append(.refused(entries[place]!.handle, reason))
    // What is held of it as the unconnected socket's goes first: its datagrams count as that one's again.
    if entries[place]!.steersBehind != nil { return endWaiting(place, .replayed) }
    goOnAlone(place)
    endWaiting(place, entries[place]!.pathAfterEnd)
  }

  /// Secondary: the pair is over; it will never be merged.
  mutating func letGo(_ place: Int, because reason: UnreplicateReason, tellPrimary: Bool) {
    let handle = entries[place]!.handle
    if tellPrimary, case .up = linkState {
      var writer = ByteWriter(.ihaReject, to: entries[place]!.peer!)
      writer.integer(reason.rawValue)
      actions.append(.send(writer.record()))
    }
    if let flow = entries[place]!.flow, flows[flow] == place {
      flows[flow] = nil
      actions.append(.unsteer(flow))
    }
    let snoop = entries[place]!.snoop
    entries[place]!.snoop = nil
    entries[place]!.phase = .unreplicated(reason)
    statistics.socketsUnreplicated += 1
    sayCleanedUp(place)
    // A stream that came to its end in order has been reported already.
    if snoop?.rcvEnded != true { actions.append(.endSnoop(handle, .rcv)) }
    if snoop?.sndEnded != true { actions.append(.endSnoop(handle, .snd)) }
    actions.append(.unreplicated(handle, reason))
    endWaiting(place, .discarded)
  }

  mutating func sayInitialized(_ place: Int) {
    let entry = entries[place]!
    for layer in entry.layers {
      say(.info, "\(layer) per-socket state initialized for socket \(entry.handle)")
    }
    say(.info, "IHA handshake for socket \(entry.handle) done")
  }

  mutating func sayCleanedUp(_ place: Int) {
    let entry = entries[place]!
    for layer in entry.layers {
      say(.info, "\(layer) per-socket state cleaned up for socket \(entry.handle)")
    }
  }

  mutating func remove(_ place: Int) {
    let handle = entries[place]!.handle
    assert(entries[place]!.waiting.isEmpty)
    if let flow = entries[place]!.flow, aloneFlows[flow] == place { aloneFlows[flow] = nil }
    entries[place] = nil
    do { try handles.free(handle) } catch { preconditionFailure("a handle in use is in the table") }
  }

  /// Whether the version of the link can speak of the socket of `flow`.
  func checkLinkCarries(_ flow: Flow, version: UInt16) throws(SocketError) {
    if flow.transport == .udp { try checkLinkCarriesDatagrams(version) }
    guard flow.instance == .main || version >= LinkVersion.namesInstances else {
      throw .engineTooOld(version: version, lacks: "routing instances")
    }
  }

  private func checkLinkCarriesDatagrams(_ version: UInt16) throws(SocketError) {
    guard version >= LinkVersion.hasDatagrams else {
      throw .engineTooOld(version: version, lacks: "UDP sockets")
    }
  }

  /// What can be known here of a handle of the other RE.
  private func checkIsOfOtherSide(_ handle: Handle) throws(SocketError) {
    guard handle.slot != configuration.slot else { throw .sameSide(handle) }
    // Slots are 0 and 1, and generations begin with 1.
    guard handle.slot <= 1, handle.generation != 0 else { throw .handle(.neverAllocated(handle)) }
  }

  func find(_ handle: Handle) throws(SocketError) -> Int {
    do { return try handles.place(of: handle) } catch { throw .handle(error) }
  }
}

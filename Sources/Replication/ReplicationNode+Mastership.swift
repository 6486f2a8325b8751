import DequeModule
import OrderedCollections
import Packet

// What a change of mastership means for sockets.
extension ReplicationNode {
  // MARK: What the engine reports

  public mutating func leaseGranted(_ succeeded: Bool, now: Instant) {
    obey(arbiter.leaseGranted(succeeded, now: now), now: now)
  }

  public mutating func leaseRenewed(_ succeeded: Bool, now: Instant) {
    obey(arbiter.leaseRenewed(succeeded, now: now), now: now)
  }

  public mutating func probeAnswered(now: Instant) { arbiter.probeAnswered(now: now) }

  public mutating func uplinkChanged(isRunning: Bool, now: Instant) {
    arbiter.uplinkChanged(isRunning: isRunning, now: now)
  }

  // MARK: What an operator asks for

  /// Makes this RE the primary, in order.
  public mutating func acquireMastership(now: Instant) throws(PairArbiter.RequestError) {
    obey(try arbiter.acquire(), now: now)
  }

  /// How long a new primary waits for its applications to merge, with whatever else wants its attention: handshakes, and
  /// another change of mastership. One that merges late, or not at all, keeps others waiting no longer.
  public static let mergePrecedence = Nanoseconds.seconds(1)

  /// Pairs of a new primary are all that is left of their connections, and are waiting to be merged.
  private func awaitsMerges(now: Instant) -> Bool {
    guard arbiter.phase == .primary, let tookOverAt, now - tookOverAt < Self.mergePrecedence else {
      return false
    }
    return entries.contains { $0?.phase == .snooping || $0?.phase == .merging }
  }

  /// Gives mastership to the other RE, in order; not while connections that have just come are yet to be merged, which
  /// nobody else has.
  ///
  /// What is held when the lease is given up is lost. TCP sends it again; datagrams that are in the log are let go first.
  public mutating func releaseMastership(now: Instant) throws(PairArbiter.RequestError) {
    guard drainingUntil == nil else { throw .busy(.handingOver) }
    guard !awaitsMerges(now: now) else { throw .busy(.takingOver) }
    guard holdsDatagrams else { return obey(try arbiter.release(now: now), now: now) }
    try arbiter.checkRelease(now: now)
    drainingUntil = now + configuration.timing.interval
  }

  /// Whether mastership is being handed over, or about to be, or not all is silent yet that was lost with it.
  public var isHandingOver: Bool {
    arbiter.phase == .handingOver || drainingUntil != nil || lostSockets != nil
  }

  /// Hands mastership over when no datagram is held any more, or has been for too long.
  mutating func endDraining(now: Instant) {
    guard let until = drainingUntil, now >= until || !holdsDatagrams else { return }
    drainingUntil = nil
    do throws(PairArbiter.RequestError) {
      obey(try arbiter.release(now: now), now: now)
    } catch {
      say(.info, "mastership: not handed over: \(error)")
      resumeDatagrams()
    }
  }

  // MARK: Merge

  /// New primary: begins to turn a snoop pair into a live socket. Until `merged`, packets wait.
  public mutating func merge(_ handle: Handle, now: Instant) throws(SocketError) -> MergePlan {
    let place = try find(handle)
    guard arbiter.phase == .primary else { throw .notPrimary }
    guard entries[place]!.phase == .snooping else {
      throw .wrongPhase(handle, entries[place]!.phase, wanted: "snooping")
    }
    let entry = entries[place]!
    entries[place]!.phase = .merging
    switch entry.transport! {
    case .tcp: return .stream(Self.streamPlan(entry, now: now))
    case .udp: return .datagrams(DatagramMergePlan(flow: entry.flow!, options: entry.options))
    }
  }

  private static func streamPlan(_ entry: SocketEntry, now: Instant) -> StreamMergePlan {
    var snoop = entry.snoop!
    var block: ControlBlock = entry.block
    if planted(.unacknowledgedSkippedAtMerge) { snoop.unacknowledged.acknowledge(upTo: block.sendNext) }
    // Whatever was sent was within the peer's window, which may have closed since behind the last byte. The kernel
    // must be able to say it all again, a FIN too: it would take an acknowledgement of the FIN for one of the future.
    let limit = planted(.unsentCountsAsSent) ? snoop.unacknowledged.end : block.sendNext
    let sentCount = max(0, min(limit - snoop.unacknowledged.start, snoop.unacknowledged.count))
    let hasSentFIN = snoop.finSent != nil && block.sendNext > snoop.unacknowledged.end
    block.sendWindow = max(block.sendWindow, UInt32(sentCount + (hasSentFIN ? 1 : 0)))
    block.maximumSendWindow = max(block.maximumSendWindow, block.sendWindow)

    // The window's right edge must not move back, and cannot be further off than a window field can say, which
    // counts in units and from behind a FIN.
    let edge = planted(.windowEdgeBackAtMerge) ? block.advertisedEdge : block.receiveEdge
    let unit = 1 << Int(block.negotiated.receiveWindowScale ?? 0)
    let finCount = snoop.reassembly.isComplete ? 1 : 0
    let field = min(max(edge - snoop.reassembly.acknowledgeable, 0) + unit - 1, 65_535 * unit) / unit
    let window = field * unit + finCount
    // The primary's clock went on after the last value heard of; what it sent meanwhile must not be ahead
    // of what this RE sends, or the peer would take it for an old duplicate (RFC 7323, section 5).
    let elapsed = UInt32(truncatingIfNeeded: (now - snoop.timestampHeard).milliseconds)
    let advance = planted(.clockNotAdvancedAtMerge) ? 0 : elapsed &+ timestampAllowance
    return StreamMergePlan(
      flow: entry.flow!, block: block, sendUnacknowledged: snoop.unacknowledged.start,
      sendQueue: snoop.unacknowledged.bytes, sentCount: sentCount, receiveNext: snoop.reassembly.next,
      receiveWindow: UInt32(window), timestamp: block.timestampSent &+ advance,
      finSent: snoop.finSent != nil && !planted(.finForgottenAtMerge),
      finReceived: snoop.reassembly.isComplete, options: entry.options)
  }

  /// Milliseconds between the old primary's last timestamp and the first of the new one, beyond the time
  /// that has passed: covers what a record may have spent on its way.
  static let timestampAllowance: UInt32 = 500

  /// The socket lives (or could not be made): packets that waited go to the kernel, and it is an
  /// ordinary socket from now on. The handle is gone.
  public mutating func merged(_ handle: Handle, succeeded: Bool) {
    guard let place = try? find(handle), entries[place]!.phase == .merging else { return }
    let flow = entries[place]!.flow!
    flows[flow] = nil
    actions.append(.unsteer(flow))
    sayCleanedUp(place)
    if succeeded { statistics.socketsMerged += 1 }
    endWaiting(place, .replayed)
    remove(place)
  }

  // MARK: Carrying out what the arbiter decides

  mutating func obey(_ outputs: [PairArbiter.Output], now: Instant) {
    for output in outputs {
      switch output {
      case .grantLease(let duration, let limit):
        // The fence is about to open: what was lost with mastership before must not be heard.
        if !planted(.lostSocketsOutliveFence) { endLostSockets(atMost: .max) }
        actions.append(.grantLease(duration, notAfter: limit))
      case .renewLease(let duration): actions.append(.renewLease(duration))
      case .revokeLease: actions.append(.revokeLease)
      case .sendKeepalives:
        let keepalive = keepalive(now: now)
        if case .up = linkState { actions.append(.send(keepalive.record())) }
        actions.append(.sendOnUplink(keepalive))
      case .probe: actions.append(.probe)
      case .becamePrimary(let pairsAreValid):
        tookOverAt = now
        if !pairsAreValid { voidPairs(tellPrimary: false) }
        takeBack(now: now)
        actions.append(.takeAddresses)
      case .becameSecondary:
        loseAll()
        actions.append(.dropAddresses)
      case .handOver(let term, let echo): handOver(term: term, echo: echo, now: now)
      case .sendGrant(let term, let echo):
        var writer = ByteWriter(.mastershipGrant)
        writer.integer(term)
        writer.integer(echo)
        actions.append(.send(writer.record()))
      case .sendRequest: actions.append(.send(ByteWriter(.mastershipRequest).record()))
      case .closeLink(let reason): closeLink(reason)
      case .voidPairs: voidPairs(tellPrimary: true)
      case .peerPairsAreVoid: releaseSevered()
      case .connectionsMayHaveMoved: silenceReplicated()
      case .log(let text): say(.info, "mastership: \(text)")
      }
    }
    notePhase()
    if outputs.contains(.becameSecondary) { endLostSockets(atMost: configuration.lostSocketsTurn) }
    noteStandby()
  }

  private mutating func notePhase() {
    guard arbiter.phase != reportedPhase else { return }
    if reportedPhase == .takingOver, arbiter.phase != .primary { discardWaitingForTakeover() }
    reportedPhase = arbiter.phase
    say(.info, "mastership: \(arbiter.phase), term \(arbiter.term)")
    endRequests(.notPrimary)
    actions.append(.phaseChanged(arbiter.phase))
    guard releaseIsDue else { return }
    releaseIsDue = false
    releaseSevered()
  }

  /// Mastership was not to be had: the packets that came for sockets of this RE are the other one's.
  private mutating func discardWaitingForTakeover() {
    for place in entries.indices where entries[place]?.phase == .snooping { endWaiting(place, .discarded) }
  }

  mutating func noteStandby() {
    defer { noteServices() }
    guard arbiter.standbyIsReady != standbyWasReady else { return }
    standbyWasReady = arbiter.standbyIsReady
    actions.append(.standbyChanged(standbyWasReady))
  }

  /// Secondary: whatever the primary does from now on, these pairs do not show it.
  ///
  /// - Parameter tellPrimary: should the link still be up, which may have lost nothing but time.
  mutating func voidPairs(tellPrimary: Bool) {
    guard arbiter.phase != .primary || !pairsMayBeMerged else { return }
    // On a link that lives new pairs may follow, which this word must never be taken to speak of.
    if case .up = linkState {} else { voidedSession = peerSession }
    for place in entries.indices where entries[place]?.isFollowing == true {
      letGo(place, because: .linkLost, tellPrimary: tellPrimary)
    }
  }

  /// Whether this RE took over and applications are about to merge.
  private var pairsMayBeMerged: Bool { reportedPhase == .primary }

  /// Primary: the secondary is no longer able to merge; sockets go on alone.
  mutating func releaseSevered() {
    guard arbiter.phase == .primary else {
      releaseIsDue = arbiter.phase == .suspended
      return
    }
    for place in entries.indices {
      switch entries[place]?.phase {
      case .replicating: finishReplication(place, because: .linkLost)
      case .ending(let reason): finishReplication(place, because: reason)
      default: break
      }
    }
    forgetLostRecords()
  }

  /// Nobody waits any more for what was on its way when the link was lost.
  private mutating func forgetLostRecords() {
    if case .up = linkState { return }
    log.linkLost()
  }

  /// Old primary: falls silent, and says so behind everything it has said before. Its connections stay until
  /// the other RE is known to be primary: that may never have got the word.
  private mutating func handOver(term: UInt64, echo: Int64, now: Instant) {
    sendDirtyBlocks(now: now)
    if !planted(.leaseOutlivesHandover) { actions.append(.revokeLease) }
    endMirroring()
    for place in entries.indices {
      if let flow = entries[place]?.flow, flows[flow] == place { forwards[flow] = now + .seconds(2) }
    }
    var writer = ByteWriter(.mastershipHandover)
    writer.integer(term)
    writer.integer(echo)
    actions.append(.send(writer.record()))
  }

  /// Primary again, after it had handed mastership over and nobody took it: its connections go on. The other
  /// RE must not merge its pairs any more.
  private mutating func takeBack(now: Instant) {
    for place in entries.indices {
      switch entries[place]?.phase {
      case .starting: refuse(place, .handoverFailed)
      case .replicating: takeBack(place, because: .handoverFailed, now: now)
      case .ending(let reason): takeBack(place, because: reason, now: now)
      default: break
      }
      // What was not written since mastership was handed over.
      if unwrittenRecord(place) != nil { actions.append(.writeRecords(entries[place]!.handle)) }
    }
    endForwards(where: { _ in true })
  }

  private mutating func takeBack(_ place: Int, because reason: UnreplicateReason, now: Instant) {
    if case .up = linkState, !isSevered(place) {
      entries[place]!.phase = .replicating
      endReplication(place, because: reason, now: now)
    } else {
      finishReplication(place, because: reason)
    }
  }

  // MARK: What is lost with mastership

  /// A socket that the other RE has, or may have.
  struct LostSocket {
    var handle: Handle
    /// What its application is told when it is silent.
    var news: News?

    enum News {
      case refused, unreplicated
    }
  }

  /// Sockets of a former primary die without a word, in turns: the fence keeps whatever they say from the wire. Steering
  /// stays, so that what still arrives for them does not reach a kernel that would answer with a reset.
  private mutating func loseAll() {
    aloneFlows = [:]
    var lost = lostSockets ?? []
    for case .some(let entry) in entries {
      if case .unreplicated = entry.phase { lost.append(LostSocket(handle: entry.handle)) }
    }
    lost += loseReplicated()
    lostSockets = lost
  }

  /// Silences so many of the sockets that were lost, and behind the last one whatever else is connected.
  mutating func endLostSockets(atMost limit: Int) {
    guard lostSockets != nil else { return }
    for _ in 0..<limit {
      guard let socket = lostSockets?.popFirst() else { break }
      silence(socket)
    }
    guard lostSockets?.isEmpty == true else { return }
    lostSockets = nil
    actions.append(.endConnections)
  }

  private mutating func silence(_ socket: LostSocket) {
    actions.append(.silence(socket.handle))
    switch socket.news {
    case .refused: actions.append(.refused(socket.handle, .mastershipLost))
    case .unreplicated: actions.append(.unreplicated(socket.handle, .mastershipLost))
    case nil: break
    }
  }

  /// The connections that the other RE has, or may have had, while this one goes on.
  private mutating func silenceReplicated() {
    for socket in loseReplicated() { silence(socket) }
  }

  /// Nothing more is said of the connections that the other RE has, or may have had.
  ///
  /// - Returns: what is to be silenced.
  private mutating func loseReplicated() -> [LostSocket] {
    var lost: [LostSocket] = []
    endMirroring()
    for place in entries.indices {
      guard let entry = entries[place] else { continue }
      switch entry.phase {
      case .starting, .replicating, .ending:
        let handle = entry.handle
        let flow = entry.flow!
        flows[flow] = nil
        if forwards[flow] == nil { actions.append(.unsteer(flow)) }
        let wasStarting = entry.phase == .starting
        entries[place]!.phase = .unreplicated(.mastershipLost)
        endWaiting(place, .discarded)
        if !wasStarting {
          statistics.socketsUnreplicated += 1
          sayCleanedUp(place)
          if entries[place]!.records != nil { actions.append(.recordsEnded(handle, nil)) }
          entries[place]!.records = nil
        }
        lost.append(LostSocket(handle: handle, news: wasStarting ? .refused : .unreplicated))
      case .allocated, .attached, .receiving, .snooping, .merging, .unreplicated: break
      }
    }
    pump()
    forgetLostRecords()
    return lost
  }
}

/// What an RE is, as it tells the other.
public enum MastershipPhase: UInt8, Sendable, Hashable, CaseIterable, CustomStringConvertible {
  /// Just started: knows nothing of the other yet.
  case starting = 1
  case secondary
  /// Has decided to become primary and waits for its kernel to confirm the lease.
  case takingOver
  case primary
  /// Was primary until its lease ran out: silent, and waits to learn whether anybody took over.
  case suspended
  /// Has given mastership away in order and waits for the other to confirm.
  case handingOver

  public var description: String {
    switch self {
    case .starting: "starting"
    case .secondary: "secondary"
    case .takingOver: "taking over"
    case .primary: "primary"
    case .suspended: "suspended"
    case .handingOver: "handing over"
    }
  }
}

/// How long the lease in this RE's kernel lasts.
public enum LeaseState: Sendable, Hashable {
  /// Nothing of a replicated address may leave.
  case none
  /// Until it is no longer renewed.
  case timed
  /// No other RE could take over, so it does not run out.
  case endless
}

/// The times that the `pair` arbiter works with; all follow from `keepalive` in the configuration.
public struct PairTiming: Sendable, Hashable {
  /// Between two keepalives on the same path.
  public let interval: Nanoseconds
  /// Silence after which the other RE counts as lost.
  public let detection: Nanoseconds
  /// How long a timed lease lasts, counted from the keepalive that went before it.
  ///
  /// Half the detection time: even if a primary sleeps at the worst moment, between the check of its
  /// clock and the renewal that the kernel accepts because the old lease is still alive, the renewed one
  /// has ended when the other RE may take over.
  public let lease: Nanoseconds
  /// How long the secondary may use its snoop pairs for a takeover, counted from the last keepalive of its
  /// own that the primary is known to have received.
  public let license: Nanoseconds
  /// How long a primary that lost the link holds back what the secondary lacks, counted from the secondary's last
  /// keepalive: `license`, by a clock that may run faster than the secondary's.
  public let severance: Nanoseconds
  /// How long a probe for a replicated address waits for its answer.
  public let probeWait = Nanoseconds.milliseconds(20)
  /// Allowance for timers, above the lease.
  public let margin = Nanoseconds.milliseconds(15)
  /// How long a new link waits for the other RE to greet.
  public let greeting: Nanoseconds
  /// How long a starting RE waits for the other one.
  public let startupGrace: Nanoseconds
  /// Between two attempts to connect the link: short enough that a link that can be had is there again before
  /// silence tells anything.
  public let reconnection: Nanoseconds

  /// A shorter detection time leaves no room for a lease that is renewed by a timer of 10 ms, and for `margin`.
  public static let shortestDetection = Nanoseconds.milliseconds(80)

  public init(interval: Nanoseconds, misses: Int) {
    self.interval = interval / 2
    detection = interval * Int64(misses)
    lease = detection / 2
    license = detection * 2
    severance = license + license / 16
    greeting = detection * 3
    startupGrace = max(.seconds(1), detection * 5)
    reconnection = min(.milliseconds(100), interval)
  }
}

/// Who is entitled to mastership, for two REs that have only each other: the `pair` arbiter.
///
/// Responsible for the decision alone. It does not touch leases, addresses or sockets: it returns what is
/// to be done, and is told what became of it. It relies on three facts: clocks of both REs run at nearly
/// the same rate; a lease ends in the kernel even if its engine does not run; what an RE says in a
/// keepalive was true when it sent it.
///
/// Two masters are impossible as long as one of the two paths between the REs (the link, the uplinks)
/// works, or the primary has stopped for any reason. If both paths are cut while both REs live and each
/// still reaches peers, both will be master: two machines alone cannot tell this from the loss of the
/// other.
public struct PairArbiter {
  public enum Output: Hashable, Sendable {
    /// Put the lease in force, replacing any. Answer with `leaseGranted`.
    /// Not after the moment given: this RE may have slept since it decided, and somebody else taken over.
    case grantLease(Nanoseconds, notAfter: Instant)
    /// Prolong the lease, `nil` for ever, only if it is still in force. Answer with `leaseRenewed`.
    case renewLease(Nanoseconds?)
    case revokeLease
    /// Send `keepalive` on both paths.
    case sendKeepalives
    /// Ask the uplink who answers for the replicated addresses.
    case probe
    /// This RE is the primary now. `pairsAreValid`: the snoop pairs may be merged.
    case becamePrimary(pairsAreValid: Bool)
    /// This RE is no longer the primary, or never was: it must not answer for the addresses, and sockets
    /// that it may still have on them must die silently.
    case becameSecondary
    /// Give mastership to the other RE: let nothing out any more, then send the handover as the last word.
    /// Connections stay until `becameSecondary`, or go on with `becamePrimary` if nobody took them.
    case handOver(term: UInt64, echo: Int64)
    /// To the other RE, on the link.
    case sendGrant(term: UInt64, echo: Int64)
    case sendRequest
    case closeLink(String)
    /// The primary is alive, or too much time has passed: the snoop pairs must never be merged.
    case voidPairs
    /// The other RE cannot or will not merge its pairs any more: sockets may go on alone.
    case peerPairsAreVoid
    /// This RE was without its lease for a while, and nobody can say whether the other RE took over and is gone
    /// again: what was replicated must not go on here.
    case connectionsMayHaveMoved
    case log(String)
  }

  /// Why a request of an operator cannot be met.
  public enum RequestError: Error, Hashable, Sendable, CustomStringConvertible {
    case alreadyPrimary
    case notPrimary
    case noSecondary
    case busy(MastershipPhase)

    public var description: String {
      switch self {
      case .alreadyPrimary: "this RE is the primary already"
      case .notPrimary: "this RE is not the primary"
      case .noSecondary: "the other RE is not there to take mastership"
      case .busy(let phase): "mastership is changing already (\(phase))"
      }
    }
  }

  /// What is known of the other RE.
  private struct Peer {
    var phase: MastershipPhase
    var term: UInt64
    var priority: UInt16
    var uplinkIsRunning: Bool
    /// Should it have a lease, that ends by itself.
    var leaseIsTimed: Bool
  }

  /// A question for the replicated addresses that runs until the suspicion ends.
  private struct Probing {
    var first: Instant
    var last: Instant
    var answered: Instant?
  }

  public let slot: UInt8
  public let priority: UInt16
  public let timing: PairTiming

  public private(set) var phase = MastershipPhase.starting
  public private(set) var lease = LeaseState.none
  public private(set) var term: UInt64 = 0
  public private(set) var uplinkIsRunning = true

  private var phaseSince: Instant
  public private(set) var linkIsUp = false
  /// Whether the link ended by a word or a lost carrier, not by silence alone.
  private var linkLossIsEvident = false
  private var peer: Peer?
  private var heardOnLink: Instant?
  /// When anything last came in on the link: a keepalive may wait behind megabytes of records.
  private var linkMovedAt: Instant?
  private var heardOnUplink: Instant?
  /// Silence is not counted before this moment: this RE was asleep, or had no reason to listen.
  private var listeningSince: Instant
  private var lastTick: Instant
  private var lastKeepalives: Instant?
  /// `sentAt` of this RE's last keepalive.
  private var lastSentAt: Int64 = 0
  /// `sentAt` of the other RE's last keepalive: on the link, and on whatever path.
  private var peerSentAt = Int64.min
  private var peerSentAtAnywhere = Int64.min
  /// Which run of its engine said that: another one may have another clock.
  private var latestIncarnation: UInt64 = 0
  /// By our clock: what the other RE last said was true then or later, since it echoed what we sent then.
  private var peerWasThere: Instant?
  /// By our clock: when `uplinkIsRunning` changed last.
  private var uplinkChangedAt: Instant?
  /// By our clock: when we sent the last keepalive that the primary is known to have had.
  private var licensedFrom: Instant?
  /// The primary's pairs at the other RE may still be merged until then.
  private var severedUntil: Instant?
  private var probing: Probing?
  private var takeoverDecided: Instant?
  private var takeoverIsPlanned = false
  /// The other RE, which might have taken over before, has said that it did not.
  private var takeoverIsCertain = false
  /// What the lease will be when the kernel has confirmed the last renewal.
  private var requestedLease = LeaseState.none
  /// `sentAt` of the first claim of mastership that did not look fresh, while this RE is primary.
  private var staleClaimSentAt: Int64?
  /// When the last renewal was asked for, and the last that succeeded.
  private var renewalAskedAt: Instant?
  private var renewedAt: Instant?
  /// Keepalives no longer promise that the lease ends.
  private var endlessIsAnnounced = false
  /// When the lease was last asked for that another RE has granted.
  private var grantDecided: Instant?
  /// This RE has handed mastership over, and keeps its connections until it hears that somebody took it.
  private var keepsConnections = false
  /// Which run of the other RE's engine may have taken over since this RE last held its lease; `nil` while it
  /// holds it, or never did.
  private var possibleSuccessor: UInt64?

  public init(slot: UInt8, priority: UInt16, timing: PairTiming, now: Instant) {
    self.slot = slot
    self.priority = priority
    self.timing = timing
    phaseSince = now
    listeningSince = now
    lastTick = now
  }

  /// The other RE's phase as it last told on the link; `nil` before it has.
  public var peerPhase: MastershipPhase? { peer?.phase }

  /// Whether the loss of this RE would be answered by a takeover.
  public var standbyIsReady: Bool { phase == .primary && linkIsUp && peer?.phase == .secondary }

  // MARK: Events

  /// Whether the uplink has a carrier, as the kernel says.
  public mutating func uplinkChanged(isRunning: Bool, now: Instant) {
    guard isRunning != uplinkIsRunning else { return }
    uplinkIsRunning = isRunning
    uplinkChangedAt = now
  }

  /// Bytes came in on the link, whatever they say.
  public mutating func linkMoved(now: Instant) { linkMovedAt = now }

  /// - Parameter primaryRestarted: the pairs of the former link are good for a takeover, which comes next.
  public mutating func linkCameUp(primaryRestarted: Bool, now: Instant) {
    linkIsUp = true
    linkLossIsEvident = false
    heardOnLink = now
    linkMovedAt = now
    severedUntil = nil
    peerSentAt = .min
    if !primaryRestarted { licensedFrom = nil }
  }

  public mutating func linkWentDown(_ ending: LinkEnding, now: Instant) -> [Output] {
    guard linkIsUp else {
      linkLossIsEvident = linkLossIsEvident || ending.isEvident
      return []
    }
    linkIsUp = false
    linkLossIsEvident = ending.isEvident
    guard phase == .primary else { return [] }
    if ending == .endOfStream, leaseIsCertain(now: now) { return [.peerPairsAreVoid] }
    severedUntil = (heardOnLink ?? now) + timing.severance
    return []
  }

  /// Whether the lease is in force at this moment, so that nobody can have taken over. It may have run out
  /// unnoticed while this RE was asleep.
  private func leaseIsCertain(now: Instant) -> Bool {
    switch lease {
    case .none: false
    case .timed: renewedAt.map { now - $0 < timing.lease } ?? false
    case .endless: true
    }
  }

  /// A keepalive came in, on the link or on the uplink.
  public mutating func received(_ keepalive: Keepalive, onLink: Bool, now: Instant) -> [Output] {
    guard keepalive.slot != slot else { return [] }
    if phase == .primary, !leaseIsCertain(now: now) {
      // Asleep for too long, and not noticed yet. Whoever spoke meanwhile may have succeeded this RE.
      let outputs = [.revokeLease] + loseLease(now: now)
      return outputs + received(keepalive, onLink: onLink, now: now)
    }
    // The two paths are not equally fast: what was said before the last that was heard is no news of the other
    // RE, though of the path, and of what it knew of this one.
    let incarnation = Hello.incarnation(of: keepalive.session)
    let isLate = incarnation == latestIncarnation && keepalive.sentAt < peerSentAtAnywhere
    if onLink {
      heardOnLink = now
      peerSentAt = keepalive.sentAt
    } else {
      heardOnUplink = now
    }
    if isLate {
      noteLicense(keepalive, onLink: onLink)
      return []
    }
    latestIncarnation = incarnation
    if onLink || peer != nil {
      // A suspended RE has no lease. What it may have next is what the answer on the link grants it, which is timed.
      let isGranted = keepalive.phase == .suspended && keepalive.sentAt == peerSentAt
      peer = Peer(
        phase: keepalive.phase, term: keepalive.term, priority: keepalive.priority,
        uplinkIsRunning: keepalive.uplinkIsRunning, leaseIsTimed: keepalive.leaseIsTimed || isGranted)
    }
    peerSentAtAnywhere = keepalive.sentAt
    if keepalive.echoAnywhere != .min { peerWasThere = Instant(nanoseconds: keepalive.echoAnywhere) }
    if phase != .primary, phase != .suspended { term = max(term, keepalive.term) }

    switch (phase, keepalive.phase) {
    case (.suspended, .primary)
    where incarnation == possibleSuccessor && keepalive.term <= term
      && keepalive.echoAnywhere < phaseSince.nanoseconds:
      // Said long ago, and read late: what the other RE was before this one succeeded it.
      break

    case (.primary, .primary) where !isFresh(keepalive, now: now): break

    case (.primary, .primary), (.suspended, .primary), (.takingOver, .primary):
      let wins =
        (keepalive.term, keepalive.priority, 1 - keepalive.slot) > (
          phase == .primary ? term : 0, priority, 1 - slot
        )
      if wins { return stepDown(term: keepalive.term, now: now, because: "the other RE is primary") }

    case (.handingOver, .primary) where keepalive.term >= term, (.starting, .primary):
      return stepDown(term: keepalive.term, now: now, because: "the other RE is primary")

    case (.secondary, .primary) where keepsConnections:
      return stepDown(term: keepalive.term, now: now, because: "the other RE is primary")

    case (.suspended, .suspended)
    where (keepalive.term, keepalive.priority, 1 - keepalive.slot) > (term, priority, 1 - slot):
      // Both wait to learn whether anybody took over: the other one did, after this one.
      return stepDown(term: keepalive.term, now: now, because: "the other RE was primary last")

    case (.secondary, .primary):
      noteLicense(keepalive, onLink: onLink)
      // Generated after the primary gave the link up: it is alive and will go on without us.
      if !onLink, !keepalive.linkIsUp, !linkIsUp { return [.voidPairs] }

    case (.secondary, .suspended), (.starting, .suspended):
      var outputs: [Output] = []
      if phase == .starting {
        outputs += stepDown(term: keepalive.term, now: now, because: "the other RE was primary")
      }
      if onLink { outputs.append(.sendGrant(term: keepalive.term, echo: keepalive.sentAt)) }
      return outputs

    case (.suspended, .secondary) where !onLink && keepalive.echoAnywhere != .min:
      // The link is down: what a grant would say follows from the keepalive itself.
      return granted(term: keepalive.term, echo: keepalive.echoAnywhere, now: now)

    default: break
    }
    return []
  }

  /// Whether a claim of mastership is one of the present: an RE that slept while it spoke says what was true before.
  /// It shows that it has heard this RE lately; or it goes on to claim, for one that is deaf.
  private mutating func isFresh(_ keepalive: Keepalive, now: Instant) -> Bool {
    let echo = Instant(nanoseconds: keepalive.echoAnywhere)
    if keepalive.echoAnywhere != .min, now >= echo, now - echo < timing.detection {
      staleClaimSentAt = nil
      return true
    }
    let first = staleClaimSentAt ?? keepalive.sentAt
    staleClaimSentAt = first
    return keepalive.sentAt - first >= timing.detection.count
  }

  private mutating func noteLicense(_ keepalive: Keepalive, onLink: Bool) {
    guard phase == .secondary, keepalive.phase == .primary, onLink, keepalive.leaseIsTimed,
      keepalive.echo != .min
    else { return }
    licensedFrom = Instant(nanoseconds: keepalive.echo)
  }

  /// The other RE says that the pairs of the link that we called `session` are void.
  public mutating func peerVoidedPairs() -> [Output] {
    guard severedUntil != nil else { return [] }
    severedUntil = nil
    return [.peerPairsAreVoid]
  }

  /// Somebody answered a probe for a replicated address.
  public mutating func probeAnswered(now: Instant) { probing?.answered = now }

  public mutating func leaseGranted(_ succeeded: Bool, now: Instant) -> [Output] {
    guard phase == .takingOver else {
      guard phase == .primary else { return succeeded ? [.revokeLease] : [] }
      if !succeeded { return loseLease(now: now) }
      // This RE may have slept since it was granted the lease, and somebody else taken over.
      if let decided = grantDecided, now - decided >= timing.margin {
        return [.revokeLease] + loseLease(now: now)
      }
      grantDecided = nil
      return []
    }
    guard let decided = takeoverDecided else { return [] }
    // This RE may have slept since it decided; nothing has left it yet.
    guard succeeded, now - decided < timing.lease / 2 else {
      enter(.secondary, now: now)
      listeningSince = now
      return [.revokeLease] + (keepsConnections ? [] : [.becameSecondary])
        + [.log("takeover given up: the lease was not there in time")]
    }
    let licensed = licensedFrom.map { now - $0 < timing.license } ?? false
    let valid = takeoverIsPlanned || licensed
    let mayHaveMoved = possibleSuccessor != nil && !takeoverIsCertain
    possibleSuccessor = nil
    lease = .timed
    renewedAt = takeoverDecided
    severedUntil = nil
    keepsConnections = false
    enter(.primary, now: now)
    return (mayHaveMoved ? [.connectionsMayHaveMoved] : [])
      + [.becamePrimary(pairsAreValid: valid), .sendKeepalives]
  }

  public mutating func leaseRenewed(_ succeeded: Bool, now: Instant) -> [Output] {
    guard phase == .primary else { return [] }
    guard succeeded else {
      return planted(.leaseRevivedAfterSleep)
        ? [.grantLease(timing.lease, notAfter: now + timing.lease)] : loseLease(now: now)
    }
    lease = requestedLease
    renewedAt = renewalAskedAt
    return []
  }

  public mutating func granted(term: UInt64, echo: Int64, now: Instant) -> [Output] {
    guard phase == .suspended, term == self.term, echo <= now.nanoseconds else { return [] }
    let age = now - Instant(nanoseconds: echo)
    guard age >= Nanoseconds(0), age < timing.lease - timing.margin else { return [] }
    let left = timing.lease - age
    // The same engine says that it is no primary, and knows of no later one: nobody has taken over.
    let isCertain = possibleSuccessor == latestIncarnation
    possibleSuccessor = nil
    lease = .timed
    renewedAt = Instant(nanoseconds: echo - timing.margin.count)
    enter(.primary, now: now)
    grantDecided = now
    // What is left of this lease is short: the next tick renews it.
    lastKeepalives = nil
    return (isCertain ? [] : [.connectionsMayHaveMoved]) + [
      .grantLease(left - timing.margin, notAfter: now + timing.margin), .log("lease regained"),
    ]
  }

  /// The engine at the other end of a new link is not the one that was there before: that one is no more.
  public mutating func peerRestarted(now: Instant) -> [Output] {
    takeOver(planned: false, now: now, because: "the primary's engine has restarted")
  }

  /// Whether the snoop pairs would be good for a takeover: this RE follows a primary that, should it have
  /// failed, cannot have gone on without it yet.
  public func isLicensed(now: Instant) -> Bool {
    phase == .secondary && licensedFrom.map { now - $0 < timing.license } ?? false
  }

  /// The other RE has given mastership to this one.
  ///
  /// - Parameter echo: when we sent the last keepalive that the other RE had before it did. After
  ///   `license` from then on it may have taken mastership back.
  public mutating func handedOver(term: UInt64, echo: Int64, now: Instant) -> [Output] {
    guard phase == .secondary || phase == .starting else { return [] }
    guard echo != .min, now - Instant(nanoseconds: echo) < timing.license - timing.lease else {
      return [.log("the primary handed over too long ago")]
    }
    self.term = max(self.term, term - 1)
    return takeOver(planned: true, now: now, because: "the primary handed over")
  }

  public mutating func acquire() throws(RequestError) -> [Output] {
    switch phase {
    case .primary: throw .alreadyPrimary
    case .secondary:
      guard linkIsUp, peer?.phase == .primary else { throw .noSecondary }
      return [.sendRequest]
    case .starting, .takingOver, .suspended, .handingOver: throw .busy(phase)
    }
  }

  public mutating func release(now: Instant) throws(RequestError) -> [Output] {
    try checkRelease(now: now)
    return handOver(now: now)
  }

  /// Throws what `release` would.
  public func checkRelease(now: Instant) throws(RequestError) {
    switch phase {
    case .primary: guard secondaryIsThere(now: now) else { throw .noSecondary }
    case .secondary, .starting: throw .notPrimary
    case .takingOver, .suspended, .handingOver: throw .busy(phase)
    }
  }

  /// Whether mastership may be handed over: not to an RE that may just have been lost, from which connections might
  /// not come back.
  private func secondaryIsThere(now: Instant) -> Bool {
    linkIsUp && peer?.phase == .secondary && now - (linkMovedAt ?? listeningSince) < timing.interval * 3
  }

  /// What the next keepalive says.
  public mutating func keepalive(session: UInt64, voidedSession: UInt64, now: Instant) -> Keepalive {
    // A primary that has slept for too long is none any more, even before it has noticed.
    let phase = phase == .primary && !leaseIsCertain(now: now) ? .suspended : phase
    // Two of the same moment may say different things, and come in another order: the later one is to be known.
    lastSentAt = max(now.nanoseconds, lastSentAt + 1)
    return Keepalive(
      slot: slot, phase: phase, term: term, priority: claim, sentAt: lastSentAt, echo: peerSentAt,
      echoAnywhere: peerSentAtAnywhere,
      leaseIsTimed: lease == .timed && !endlessIsAnnounced, uplinkIsRunning: uplinkIsRunning,
      linkIsUp: linkIsUp, session: session,
      voidedSession: voidedSession)
  }

  /// What this RE brings to the question who begins: whoever has connections comes before any priority.
  private var claim: UInt16 { keepsConnections ? .max : priority }

  // MARK: Time

  /// To be called every few milliseconds.
  public mutating func tick(now: Instant) -> [Output] {
    var outputs: [Output] = []
    if now - lastTick > timing.detection / 2 {
      // Asleep, and so deaf: what was said meanwhile may still wait to be read. That the link is gone says
      // nothing about the other RE now: it may have lost patience with this one.
      listeningSince = now
      linkLossIsEvident = false
    }
    lastTick = now
    if phase == .primary, !leaseIsCertain(now: now) {
      outputs.append(.revokeLease)
      outputs += loseLease(now: now)
    }

    let keepalivesAreDue = lastKeepalives.map { now - $0 >= timing.interval } ?? true
    if keepalivesAreDue {
      lastKeepalives = now
      // First the keepalive, then the lease: whoever hears the last keepalive of this RE knows that its lease
      // ends no later than one lease time after it.
      outputs.append(.sendKeepalives)
      if phase == .primary { outputs += primaryTick(now: now) }
      if planted(.keepaliveAfterRenewal) { outputs.append(outputs.removeFirst()) }
    }
    if linkIsUp, now - max(linkMovedAt ?? listeningSince, listeningSince) >= timing.detection {
      outputs.append(.closeLink("nothing heard for \(timing.detection.milliseconds) ms"))
    }
    if let until = severedUntil, now >= until, leaseIsCertain(now: now) {
      severedUntil = nil
      outputs.append(.peerPairsAreVoid)
    }
    if let from = licensedFrom, now - from >= timing.license {
      licensedFrom = nil
      if phase == .secondary { outputs.append(.voidPairs) }
    }

    switch phase {
    case .primary, .takingOver: break
    case .secondary, .starting: outputs += waitingTick(now: now)
    case .suspended:
      // Twice the time: an RE that comes back from a sleep has just lost the link, and should it have been
      // succeeded, nothing but the uplink may tell it.
      if !linkIsUp { outputs += probeTick(now: now, patience: timing.detection * 2, leaseIsTimed: false) }
    case .handingOver:
      if now - phaseSince >= timing.license {
        // To become primary again is a takeover like any other.
        enter(.secondary, now: now)
        listeningSince = now
        outputs.append(.log("nobody took mastership over"))
      }
    }
    return outputs
  }

  private mutating func primaryTick(now: Instant) -> [Output] {
    if !uplinkIsRunning, secondaryIsThere(now: now), peer?.uplinkIsRunning == true {
      return [.log("uplink lost")] + handOver(now: now)
    }
    // Always only if the lease is still in force: this RE may have slept, and somebody else taken over.
    if linkIsUp || severedUntil != nil {
      endlessIsAnnounced = false
      return requestLease(.timed, now: now)
    }
    if lease == .endless { return [] }
    // From the next keepalive on nobody may count on the end of the lease; only then it may become endless.
    guard endlessIsAnnounced else {
      endlessIsAnnounced = true
      return requestLease(.timed, now: now)
    }
    return requestLease(.endless, now: now)
  }

  private mutating func requestLease(_ state: LeaseState, now: Instant) -> [Output] {
    requestedLease = state
    renewalAskedAt = now
    return [.renewLease(state == .endless ? nil : timing.lease)]
  }

  private mutating func waitingTick(now: Instant) -> [Output] {
    if let peer, peer.phase == .starting || peer.phase == .secondary,
      silence(onLinkOnly: linkIsUp, now: now) < timing.interval * 2
    {
      // Nobody is primary, and both know it: the preferred RE begins. Not on old news: a word that was read
      // late, or before this RE slept, was true when it was sent.
      guard let peerWasThere, now >= peerWasThere, now - peerWasThere < timing.detection else { return [] }
      // Who is preferred depends on the uplinks: as long as the other RE has not heard of a change here, it may be
      // about to begin itself.
      if let uplinkChangedAt, peerWasThere < uplinkChangedAt { return [] }
      let preferred = !peer.uplinkIsRunning || (claim, 1 - slot) > (peer.priority, slot)
      let patience = phase == .starting ? Nanoseconds(0) : timing.interval * 2
      if preferred, uplinkIsRunning, now - phaseSince >= patience {
        return takeOver(
          planned: false, isCertain: possibleSuccessor == latestIncarnation, now: now,
          because: "no RE is primary")
      }
      return []
    }
    let silent = silence(onLinkOnly: false, now: now)
    if phase == .starting {
      let beginning = timing.startupGrace - timing.detection
      guard !linkIsUp, now - phaseSince >= beginning else { return [] }
      return probeTick(now: now, patience: timing.detection, leaseIsTimed: false)
    }
    // A primary whose lease has no end might be silent towards us and still be on the wire; and one that was alone
    // for a while has made it so since it was last heard.
    let isRecent = peerWasThere.map { now >= $0 && now - $0 < timing.license } ?? false
    let trusted = peer?.leaseIsTimed == true && isRecent
    let patience =
      !trusted
      ? timing.detection * 10
      : !linkIsUp && linkLossIsEvident ? timing.lease + timing.margin : timing.detection
    guard silent >= min(patience, timing.detection) / 2 || planted(.silenceNotAwaited) else {
      probing = nil
      return []
    }
    return probeTick(now: now, patience: patience, leaseIsTimed: trusted)
  }

  /// Probes while there is suspicion, and takes over once silence has lasted for `patience` and nobody
  /// answers.
  ///
  /// - Parameter leaseIsTimed: the lease that there was has ended during the silence, and the probes only confirm it. If
  ///   not, that nobody answers is all that tells of the other RE: then it counts only if it lasts, since an uplink that
  ///   loses much, or a short stop of this machine, can swallow a few answers in a row.
  private mutating func probeTick(now: Instant, patience: Nanoseconds, leaseIsTimed: Bool) -> [Output] {
    guard uplinkIsRunning else {
      probing = nil
      return []
    }
    var outputs: [Output] = []
    if probing == nil || now - probing!.last >= timing.probeWait / 2 {
      probing = Probing(first: probing?.first ?? now, last: now, answered: probing?.answered)
      outputs.append(.probe)
    }
    guard let probing, silence(onLinkOnly: false, now: now) >= patience || planted(.silenceNotAwaited),
      now - probing.first >= (leaseIsTimed ? timing.probeWait : timing.detection),
      probing.answered.map({
        now - $0 >= (leaseIsTimed ? timing.probeWait * 3 : timing.detection) || planted(.probeAnswerIgnored)
      }) ?? true
    else { return outputs }
    return outputs
      + takeOver(
        planned: false, now: now, because: "the other RE is silent and nobody answers for the addresses")
  }

  private func silence(onLinkOnly: Bool, now: Instant) -> Nanoseconds {
    var heard = listeningSince
    if let heardOnLink { heard = max(heard, heardOnLink) }
    if !onLinkOnly, let heardOnUplink { heard = max(heard, heardOnUplink) }
    return now - heard
  }

  // MARK: Transitions

  private mutating func enter(_ phase: MastershipPhase, now: Instant) {
    self.phase = phase
    phaseSince = now
    probing = nil
    takeoverDecided = nil
    grantDecided = nil
    staleClaimSentAt = nil
    endlessIsAnnounced = false
  }

  private mutating func takeOver(
    planned: Bool, isCertain: Bool = false, now: Instant, because reason: String
  ) -> [Output] {
    enter(.takingOver, now: now)
    term = max(term, peer?.term ?? 0) + 1
    takeoverDecided = now
    takeoverIsPlanned = planned
    takeoverIsCertain = isCertain
    return [
      .log("taking over: \(reason)"), .grantLease(timing.lease, notAfter: now + timing.lease / 2),
    ]
  }

  private mutating func handOver(now: Instant) -> [Output] {
    enter(.handingOver, now: now)
    lease = .none
    severedUntil = nil
    keepsConnections = true
    possibleSuccessor = latestIncarnation
    return [.handOver(term: term + 1, echo: peerSentAt)]
  }

  private mutating func loseLease(now: Instant) -> [Output] {
    enter(.suspended, now: now)
    lease = .none
    severedUntil = nil
    possibleSuccessor = latestIncarnation
    listeningSince = now
    return [.sendKeepalives]
  }

  private mutating func stepDown(term: UInt64, now: Instant, because reason: String) -> [Output] {
    let wasSecondary = phase == .secondary && !keepsConnections
    keepsConnections = false
    possibleSuccessor = nil
    self.term = max(self.term, term)
    enter(.secondary, now: now)
    lease = .none
    severedUntil = nil
    licensedFrom = nil
    listeningSince = now
    return wasSecondary ? [] : [.log("secondary: \(reason)"), .revokeLease, .becameSecondary]
  }
}

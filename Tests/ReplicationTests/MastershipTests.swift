import Packet
import Testing

@testable import Replication

/// Mastership over schedules of trouble. `SimulatedPair` records a violation whenever both kernels hold a
/// lease at once.
@Suite struct MastershipTests {
  private func started() -> SimulatedPair {
    let pair = SimulatedPair()
    pair.start()
    return pair
  }

  private func phases(_ pair: SimulatedPair) -> [MastershipPhase] { pair.engines.map(\.node.arbiter.phase) }

  private func expectOnePrimary(_ pair: SimulatedPair, _ comment: Comment? = nil) {
    let primaries = pair.engines.filter {
      $0.isAlive && $0.node.arbiter.phase == .primary && $0.leaseIsInForce
    }
    #expect(primaries.count == 1, comment)
    #expect(primaries.first?.hasAddresses == true, comment)
    #expect(pair.violations.prefix(3) == [], comment)
  }

  // MARK: Startup

  @Test("The RE of the higher priority begins, whichever started first", arguments: [0, 1])
  func startup(first: Int) {
    let pair = SimulatedPair()
    pair.engines[1 - first].sleep()
    pair.advance(milliseconds: 600)
    pair.wake(1 - first)
    pair.openLink()
    pair.advance(milliseconds: 1_000)
    #expect(phases(pair) == [.primary, .secondary])
    expectOnePrimary(pair)
  }

  @Test func betweenEqualsTheLowerSlotBegins() {
    let pair = SimulatedPair(priorities: [100, 100])
    pair.openLink()
    pair.advance(milliseconds: 500)
    #expect(phases(pair) == [.primary, .secondary])
    expectOnePrimary(pair)
  }

  @Test(
    "An RE that is alone becomes primary after the grace time, and stays it when the other joins",
    arguments: [0, 1])
  func alone(slot: Int) {
    let pair = SimulatedPair()
    pair.engines[1 - slot].sleep()
    pair.advance(milliseconds: 900)
    #expect(phases(pair)[slot] == .starting)
    pair.advance(milliseconds: 2_000)
    #expect(phases(pair)[slot] == .primary)
    #expect(pair.engines[slot].lease == .endless)
    pair.wake(1 - slot)
    pair.openLink()
    pair.advance(milliseconds: 1_000)
    #expect(phases(pair)[slot] == .primary)
    #expect(phases(pair)[1 - slot] == .secondary)
    // Now somebody could take over.
    #expect(pair.engines[slot].lease != .endless)
    expectOnePrimary(pair)
  }

  @Test(
    "An RE whose uplink has come back does not begin before the other one knows: that may just have begun")
  func uplinkComesBack() {
    var lone = Lone()
    lone.arbiter.uplinkChanged(isRunning: false, now: lone.now)
    func begins(hearing echo: Instant) -> Bool {
      lone.hear(.secondary, term: 1, echo: echo)
      return lone.timeToTakeover(limit: .milliseconds(10)) != nil
    }
    let before = lone.now
    #expect(!begins(hearing: before))
    lone.arbiter.uplinkChanged(isRunning: true, now: lone.now)
    let after = lone.now
    #expect(!begins(hearing: before))
    #expect(begins(hearing: after))
  }

  // MARK: One arbiter alone

  /// An arbiter of slot 0 and what it hears of the other RE; its clock is moved by hand.
  private struct Lone {
    var now = Instant(nanoseconds: 1_000_000_000)
    var arbiter: PairArbiter
    let timing = PairTiming(interval: .milliseconds(100), misses: 3)

    init() {
      arbiter = PairArbiter(slot: 0, priority: 200, timing: timing, now: now)
      arbiter.linkCameUp(primaryRestarted: false, now: now)
    }

    mutating func hear(
      _ phase: MastershipPhase, term: UInt64, echo: Instant, onLink: Bool = true, leaseIsTimed: Bool = true
    ) {
      let keepalive = Keepalive(
        slot: 1, phase: phase, term: term, priority: 100, sentAt: now.nanoseconds, echo: echo.nanoseconds,
        echoAnywhere: echo.nanoseconds, leaseIsTimed: leaseIsTimed, uplinkIsRunning: true, linkIsUp: true,
        session: 5 &* Hello.sessionsPerIncarnation, voidedSession: 0)
      _ = arbiter.received(keepalive, onLink: onLink, now: now)
    }

    /// How long it takes until the arbiter asks for a lease; `nil`: longer than `limit`.
    mutating func timeToTakeover(limit: Nanoseconds) -> Nanoseconds? {
      let start = now
      while now - start < limit {
        now = now + .milliseconds(10)
        if arbiter.tick(now: now).contains(where: { if case .grantLease = $0 { true } else { false } }) {
          return now - start
        }
      }
      return nil
    }

    mutating func becomePrimary() {
      hear(.secondary, term: 1, echo: now)
      _ = timeToTakeover(limit: .seconds(1))
      _ = arbiter.leaseGranted(true, now: now)
    }
  }

  @Test("A primary that has overslept its lease does not claim mastership, whenever it is asked")
  func oversleptClaim() {
    var lone = Lone()
    lone.becomePrimary()
    #expect(lone.arbiter.keepalive(session: 1, voidedSession: 0, now: lone.now).phase == .primary)
    lone.now = lone.now + lone.timing.lease
    #expect(lone.arbiter.keepalive(session: 1, voidedSession: 0, now: lone.now).phase == .suspended)
    #expect(lone.arbiter.tick(now: lone.now).contains(.revokeLease))
    #expect(lone.arbiter.phase == .suspended)
  }

  @Test("An RE that was primary after the other one is not put off by what that one said before")
  func oldClaim() {
    var lone = Lone()
    lone.becomePrimary()
    let asPrimary = lone.now
    lone.now = lone.now + .milliseconds(200)
    _ = lone.arbiter.tick(now: lone.now)
    #expect(lone.arbiter.phase == .suspended)
    lone.now = lone.now + .milliseconds(10)
    lone.hear(.primary, term: 1, echo: asPrimary)
    #expect(lone.arbiter.phase == .suspended)
    // Said after it had heard of the suspension: it is primary indeed, whatever its term.
    lone.hear(.primary, term: 1, echo: lone.now)
    #expect(lone.arbiter.phase == .secondary)
  }

  @Test("Of two primaries the one of the lower term gives way, though not to a claim of long ago")
  func oldClaimOfAHigherTerm() {
    var lone = Lone()
    lone.becomePrimary()
    let long = Instant(nanoseconds: lone.now.nanoseconds - lone.timing.detection.count * 2)
    lone.hear(.primary, term: 9, echo: long)
    #expect(lone.arbiter.phase == .primary)
    var deaf = lone
    // It has heard of this one, and claims still.
    lone.hear(.primary, term: 9, echo: lone.now)
    #expect(lone.arbiter.phase == .secondary)
    // It hears nothing, and goes on claiming.
    for _ in 0..<6 {
      deaf.now = deaf.now + .milliseconds(50)
      _ = deaf.arbiter.tick(now: deaf.now)
      _ = deaf.arbiter.leaseRenewed(true, now: deaf.now)
      deaf.hear(.primary, term: 9, echo: long)
    }
    #expect(deaf.arbiter.phase == .secondary)
  }

  @Test("What was heard of the primary's lease before a long sleep is not trusted: it may have no end by now")
  func oldNewsOfALease() throws {
    for sleep in [Nanoseconds.milliseconds(0), .milliseconds(900)] {
      var lone = Lone()
      lone.hear(.primary, term: 1, echo: lone.now)
      #expect(lone.arbiter.phase == .secondary)
      _ = lone.arbiter.linkWentDown(.reset, now: lone.now)
      lone.now = lone.now + sleep
      _ = lone.arbiter.tick(now: lone.now)
      let waited = lone.timeToTakeover(limit: .seconds(10))
      let time = try #require(waited)
      if sleep.count == 0 {
        #expect(time <= lone.timing.detection)
      } else {
        #expect(time >= lone.timing.detection * 9)
      }
    }
  }

  @Test("A primary that dies just after it regained its lease is succeeded as soon as any other")
  func diesAfterRegainingItsLease() throws {
    for isGranted in [true, false] {
      var lone = Lone()
      lone.hear(.primary, term: 1, echo: lone.now)
      // A grant is the answer on the link. On the uplink the other RE may regain its lease without being heard.
      if isGranted { lone.hear(.suspended, term: 1, echo: lone.now, leaseIsTimed: false) }
      lone.hear(.suspended, term: 1, echo: lone.now, onLink: false, leaseIsTimed: false)
      if !isGranted { lone.now = lone.now + .milliseconds(1) }
      lone.hear(.suspended, term: 1, echo: lone.now, onLink: false, leaseIsTimed: false)
      _ = lone.arbiter.linkWentDown(.endOfStream, now: lone.now)
      let waited = lone.timeToTakeover(limit: .seconds(10))
      let time = try #require(waited)
      if isGranted {
        #expect(time <= lone.timing.lease + lone.timing.margin + .milliseconds(20))
      } else {
        #expect(time >= lone.timing.detection * 9)
      }
    }
  }

  @Test("Where silence does not show that the lease has ended, no short loss of probes does either")
  func missedAnswers() throws {
    var lone = Lone()
    lone.hear(.primary, term: 1, echo: lone.now, leaseIsTimed: false)
    _ = lone.arbiter.linkWentDown(.reset, now: lone.now)
    // For ever, as long as somebody answers now and then.
    for _ in 0..<20 {
      #expect(lone.timeToTakeover(limit: lone.timing.detection - .milliseconds(20)) == nil)
      lone.arbiter.probeAnswered(now: lone.now)
    }
    let waited = lone.timeToTakeover(limit: .seconds(10))
    let time = try #require(waited)
    #expect(time >= lone.timing.detection && time <= lone.timing.detection + .milliseconds(20))

    // An RE that starts, and hears nothing of another one.
    var starting = Lone()
    _ = starting.arbiter.linkWentDown(.reset, now: starting.now)
    let begun = starting.now
    while starting.now - begun < starting.timing.startupGrace - .milliseconds(100) {
      #expect(starting.timeToTakeover(limit: .milliseconds(10)) == nil)
    }
    starting.arbiter.probeAnswered(now: starting.now)
    let untilBegin = starting.timeToTakeover(limit: .seconds(10))
    let begins = try #require(untilBegin)
    #expect(begins >= starting.timing.detection && begins <= starting.timing.detection + .milliseconds(20))
  }

  @Test("No two keepalives are of the same moment, so that the later one is known whichever comes first")
  func laterKeepalive() throws {
    var lone = Lone()
    let first = lone.arbiter.keepalive(session: 1, voidedSession: 0, now: lone.now)
    let second = lone.arbiter.keepalive(session: 1, voidedSession: 0, now: lone.now)
    #expect(first.sentAt == lone.now.nanoseconds && second.sentAt > first.sentAt)

    // "Taking over" and "primary", the other way round: the lease is known to end.
    for isSwapped in [false, true] {
      var other = Lone()
      other.hear(.secondary, term: 1, echo: other.now)
      let keepalives = [(0, MastershipPhase.takingOver, false), (1, .primary, true)].map {
        Keepalive(
          slot: 1, phase: $0.1, term: 2, priority: 100, sentAt: other.now.nanoseconds + $0.0,
          echo: other.now.nanoseconds, echoAnywhere: other.now.nanoseconds, leaseIsTimed: $0.2,
          uplinkIsRunning: true, linkIsUp: true, session: 5 &* Hello.sessionsPerIncarnation,
          voidedSession: 0)
      }
      for keepalive in isSwapped ? keepalives.reversed() : keepalives {
        _ = other.arbiter.received(keepalive, onLink: false, now: other.now)
      }
      _ = other.arbiter.linkWentDown(.endOfStream, now: other.now)
      let waited = other.timeToTakeover(limit: .seconds(10))
      let time = try #require(waited)
      #expect(time <= other.timing.lease + other.timing.margin + .milliseconds(20))
    }
  }

  // MARK: Loss of the primary

  @Test("A primary that stops, at whatever moment, is succeeded, and never by a second one beside it")
  func primaryStops() {
    for delay in stride(from: Int64(0), to: 150, by: 5) {
      for kernelLives in [true, false] {
        let pair = started()
        pair.advance(milliseconds: delay)
        let stopped = pair.now
        pair.killPrimary(kernelLives: kernelLives)
        #expect(pair.takeOver())
        #expect(pair.now - stopped <= .milliseconds(kernelLives ? 250 : 400), "stopped after \(delay) ms")
        pair.advance(milliseconds: 300)
        expectOnePrimary(pair, "stopped after \(delay) ms")
      }
    }
  }

  @Test("A primary that sleeps and wakes finds itself primary still, or silent: never a second one")
  func primarySleeps() {
    for delay in stride(from: Int64(0), to: 100, by: 25) {
      for span in [10, 60, 100, 140, 150, 160, 200, 250, 300, 310, 330, 400, 700, 2_000] as [Int64] {
        let pair = started()
        pair.advance(milliseconds: delay)
        pair.sleep(0)
        pair.advance(milliseconds: span)
        pair.wake(0)
        pair.advance(milliseconds: 100)
        pair.openLink()
        pair.advance(milliseconds: 2_500)
        expectOnePrimary(pair, "slept \(span) ms after \(delay) ms")
        #expect(phases(pair).contains(.secondary), "slept \(span) ms after \(delay) ms")
      }
    }
  }

  @Test("A primary that sleeps between deciding to renew its lease and renewing it is no second one")
  func renewalAfterWaking() {
    for span in stride(from: Int64(5), through: 200, by: 5) {
      let pair = started()
      pair.engines[0].sleepsBeforeRenewal = true
      pair.advance(milliseconds: 60)
      #expect(pair.engines[0].isAsleep)
      pair.advance(milliseconds: span)
      pair.wake(0)
      // It has renewed if it could, and never runs again.
      pair.engines[0].isAlive = false
      pair.link.mute = [0]
      #expect(pair.takeOver(), "woke after \(span) ms")
      pair.advance(milliseconds: 300)
      expectOnePrimary(pair, "woke after \(span) ms")
    }
  }

  // MARK: Loss of paths

  @Test func aCutLinkAloneChangesNoMaster() {
    for delay in stride(from: Int64(0), to: 100, by: 10) {
      for carrierLost in [true, false] {
        let pair = started()
        pair.advance(milliseconds: delay)
        pair.cutLink(carrierLost: carrierLost)
        pair.advance(milliseconds: 3_000)
        #expect(phases(pair) == [.primary, .secondary])
        #expect(pair.engines[0].lease == .endless)
        expectOnePrimary(pair)
      }
    }
  }

  @Test func aCutUplinkAloneChangesNoMasterAsLongAsItsCarrierStays() {
    let pair = started()
    pair.uplinkWorks = false
    pair.advance(milliseconds: 3_000)
    #expect(phases(pair) == [.primary, .secondary])
    expectOnePrimary(pair)
  }

  @Test func aPrimaryWhoseUplinkLosesItsCarrierHandsOver() {
    let pair = started()
    pair.engines[0].node.uplinkChanged(isRunning: false, now: pair.now)
    pair.advance(milliseconds: 500)
    #expect(phases(pair) == [.secondary, .primary])
    expectOnePrimary(pair)
  }

  @Test func aLinkThatIsCutAndAPrimaryThatStopsLaterAreNoObstacle() {
    for delay in stride(from: Int64(0), to: 1_200, by: 60) {
      let pair = started()
      pair.cutLink()
      pair.advance(milliseconds: delay)
      pair.killPrimary(kernelLives: false)
      pair.advance(milliseconds: 6_000)
      // A lease that had no end is still in the dead RE's kernel: then nobody may take over.
      if pair.engines[0].lease == .endless {
        #expect(phases(pair)[1] == .secondary, "after \(delay) ms")
      } else {
        expectOnePrimary(pair, "after \(delay) ms")
      }
      #expect(pair.violations.prefix(3) == [])
    }
  }

  @Test("A primary that loses its lease while the link is cut does not leave the addresses without a master")
  func leaseLostWithoutLink() {
    for delay in stride(from: Int64(0), to: 600, by: 50) {
      let pair = started()
      pair.cutLink()
      pair.advance(milliseconds: delay)
      pair.sleep(0)
      pair.advance(milliseconds: 200)
      pair.wake(0)
      pair.advance(milliseconds: 6_000)
      expectOnePrimary(pair, "slept \(delay) ms after the cut")
    }
  }

  @Test("When both paths were cut both are master; when they heal one steps down")
  func split() {
    for linkFirst in [true, false] {
      let pair = started()
      pair.mayBothBeMaster = true
      pair.uplinkWorks = false
      pair.cutLink()
      pair.advance(milliseconds: 5_000)
      #expect(phases(pair) == [.primary, .primary])
      if linkFirst { pair.openLink() } else { pair.uplinkWorks = true }
      pair.advance(milliseconds: 500)
      pair.mayBothBeMaster = false
      pair.uplinkWorks = true
      pair.openLink()
      pair.advance(milliseconds: 2_000)
      // The one that took over has the later term.
      #expect(phases(pair) == [.secondary, .primary])
      expectOnePrimary(pair)
      #expect(!pair.engines[0].hasAddresses)
    }
  }

  // MARK: Handover

  @Test func mastershipGoesToAndFroInOrder() throws {
    let pair = started()
    for round in 0..<6 {
      let from = round % 2
      try pair.engines[from].node.releaseMastership(now: pair.now)
      pair.engines[from].perform()
      pair.advance(milliseconds: 300)
      #expect(phases(pair)[from] == .secondary && phases(pair)[1 - from] == .primary)
      expectOnePrimary(pair)
    }
    #expect(pair.engines[0].node.arbiter.term == pair.engines[1].node.arbiter.term)
  }

  @Test func theSecondaryMayAskForMastership() throws {
    let pair = started()
    try pair.engines[1].node.acquireMastership(now: pair.now)
    pair.engines[1].perform()
    pair.advance(milliseconds: 300)
    #expect(phases(pair) == [.secondary, .primary])
    expectOnePrimary(pair)
  }

  @Test func whatCannotBeDoneIsRefusedWithAReason() {
    let pair = started()
    #expect(throws: PairArbiter.RequestError.alreadyPrimary) {
      try pair.engines[0].node.acquireMastership(now: pair.now)
    }
    #expect(throws: PairArbiter.RequestError.notPrimary) {
      try pair.engines[1].node.releaseMastership(now: pair.now)
    }
    pair.cutLink()
    #expect(throws: PairArbiter.RequestError.noSecondary) {
      try pair.engines[0].node.releaseMastership(now: pair.now)
    }
    #expect(throws: PairArbiter.RequestError.noSecondary) {
      try pair.engines[1].node.acquireMastership(now: pair.now)
    }
  }

  @Test("A handover that is lost with the link does not leave the addresses without a master")
  func handoverLost() throws {
    let pair = started()
    pair.link.mute = [0]
    try pair.engines[0].node.releaseMastership(now: pair.now)
    pair.engines[0].perform()
    pair.link.mute = []
    pair.cutLink()
    pair.advance(milliseconds: 6_000)
    expectOnePrimary(pair)
  }

  /// So many replicated connections, and mastership that is about to be with re1.
  private func handOver(_ count: Int) throws -> (pair: SimulatedPair, conversations: [Conversation]) {
    let pair = SimulatedPair(seed: 1)
    pair.start()
    let conversations = (0..<count).map { _ in pair.converse() }
    for conversation in conversations {
      pair.settle()
      try pair.replicate(conversation)
    }
    pair.settle()
    try pair.engines[0].node.releaseMastership(now: pair.now)
    pair.engines[0].perform()
    return (pair, conversations)
  }

  @Test("What is lost with mastership is silenced in turns, and the rest of the connections behind it")
  func lostSocketsInTurns() throws {
    let (pair, conversations) = try handOver(6)
    let old = pair.engines[0]
    while old.node.arbiter.phase != .secondary { pair.settleLink() }
    // Of all of them no more is said or taken at once; two are silent, and two more with each tick.
    #expect(!old.hasAddresses && !old.leaseIsInForce)
    for conversation in conversations { #expect(old.node.socket(of: conversation.flow) == nil) }
    for silent in [2, 4, 6] {
      #expect(old.sockets.count == 6 - silent)
      #expect(old.unreplicated.values.count { $0 == .mastershipLost } == silent)
      #expect(old.endedConnections == (silent < 6 ? 0 : 1))
      #expect(old.node.isHandingOver == (silent < 6))
      old.tick()
    }
    #expect(old.endedConnections == 1)
  }

  @Test("Mastership is not handed over again while pairs are yet to be merged, for a second at most")
  func handoverAwaitsMerges() throws {
    let (pair, conversations) = try handOver(2)
    let new = pair.engines[1]
    #expect(pair.takeOver())
    pair.advance(milliseconds: 500)
    #expect(throws: PairArbiter.RequestError.busy(.takingOver)) {
      try new.node.releaseMastership(now: pair.now)
    }
    try pair.merge(conversations[0])
    #expect(throws: PairArbiter.RequestError.busy(.takingOver)) {
      try new.node.releaseMastership(now: pair.now)
    }
    // Its application may never come.
    pair.advance(milliseconds: 500)
    try new.node.releaseMastership(now: pair.now)
  }

  @Test("No socket that was lost with mastership is left when the fence opens again")
  func lostSocketsBeforeTheNextLease() throws {
    let (pair, conversations) = try handOver(60)
    let (old, new) = (pair.engines[0], pair.engines[1])
    while new.node.arbiter.phase != .primary { pair.settleLink() }
    for conversation in conversations { try pair.merge(conversation) }
    while !new.node.arbiter.standbyIsReady { pair.advance(milliseconds: 5) }
    try new.node.releaseMastership(now: pair.now)
    new.perform()
    var waiting = 0
    while old.node.arbiter.phase != .primary {
      #expect(!old.leaseIsInForce)
      waiting = old.sockets.count
      pair.settleLink()
    }
    #expect(waiting > 10 && old.sockets.isEmpty && old.endedConnections == 1)
    #expect(old.unreplicated.values.count { $0 == .mastershipLost } == 60)
  }

  @Test(
    "A planned switchover in the middle of traffic loses nothing", arguments: 1...6 as ClosedRange<UInt64>)
  func plannedSwitchover(seed: UInt64) throws {
    let pair = SimulatedPair(mode: seed % 2 == 0 ? .strict : .overlap, seed: seed)
    pair.start()
    let conversation = pair.converse(startAt: .max - 500)
    pair.peerWrites(conversation, 100)
    pair.settle()
    try pair.replicate(conversation)
    pair.settle()
    pair.peerWrites(conversation, 300)
    pair.localWrites(conversation, 400)
    if seed % 3 == 0 { pair.settle() }
    try pair.engines[0].node.releaseMastership(now: pair.now)
    pair.engines[0].perform()
    #expect(pair.takeOver())
    #expect(pair.engines[0].unreplicated[conversation.primaryHandle!] == .mastershipLost)
    try pair.merge(conversation)
    pair.finish(slot: 1, peerTotal: 800, localTotal: 900)
    #expect(pair.engines[0].heldFrames == 0 && pair.engines[1].heldFrames == 0)
    expectOnePrimary(pair)
  }
}

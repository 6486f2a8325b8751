import DequeModule
import OrderedCollections
import Packet

/// The protocol of one routing engine: everything that JSR decides, and nothing that it touches.
///
/// The node is told of packets, of bytes from the link, of what applications want and of the time; it
/// answers each packet with a verdict, and leaves in `actions` what else is to be done, in order. The same
/// node serves as primary and as secondary: which of the two it is follows from `arbiter`.
///
/// Where things are: packets on the primary in `ReplicationNode+Packets`, what is different with datagrams in
/// `+Datagrams`, records on either side in `+Link`, the life of a socket in `+Sockets`, changes of mastership in
/// `+Mastership`.
public struct ReplicationNode {
  public struct Configuration: Sendable {
    public var node: String
    public var slot: UInt8
    public var priority: UInt16
    public var timing: PairTiming
    public var mode: Mode
    public var timeouts: LayerTimeouts
    /// Handles at a time.
    public var socketLimit: Int
    /// Bytes of packets held, and bytes of records on their way, at most; each.
    public var holdLimit: Int
    /// Bytes of one record of an application, at most.
    public var recordLimit: Int
    /// What this engine speaks on the link; within `LinkVersion.supported`.
    public var linkVersions: ClosedRange<UInt16>
    /// Sockets lost with mastership that are silenced at once, and of which applications are told, and how many with each
    /// tick then. To do so with thousands takes longer than the other RE waits for a sign of life; and nobody waits for it,
    /// where peers wait for the new primary, which may share the machine.
    public var lostSocketsTurn: Int
    /// Tells this run of the engine from all others: a random number. A clock may have been set back.
    public var incarnation: UInt64

    public init(
      node: String, slot: UInt8, priority: UInt16, timing: PairTiming, mode: Mode, timeouts: LayerTimeouts,
      socketLimit: Int, holdLimit: Int, recordLimit: Int,
      linkVersions: ClosedRange<UInt16> = LinkVersion.supported, lostSocketsTurn: Int = 32,
      incarnation: UInt64
    ) {
      self.node = node
      self.slot = slot
      self.priority = priority
      self.timing = timing
      self.mode = mode
      self.timeouts = timeouts
      self.socketLimit = socketLimit
      self.holdLimit = holdLimit
      self.recordLimit = recordLimit
      self.linkVersions = linkVersions
      self.lostSocketsTurn = lostSocketsTurn
      self.incarnation = incarnation
    }

    /// Bytes of one record on the link, at most.
    var linkRecordLimit: Int { recordLimit + OutgoingRecord.fixedByteCount }
  }

  /// When an inbound packet is delivered.
  public enum Mode: Sendable, Hashable {
    /// At once; outgoing packets wait until all that was taken in is safe.
    case overlap
    /// When the secondary has it.
    case strict
  }

  enum LinkState {
    case down
    /// Connected, and our hello is sent.
    case greeting(since: Instant)
    /// The other side has spoken too, and this is the version that both use.
    case up(Hello, version: UInt16)
  }

  public let configuration: Configuration
  public internal(set) var timeouts: LayerTimeouts
  public internal(set) var arbiter: PairArbiter
  public internal(set) var statistics = Statistics()
  public internal(set) var peaks = Peaks()
  /// Every record is worth a log line, at the level `debug`.
  public var logsRecords = false
  /// What the engine must do, in order. The engine takes them and leaves the array empty.
  public var actions: [Action] = []

  var handles: HandleTable
  var entries: [SocketEntry?] = []
  var flows: [Flow: Int] = [:]
  /// Where connected UDP sockets stand that go on alone: nothing of theirs is of an unconnected one with the same local
  /// end.
  var aloneFlows: [Flow: Int] = [:]
  var log = ReplicationLog()
  var holds = HoldQueue()
  /// Bytes of the frames that wait for a handshake or a merge, of all sockets.
  var waitingBytes = 0
  var waitingCount = 0
  var dirty: [Int] = []
  /// Where sockets stand that wait for a slow application of the secondary, or did so lately.
  var paused: Set<Int> = []
  /// Where sockets stand whose kernel acknowledges what is not in the log, or did so lately.
  var refusing: Set<Int> = []
  /// Where sockets stand that have a record which had to wait.
  var recordWaiters: Set<Int> = []
  /// Records on their way to the secondary, in the order of their positions.
  var recordsOnTheirWay: Deque<RecordOnItsWay> = []
  /// Flows that were handed over, whose late packets go to the other RE. In an order of their own, so that the same
  /// input gives the same actions.
  var forwards: OrderedDictionary<Flow, Instant> = [:]

  /// Flows of which the kernel has what their peers send already; what comes in here are copies.
  var mirroredFlows: Set<Flow> = []

  /// Handshakes that wait until what is held up to a position has gone, in the order in which they were asked for.
  var dueSteering: Deque<(required: LogPosition, handle: Handle)> = []

  var services = Services()
  var linkState = LinkState.down
  var session: UInt64
  /// The other RE cannot merge what it had from the link before this one any more.
  var formerPairsAreVoid = true
  /// The other RE's pairs are void, but this RE has to learn first whether it is primary still.
  var releaseIsDue = false
  /// The other RE's name for the last link.
  var peerSession: UInt64 = 0
  /// The other RE's name for the last link whose pairs were given up here.
  var voidedSession: UInt64 = 0
  /// Logged records received on this link.
  var receivedPosition: LogPosition = 0
  var acknowledgedPosition: LogPosition = 0
  /// Fault injection: what of it is not acknowledged all the same.
  var receivedHold = AcknowledgementHold()
  /// Primary: where sockets stand, or stood, that the secondary has accepted, while it has yet to acknowledge
  /// what the handshake said.
  var accepted: [Int] = []
  /// Secondary: the handle that the handshake at hand names, if it was never allocated here. An application of the
  /// other RE made it up, or has it from an engine that is no more: no reason to think ill of the other engine.
  var madeUpHandle: Handle?
  /// Primary: nothing new is sent over UDP until mastership is handed over, at this time at the latest.
  var drainingUntil: Instant?
  /// What was lost with mastership and has yet to be silenced, before all else that is connected; `nil` when that is done.
  var lostSockets: Deque<LostSocket>?
  /// When this RE became primary, if it ever did.
  var tookOverAt: Instant?
  var standbyWasReady = false
  var reportedPhase = MastershipPhase.starting

  public init(_ configuration: Configuration, now: Instant) {
    self.configuration = configuration
    timeouts = configuration.timeouts
    session = configuration.incarnation &* Hello.sessionsPerIncarnation
    // A handle of an earlier run of the engine must not name a socket of this one.
    handles = HandleTable(
      slot: configuration.slot, limit: configuration.socketLimit,
      firstGeneration: HandleTable.firstGeneration(ofRun: configuration.incarnation))
    arbiter = PairArbiter(
      slot: configuration.slot, priority: configuration.priority, timing: configuration.timing, now: now)
    for layer in [Layer.prl, .psrm] { say(.info, "\(layer) global state initialized") }
  }

  // MARK: Time

  /// To be called every few milliseconds.
  public mutating func tick(now: Instant) {
    endLostSockets(atMost: configuration.lostSocketsTurn)
    obey(arbiter.tick(now: now), now: now)
    if case .up = linkState, speaksForConnections, !planted(.timeoutsNeverFire) {
      var late: [(handle: Handle, reason: UnreplicateReason)] = []
      log.overdue(at: now, timeouts: timeouts) { late.append(($0, .timeout(of: $1))) }
      for (handle, reason) in late {
        // A socket that is gone has nobody who waits.
        guard let place = try? find(handle) else { continue }
        endReplication(place, because: reason, now: now)
      }
      endStalled(now: now)
    }
    endOverdueRequests(now: now)
    endDraining(now: now)
    if case .greeting(let since) = linkState, now - since >= configuration.timing.greeting {
      // Nothing more is sent before the other RE has greeted: a connection that died would never show it.
      closeLink("no greeting for \(configuration.timing.greeting.milliseconds) ms")
    }
    if !forwards.isEmpty { endForwards(where: { now >= $0 }) }
    flushBlocks(now: now)
    offerRoomForRecords()
  }

  /// Stops passing on the late packets of flows whose time `isOver`.
  mutating func endForwards(where isOver: (Instant) -> Bool) {
    // A flow may have come back meanwhile.
    for (flow, until) in forwards where isOver(until) && flows[flow] == nil { actions.append(.unsteer(flow)) }
    forwards.removeAll { isOver($0.value) }
  }

  /// A secondary's application that does not read for as long as PRL may take is not worth waiting for.
  private mutating func endStalled(now: Instant) {
    for place in paused.sorted() {
      guard let since = entries[place]?.pausedSince, entries[place]!.phase == .replicating else {
        paused.remove(place)
        continue
      }
      if now - since >= timeouts.prl { endReplication(place, because: .snoopBufferFull, now: now) }
    }
  }

  // MARK: While it runs

  /// Changes how long a record of `layer` may be unacknowledged; for IHA, KKCM and mastership that of PSRM
  /// counts. Records on their way are held against it too.
  public mutating func setTimeout(of layer: Layer, _ time: Nanoseconds) {
    switch layer {
    case .sdrl: timeouts.sdrl = time
    case .prl: timeouts.prl = time
    case .psrm, .iha, .kkcm, .mastership: timeouts.psrm = time
    }
  }

  /// Fault injection: while it is on, records of `layer`, and all behind them in the log, count as not
  /// acknowledged, whether this RE is the one to send or the one to receive acknowledgements. A handshake does
  /// not end without the acknowledgement of all that it said. That the secondary has let go of a socket
  /// (`ihaEnded`) is not held.
  public mutating func holdAcknowledgements(of layer: Layer, _ isOn: Bool, now: Instant) {
    log.holdAcknowledgements(of: layer, isOn)
    if isOn {
      receivedHold.begin(layer, from: nil)
    } else {
      receivedHold.end(layer)
      linkBatchEnded(now: now)
      acknowledged(now: now)
    }
  }

  /// Whether acknowledgements of records of `layer` are held.
  public func holdsAcknowledgements(of layer: Layer) -> Bool { receivedHold.isHeld(layer) }

  // MARK: Views

  /// What is held at this moment.
  public var occupancy: Occupancy {
    var result = Occupancy()
    result.sockets = handles.count
    result.flows = flows.count + forwards.count
    result.heldPackets = holds.count + waitingCount
    result.heldBytes = holds.byteCount + waitingBytes
    result.waitingPackets = waitingCount
    result.waitingBytes = waitingBytes
    result.unacknowledgedRecords = log.unacknowledgedCount
    result.unacknowledgedRecordBytes = log.unacknowledgedBytes
    for case .some(let entry) in entries {
      if let snoop = entry.snoop {
        result.bufferedBytes += snoop.reassembly.byteCount + snoop.unacknowledged.count
        result.replicationBufferBytes += snoop.unacknowledged.count
      }
    }
    return result
  }

  /// What the other RE calls itself; `nil` while the link is down.
  public var peerName: String? { if case .up(let hello, _) = linkState { hello.node } else { nil } }

  /// The version that the link speaks, while it is up.
  public var linkVersion: UInt16? { if case .up(_, let version) = linkState { version } else { nil } }

  /// One handle, as it can be shown.
  public struct SocketView: Sendable {
    public var handle: Handle
    public var peer: Handle?
    public var phase: SocketPhase
    /// `nil` as long as nothing is known of the socket.
    public var transport: TransportProtocol?
    public var flow: Flow?
    /// `nil` before the handshake has brought it, and for a UDP socket.
    public var block: ControlBlock?
    public var positions: LayerPositions
  }

  public var sockets: [SocketView] { entries.compactMap { $0.map(Self.view) } }

  /// - Throws: if the handle is stale, foreign or made up.
  public func socket(_ handle: Handle) throws(HandleError) -> SocketView {
    Self.view(entries[try handles.place(of: handle)]!)
  }

  /// What the primary's engine said of the options of a socket that this RE snoops; empty for any other.
  ///
  /// - Throws: as `socket(_:)`.
  public func options(of handle: Handle) throws(HandleError) -> [UInt8] {
    entries[try handles.place(of: handle)]!.options
  }

  /// The handle that packets of `flow` belong to; `nil` if they belong to none.
  public func socket(of flow: Flow) -> SocketView? { flows[flow].map { Self.view(entries[$0]!) } }

  private static func view(_ entry: SocketEntry) -> SocketView {
    var block: ControlBlock? = entry.block
    if let snoop = entry.snoop {
      block?.receiveNext = snoop.reassembly.acknowledgeable
    } else if let inbound = entry.inbound {
      block?.receiveNext = inbound.acknowledgeable
    }
    var positions = entry.positions
    if let outbound = entry.outbound { positions.sdrl = outbound.position }
    if let inbound = entry.inbound { positions.prl = inbound.position }
    return SocketView(
      handle: entry.handle, peer: entry.peer, phase: entry.phase, transport: entry.transport,
      flow: entry.flow,
      block: block, positions: positions)
  }

  // MARK: Small things that all parts share

  mutating func say(_ level: LogLevel, _ text: String) { actions.append(.log(level, text)) }

  /// Appends a record that is not made from a packet to the log and to the link.
  @discardableResult
  mutating func append(_ record: [UInt8], layer: Layer, place: Int, now: Instant) -> LogPosition {
    actions.append(.send(record))
    let position = log.append(
      byteCount: record.count, layer: layer, socket: entries[place]!.handle, now: now)
    noteAppended(record, at: position, place)
    return position
  }

  /// Holds the most there has been against what there is now.
  mutating func notePeaks() {
    peaks.heldPackets = max(peaks.heldPackets, holds.count + waitingCount)
    peaks.heldBytes = max(peaks.heldBytes, holds.byteCount + waitingBytes)
    peaks.unacknowledgedRecords = max(peaks.unacknowledgedRecords, log.unacknowledgedCount)
    peaks.unacknowledgedRecordBytes = max(peaks.unacknowledgedRecordBytes, log.unacknowledgedBytes)
  }

  /// Sends the control blocks that changed in ways no segment record told. To be called when a batch of
  /// packets is done.
  public mutating func flushBlocks(now: Instant) {
    // Nothing may follow a handover in the log.
    if !dirty.isEmpty, speaksForConnections { sendDirtyBlocks(now: now) }
    offerRoomForRecords()
  }

  /// Whether what its connections do is still news for the other RE.
  var speaksForConnections: Bool { arbiter.phase == .primary || arbiter.phase == .suspended }

  mutating func sendDirtyBlocks(now: Instant) {
    for place in dirty {
      guard entries[place] != nil, entries[place]!.blockIsDirty else { continue }
      entries[place]!.blockIsDirty = false
      if entries[place]!.phase == .replicating, !isSevered(place), !planted(.controlBlockNeverFlushed) {
        appendBlock(place, now: now)
      }
    }
    dirty.removeAll(keepingCapacity: true)
  }

  /// Primary: the secondary's pair belongs to a link before this one. Nothing can be said about it any more, and
  /// until it is known to be void nothing may leave that it does not have.
  func isSevered(_ place: Int) -> Bool { entries[place]!.session != session }

  mutating func markDirty(_ place: Int) {
    guard !entries[place]!.blockIsDirty else { return }
    entries[place]!.blockIsDirty = true
    dirty.append(place)
  }

  /// Appends a PSRM update that also announces window edges which are yet to be advertised, so that not
  /// every acknowledgement needs one of its own.
  @discardableResult
  mutating func appendBlock(_ place: Int, now: Instant) -> LogPosition {
    var block: ControlBlock = entries[place]!.block
    block.receiveNext = entries[place]!.inbound.acknowledgeable
    block.sendNext = entries[place]!.mayHaveSent(upTo: entries[place]!.outbound.end)
    let allowance = max(65_535, Int(block.receiveWindow / 2))
    // Raised in large steps: each has to be acknowledged before use is made of it.
    let announced = entries[place]!.announcedEdge
    let edge = block.receiveEdge + allowance / 2 > announced ? block.receiveEdge + allowance : announced
    var writer = ByteWriter(.psrmUpdate, to: entries[place]!.peer!)
    block.write(to: &writer)
    writer.sequence(edge)
    statistics.psrmRecordsSent += 1
    let position = append(writer.record(), layer: .psrm, place: place, now: now)
    entries[place]!.positions.psrm = position
    entries[place]!.announce(edge, at: position, acknowledged: log.acknowledged)
    entries[place]!.sendLimit.announce(block.sendNext, at: position, acknowledged: log.acknowledged)
    return position
  }
}

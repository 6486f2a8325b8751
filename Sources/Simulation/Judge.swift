// Theory of operation
//
// Everything that can be held against the pair is looked at here, from the outside: frames where they leave an
// RE, bytes where an application gets them, leases where a kernel grants them. What a frame may say is compared
// with what the other RE's process has taken in, and every merge with all that has ever left.
//
// A connection must come to a good end unless its fate says otherwise. A fate is decided before a fault
// strikes: a connection that the fault hits while it was not replicated, or whose other RE was not well at that
// moment, may be lost. Everything else must live.

import Packet
import Replication

enum Judge {
  // MARK: Fates

  /// Whether an RE could take over and serve, as far as machines and processes go.
  private static func isWell(_ machine: Machine) -> Bool {
    machine.isOn && !machine.isStopped && machine.engine?.isWell == true
      && machine.application?.isWell == true
  }

  /// Something on `machine` is about to stop or end.
  static func machineFails(_ machine: Machine, engineStays: Bool) {
    let other = machine.world.machines[1 - machine.slot]
    for conversation in machine.world.conversations where conversation.mustLive {
      if isServed(conversation, by: other) { continue }
      if isServed(conversation, by: machine), isProtected(conversation, from: machine, by: other) { continue }
      lose(conversation, "was not protected when something failed on \(machine.name)")
    }
  }

  /// Something between the REs is about to fail.
  static func pathFails(_ world: World) {
    for conversation in world.conversations where conversation.mustLive {
      if world.machines.contains(where: { isServed(conversation, by: $0) }) { continue }
      lose(conversation, "was changing hands, or its RE had failed, when a path failed")
    }
  }

  /// The clock of an RE is about to stop: what it takes for recent may be long ago.
  static func clockStops(_ world: World) {
    for conversation in world.conversations { lose(conversation, "a clock stopped") }
  }

  /// `machine` has just given mastership away, for whatever reason.
  static func handsOver(_ machine: Machine) {
    let other = machine.world.machines[1 - machine.slot]
    for conversation in machine.world.conversations
    where conversation.mustLive && machine.sockets[conversation.flow] != nil
      && !isMirrored(conversation, from: machine, by: other)
    {
      lose(conversation, "was not protected when \(machine.name) handed mastership over")
    }
  }

  /// The connection's socket lives on `machine`, and will stay there.
  private static func isServed(_ conversation: Conversation, by machine: Machine) -> Bool {
    isWell(machine) && machine.sockets[conversation.flow] != nil && machine.engine!.phase == .primary
      && machine.leaseIsInForce && machine.world.uplink.hasCarrier[machine.slot]
      // If it has just slept, its lease may run out before it comes to renew it.
      && machine.engine!.hasTickedSinceItWoke
  }

  private static func isProtected(_ conversation: Conversation, from machine: Machine, by other: Machine)
    -> Bool
  {
    let timing = machine.world.scenario.timing
    return isMirrored(conversation, from: machine, by: other)
      // For as long as a takeover may take: an RE that has just woken up begins to listen with its next tick, and asks
      // who has the addresses before the tick after the detection time.
      && other.engine!.node.arbiter.isLicensed(
        now: other.now + timing.detection + timing.probeWait + Nanoseconds(EngineProcess.tickInterval * 2))
      && machine.engine!.node.arbiter.standbyIsReady
  }

  /// The other RE is well, and has all that it needs to go on with the connection.
  private static func isMirrored(_ conversation: Conversation, from machine: Machine, by other: Machine)
    -> Bool
  {
    let world = machine.world
    guard isWell(other), world.link.pathWorks, world.uplink.hasCarrier[other.slot],
      world.uplink.carries[other.slot], machine.application?.isReplicated(conversation) == true,
      other.application!.holdsPair(of: conversation),
      let primary = machine.engine!.view(of: conversation), primary.phase == .replicating,
      let (handle, _) = other.engine!.pair(of: conversation),
      let secondary = try? other.engine!.node.socket(handle), secondary.phase == .snooping,
      secondary.peer == primary.handle, other.engine!.node.peerName != nil
    else { return false }
    return true
  }

  static func lose(_ conversation: Conversation, _ why: String) {
    guard conversation.mustLive else { return }
    conversation.fate = .lost(why)
  }

  /// Nobody on the RE holds the connection any more: that its kernel ends it is as it should be.
  static func applicationIsGone(_ conversation: Conversation) {
    lose(conversation, "its application is gone")
  }

  // MARK: Leases (no two masters)

  /// A lease is put in force or prolonged.
  static func leaseBegins(_ machine: Machine) {
    let world = machine.world
    let other = world.machines[1 - machine.slot]
    guard other.isOn, other.leaseIsInForce else { return }
    world.statistics.twoMasters += 1
    if !world.scenario.kind.excludesTwoMasters || world.overlapIsExcused || isMuteMaster(other) {
      world.overlapIsExcused = true
      // Whoever gives way in the end takes what it served with it.
      for conversation in world.conversations {
        lose(conversation, "there were two masters, which nothing excludes here")
      }
      return
    }
    world.broken(.twoMasters, "\(machine.name) is given a lease while that of \(other.name) is in force")
  }

  /// A peer has reached one RE. If the other one is a master too, it may be the one that stays.
  static func opened(_ conversation: Conversation, on machine: Machine) {
    let other = machine.world.machines[1 - machine.slot]
    guard other.isOn, other.leaseIsInForce else { return }
    lose(conversation, "it was opened while there were two masters, which nothing excludes here")
  }

  /// An RE that had the address to itself, with a lease that has no end, could not speak: its engine is gone, or was
  /// until a moment ago, so that the link is dead, and its kernel does not answer either, since it stands still or the
  /// uplink does not carry. See docs/mastership.md.
  private static func isMuteMaster(_ machine: Machine) -> Bool {
    (machine.lease == .endless || machine.engine?.wokeWithEndlessLease == true)
      && machine.engine?.isHeard != true
      && !(machine.answers && machine.world.uplink.connectsREs)
  }

  /// Of two that served, the other one stays primary.
  static func gaveWay(_ machine: Machine) {
    let other = machine.world.machines[1 - machine.slot]
    if other.isOn, other.leaseIsInForce { machine.world.lastPrimary = other.slot }
  }

  static func becamePrimary(_ machine: Machine) {
    let world = machine.world
    defer { world.lastPrimary = machine.slot }
    guard let last = world.lastPrimary, last != machine.slot else { return }
    world.statistics.failovers += 1
    let pairs = world.conversations.filter { machine.engine?.isSnooping($0) == true }
    if !pairs.isEmpty { world.statistics.failoversWithMerges += 1 }
    for conversation in world.conversations where conversation.mustLive {
      // Mastership moved away from a connection that was not replicated.
      if machine.engine?.isSnooping(conversation) != true,
        world.machines[last].sockets[conversation.flow] != nil
          || !world.machines.contains(where: { $0.sockets[conversation.flow] != nil })
      {
        lose(conversation, "\(machine.name) took over, where it was not replicated")
      }
    }
  }

  // MARK: What leaves

  static func frameLeaves(_ frame: [UInt8], byEngine: Bool, from machine: Machine) {
    let world = machine.world
    world.statistics.framesLeft += 1
    let anyPacket = ModelPacket(frame)!
    let other = world.machines[1 - machine.slot]
    if !other.isOn || !other.leaseIsInForce {
      world.overlapIsExcused = false
    } else if world.scenario.kind.excludesTwoMasters, !world.overlapIsExcused {
      world.broken(.promise6, "a frame leaves \(machine.name) while \(other.name) holds a lease")
    }
    let packet: TCPPacket
    switch anyPacket {
    case .tcp(let tcp): packet = tcp
    case .udp(let udp): return datagramLeaves(frame, udp, byEngine: byEngine, from: machine)
    }
    let segment = packet.segment
    guard let conversation = world.conversation(packet.outboundFlow()) else {
      return world.broken(.protocolUse, "a frame of no connection leaves \(machine.name)")
    }
    if world.isTold {
      world.tell(
        machine.name,
        "out \(conversation.name) \(segment.flags) seq \(segment.sequence - conversation.localStart) + "
          + "\(segment.payload.count), ack \(segment.acknowledgment - conversation.peerStart), window \(segment.window)"
      )
    }
    // The peer has forgotten the connection: nobody listens.
    if conversation.fate == .resetByPeer { return }
    if segment.flags.contains(.rst) {
      if conversation.mustLive,
        !segment.flags.contains(.syn)
      {
        checkReset(segment, conversation, machine)
      }
      return
    }
    checkAgainstSecondary(segment, conversation, machine, other)
    checkWindow(segment, conversation, machine)
    checkStream(frame, segment, conversation, machine)
    checkClock(segment, conversation, machine)
    conversation.acknowledgmentLeft = .later(conversation.acknowledgmentLeft, segment.acknowledgment)
    // A bare acknowledgement may overtake the bytes before it.
    if !segment.payload.isEmpty || segment.flags.contains(.fin) {
      conversation.endLeft = .later(conversation.endLeft, segment.end)
    }
    conversation.lastSpeaker = machine.slot
  }

  private static func checkReset(_ segment: TCPSegment, _ conversation: Conversation, _ machine: Machine) {
    // The answer to a stray segment that fits no window hurts nobody; the peer would not believe it.
    guard let peer = conversation.peer, segment.sequence == peer.acknowledgment else { return }
    machine.world.broken(.promise8, "\(machine.name) resets \(conversation.name)")
  }

  /// What the other RE could make of a connection that this one serves; `nil` if it could not take over now, or has
  /// nothing of it.
  private static func mirror(
    of conversation: Conversation, servedBy machine: Machine
  ) -> (block: ControlBlock, pair: EngineProcess.Pair)? {
    guard let (view, pair) = mirroringPair(of: conversation, servedBy: machine), let block = view.block else {
      return nil
    }
    return (block, pair)
  }

  /// The same, of either transport: how the other RE sees the socket, and the pair.
  static func mirroringPair(
    of conversation: Conversation, servedBy machine: Machine
  ) -> (view: ReplicationNode.SocketView, pair: EngineProcess.Pair)? {
    let other = machine.world.machines[1 - machine.slot]
    guard other.isOn, let engine = other.engine, let (handle, pair) = engine.pair(of: conversation),
      let there = try? engine.node.socket(handle), there.phase == .snooping
    else { return nil }
    let here = machine.engine?.view(of: conversation)
    let isNamed = here.map { $0.handle == there.peer } ?? false
    switch here?.phase {
    case .replicating where isNamed, .ending where isNamed: return (there, pair)
    default:
      // By a clock that nobody has stopped.
      let mayMerge =
        machine.world.scenario.kind != .frozenClock && engine.node.arbiter.isLicensed(now: other.now)
      return mayMerge ? (there, pair) : nil
    }
  }

  private static func checkAgainstSecondary(
    _ segment: TCPSegment, _ conversation: Conversation, _ machine: Machine, _ other: Machine
  ) {
    guard let (block, pair) = mirror(of: conversation, servedBy: machine) else { return }
    let world = machine.world
    if segment.acknowledgment > block.receiveNext {
      world.broken(
        .promise1,
        "\(machine.name) acknowledges byte \(segment.acknowledgment - conversation.peerStart - 1) of "
          + "\(conversation.name), \(other.name) has \(block.receiveNext - conversation.peerStart)")
    }
    let sent = segment.payloadEnd - conversation.localStart
    let known = pair.snd.start + pair.snd.received
    if !segment.payload.isEmpty, sent > known {
      world.broken(
        .promise2,
        "\(machine.name) sends byte \(sent - 1) of \(conversation.name), \(other.name) has \(known)")
    }
    if !segment.payload.isEmpty || segment.flags.contains(.fin), segment.end > block.sendNext {
      world.broken(
        .promise3,
        "\(machine.name) sends \(conversation.name) up to \(segment.end - conversation.localStart), \(other.name) would "
          + "merge it as sent up to \(block.sendNext - conversation.localStart)")
    }
    let edge = edge(of: segment, conversation)
    if edge > block.receiveEdge {
      world.broken(
        .promise4,
        "\(machine.name) opens the window of \(conversation.name) to \(edge - conversation.peerStart), "
          + "\(other.name) knows of \(block.receiveEdge - conversation.peerStart)")
    }
  }

  /// Strict mode: a segment is about to reach the kernel of `machine`.
  ///
  /// - Returns: what to look at when it has; `nil` if there is nothing to be seen.
  static func delivery(of frame: [UInt8], to machine: Machine) -> (() -> Void)? {
    guard case .tcp(let packet) = ModelPacket(frame),
      let conversation = machine.world.conversation(packet.inboundFlow()),
      let socket = machine.sockets[conversation.flow],
      machine.engine?.view(of: conversation)?.phase == .replicating,
      let (block, _) = mirror(of: conversation, servedBy: machine)
    else { return nil }
    // What the kernel had ahead of a gap when replication began, the log gets later.
    guard socket.tcp.receiveNext <= block.receiveNext else { return nil }
    return {
      let taken = SequenceNumber.earlier(socket.tcp.receiveNext, packet.segment.payloadEnd)
      if taken > block.receiveNext {
        machine.world.broken(
          .promise1,
          "\(machine.name) delivers bytes of \(conversation.name) up to \(taken - conversation.peerStart) in strict "
            + "mode, the other RE has \(block.receiveNext - conversation.peerStart)")
      }
    }
  }

  /// When nothing is on its way, the secondary knows of each connection what the primary knows.
  static func secondaryIsInStep(with machine: Machine) {
    let world = machine.world
    let other = world.machines[1 - machine.slot]
    guard let primary = machine.engine, let secondary = other.engine, primary.isWell, secondary.isWell,
      primary.node.arbiter.standbyIsReady, secondary.node.arbiter.phase == .secondary,
      primary.node.occupancy.unacknowledgedRecords == 0, primary.hasHeardAll, secondary.hasHeardAll,
      !primary.keepsNews, world.link.isQuiet
    else {
      for conversation in world.conversations { conversation.behind = nil }
      return
    }
    for conversation in world.conversations where conversation.mustLive {
      guard let here = primary.view(of: conversation), here.phase == .replicating, var known = here.block,
        let (block, _) = mirror(of: conversation, servedBy: machine)
      else {
        conversation.behind = nil
        continue
      }
      // The secondary's are what may be advertised, and sent, before the next word.
      known.receiveEdge = block.receiveEdge
      known.sendNext = block.sendNext
      // Each word that it gets may be a little old already, while the connection is at work.
      guard known != block, let behind = conversation.behind, behind.block == block else {
        conversation.behind = known == block ? nil : (block, world.now)
        continue
      }
      // A few ticks of the engine's timer may go by until it is told.
      if world.now - behind.since > .milliseconds(40) {
        world.broken(
          .promise3,
          "\(other.name) is behind on \(conversation.name), though nothing is on its way: it has \(block), "
            + "\(machine.name) \(known)")
      }
    }
  }

  private static func edge(of segment: TCPSegment, _ conversation: Conversation) -> SequenceNumber {
    segment.acknowledgment + Int(segment.window) << Int(conversation.plan.local.windowScale)
  }

  private static func checkWindow(_ segment: TCPSegment, _ conversation: Conversation, _ machine: Machine) {
    let edge = edge(of: segment, conversation)
    // What passes at once may overtake what is held; a later acknowledgement tells the later one.
    if edge < conversation.edgeLeft, segment.acknowledgment > conversation.acknowledgmentLeft {
      machine.world.broken(
        .promise4,
        "\(machine.name) moves the window of \(conversation.name) back from "
          + "\(conversation.edgeLeft - conversation.peerStart) to \(edge - conversation.peerStart)")
    }
    conversation.edgeLeft = .later(conversation.edgeLeft, edge)
  }

  private static func checkStream(
    _ frame: [UInt8], _ segment: TCPSegment, _ conversation: Conversation, _ machine: Machine
  ) {
    let world = machine.world
    let start = segment.sequence - conversation.localStart
    for (offset, byte) in frame[segment.payload].enumerated()
    where byte != conversation.localByte(start + offset) {
      return world.broken(
        .stream, "\(machine.name) sends a wrong byte of \(conversation.name) at \(start + offset)")
    }
    if let peer = conversation.peer, !conversation.plan.peer.shrinksWindow, !segment.payload.isEmpty,
      segment.payloadEnd > peer.edge
    {
      world.broken(
        .stream,
        "\(machine.name) sends \(conversation.name) up to \(segment.payloadEnd - conversation.localStart), the peer's window "
          + "ends at \(peer.edge - conversation.localStart)")
    }
    let end = segment.payloadEnd - conversation.localStart
    if conversation.mustLive, segment.flags.contains(.fin), end != conversation.plan.localTotal {
      world.broken(
        .promise8,
        "\(machine.name) ends \(conversation.name) after \(end) of \(conversation.plan.localTotal) bytes")
    }
  }

  private static func checkClock(_ segment: TCPSegment, _ conversation: Conversation, _ machine: Machine) {
    // Two masters have two clocks.
    guard let value = segment.timestamps?.value,
      conversation.mustLive || machine.world.scenario.kind.excludesTwoMasters
    else { return }
    if let last = conversation.timestampLeft, Int32(truncatingIfNeeded: value &- last) < 0 {
      if let speaker = conversation.lastSpeaker, speaker != machine.slot {
        machine.world.broken(
          .promise3, "the clock of \(conversation.name) goes back by \(last &- value) with its merge")
      }
    } else {
      conversation.timestampLeft = value
    }
  }

  // MARK: Snooping and merging

  /// The handshake reads the socket: the snoop pair begins here.
  static func handshake(_ socket: KernelSocket, from machine: Machine, _ handle: Handle) {
    let other = machine.world.machines[1 - machine.slot]
    guard let view = machine.engine?.view(of: socket.conversation), let peer = view.peer,
      let pair = other.engine?.pair(named: peer)
    else { return }
    let limits = machine.world.scenario.limits
    pair.rcv = SnoopBuffer(
      start: socket.readPosition, socketCapacity: limits.snoopSocket, limit: limits.snoopBuffer)
    pair.snd = SnoopBuffer(
      start: socket.tcp.sendStart - socket.conversation.localStart, socketCapacity: limits.snoopSocket,
      limit: limits.snoopBuffer)
  }

  static func snooped(
    _ bytes: ArraySlice<UInt8>, _ pair: EngineProcess.Pair, _ stream: SnoopStream, on machine: Machine
  ) {
    let conversation = pair.conversation
    let buffer = stream == .rcv ? pair.rcv : pair.snd
    if buffer.hasEnded {
      machine.world.broken(.promise5, "\(stream) of \(conversation.name) goes on behind its end")
    }
    let total = stream == .rcv ? conversation.plan.peerTotal : conversation.plan.localTotal
    if buffer.end + bytes.count > total {
      machine.world.broken(
        .promise5, "\(stream) of \(conversation.name) shows \(buffer.end + bytes.count) bytes, of \(total)")
    }
    for (offset, byte) in bytes.enumerated() {
      let right =
        stream == .rcv
        ? conversation.peerByte(buffer.end + offset) : conversation.localByte(buffer.end + offset)
      if byte != right {
        return machine.world.broken(
          .promise5,
          "\(stream) of \(conversation.name) shows a wrong byte at \(buffer.end + offset) on \(machine.name)")
      }
    }
  }

  /// A pair becomes a socket: held against everything that has ever left.
  static func merged(
    _ plan: StreamMergePlan, _ pair: EngineProcess.Pair, unread: Range<Int>, on machine: Machine
  ) {
    let world = machine.world
    let conversation = pair.conversation
    world.tell(
      machine.name,
      "merges \(conversation.name): \(plan.sendQueue.count) bytes unacknowledged from "
        + "\(plan.sendUnacknowledged - conversation.localStart), \(unread.count) unread up to "
        + "\(plan.receiveNext - conversation.peerStart), window \(plan.receiveWindow)")
    if plan.flow != conversation.flow {
      world.broken(.promise3, "\(conversation.name) is merged as \(plan.flow)")
    }
    let receiveEnd = plan.receiveNext + (plan.finReceived ? 1 : 0)
    let sendEnd = plan.sendUnacknowledged + plan.sendQueue.count + (plan.finSent ? 1 : 0)
    func position(_ number: SequenceNumber) -> Int { number - conversation.peerStart }
    if conversation.acknowledgmentLeft > receiveEnd {
      world.broken(
        .promise3,
        "\(conversation.name): \(position(conversation.acknowledgmentLeft)) was acknowledged, merged at \(position(receiveEnd))"
      )
    }
    if conversation.endLeft > sendEnd {
      world.broken(
        .promise3,
        "\(conversation.name): \(conversation.endLeft - conversation.localStart) was sent, merged up to "
          + "\(sendEnd - conversation.localStart)")
    }
    if conversation.endLeft > plan.sendUnacknowledged + plan.sentCount + (plan.finSent ? 1 : 0) {
      world.broken(
        .promise3,
        "\(conversation.name): \(conversation.endLeft - conversation.localStart) was sent, merged as if only "
          + "\(plan.sendUnacknowledged + plan.sentCount - conversation.localStart) were")
    }
    if let peer = conversation.peer, plan.sendUnacknowledged > peer.receiveNext {
      world.broken(.promise3, "\(conversation.name): the send queue lacks bytes that the peer does not have")
    }
    if plan.receiveNext + Int(plan.receiveWindow) < conversation.edgeLeft {
      world.broken(
        .promise4,
        "\(conversation.name): merged window ends at \(position(plan.receiveNext + Int(plan.receiveWindow))), "
          + "\(position(conversation.edgeLeft)) was advertised")
    }
    let first = plan.sendUnacknowledged - conversation.localStart
    if conversation.isInsideTakenRecord(first + plan.sendQueue.count) {
      world.broken(
        .promise9, "\(conversation.name) is merged at \(first + plan.sendQueue.count), inside of a record")
    }
    // Records that did not come this far are lost as a whole; the application gives them again.
    conversation.recordsTaken = conversation.recordsTaken.filter { $0 < first + plan.sendQueue.count }
    if plan.sendQueue != conversation.localBytes(first..<first + plan.sendQueue.count) {
      world.broken(.promise3, "\(conversation.name): the send queue holds wrong bytes")
    }
    if pair.rcv.end != position(plan.receiveNext) {
      world.broken(
        .promise5,
        "\(conversation.name): rcv ends at \(pair.rcv.end), merged at \(position(plan.receiveNext))")
    }
    if pair.snd.end != first + plan.sendQueue.count {
      world.broken(
        .promise5,
        "\(conversation.name): snd ends at \(pair.snd.end), merged at \(first + plan.sendQueue.count)")
    }
  }

  // MARK: Records

  /// The engine has taken the record at `range` of the stream.
  static func recordTaken(_ range: Range<Int>, _ conversation: Conversation, on machine: Machine) {
    machine.world.statistics.records += 1
    // An engine that slept takes what it was given, before it hears that the connection is the other RE's.
    let other = machine.world.machines[1 - machine.slot]
    if other.sockets[conversation.flow] != nil, other.leaseIsInForce { return }
    conversation.recordsTaken.insert(range.lowerBound)
  }

  /// The pair has shown something: of a record all that there is.
  static func snoopShows(_ pair: EngineProcess.Pair, on machine: Machine) {
    if pair.conversation.isInsideTakenRecord(pair.snd.end) {
      machine.world.broken(
        .promise9, "snd of \(pair.conversation.name) shows a part of a record, up to \(pair.snd.end)")
    }
  }

  /// The pair shows no more. One that has shown nothing may begin wherever the peer's acknowledgement stands.
  static func snoopEnds(_ pair: EngineProcess.Pair, on machine: Machine) {
    if pair.snd.written > 0, pair.conversation.isInsideTakenRecord(pair.snd.end) {
      machine.world.broken(
        .promise9, "snd of \(pair.conversation.name) ends at \(pair.snd.end), inside of a record")
    }
  }

  /// The engine says that it has written all records that it took, which end at `position`.
  static func recordsWritten(upTo position: Int, _ socket: KernelSocket, on machine: Machine) {
    guard !socket.tcp.isDead else { return }
    let end = socket.tcp.dataEnd - socket.conversation.localStart
    if end != position {
      machine.world.broken(
        .promise9,
        "\(machine.name) took records of \(socket.conversation.name) up to \(position), and wrote up to \(end)"
      )
    }
  }

  static func mergeRefused(_ pair: EngineProcess.Pair, _ reason: String, on machine: Machine) {
    guard pair.conversation.mustLive else { return }
    machine.world.broken(
      .promise8, "\(pair.conversation.name) cannot be merged on \(machine.name): \(reason)")
  }

  // MARK: What applications read

  static func read(_ bytes: [UInt8], _ socket: KernelSocket, on machine: Machine) {
    let conversation = socket.conversation
    for (offset, byte) in bytes.enumerated() where byte != conversation.peerByte(socket.readPosition + offset)
    {
      return machine.world.broken(
        .stream,
        "the application on \(machine.name) reads a wrong byte of \(conversation.name) at \(socket.readPosition + offset)"
      )
    }
  }

  static func readEnd(_ socket: KernelSocket, on machine: Machine) {
    if socket.readPosition != socket.conversation.plan.peerTotal {
      machine.world.broken(
        .stream,
        "the application on \(machine.name) reads the end of \(socket.conversation.name) after "
          + "\(socket.readPosition) of \(socket.conversation.plan.peerTotal) bytes")
    }
  }

  // MARK: One socket's trouble

  static func unreplicated(_ handle: Handle, _ reason: UnreplicateReason, on machine: Machine) {
    let world = machine.world
    guard world.scenario.kind == .isolation, let conversation = world.conversation(handle) else { return }
    if conversation.plan.snooperStuckFor == 0, reason != .closed {
      world.broken(
        .promise7,
        "\(conversation.name) is unreplicated (\(reason)), though only another one's snooper is stuck")
    }
  }

  static func stillHeld(since: TrueTime, _ number: Int, on machine: Machine) {
    let world = machine.world
    guard machine.engine?.isWell == true, machine.leaseIsInForce else { return }
    let age = world.now - since
    if world.scenario.kind == .isolation,
      let conversation = world.conversations.first(where: { $0.number == number }),
      conversation.plan.snooperStuckFor == 0, age > .milliseconds(150)
    {
      world.broken(
        .promise7,
        "a frame of \(conversation.name) is held for \(age / 1_000_000) ms by \(machine.name), though only another one's snooper is stuck: \(machine.engine!.node.occupancy)"
      )
    }
    // Whatever happens to the secondary, the primary goes on alone after the longest of its timeouts.
    let bound = world.scenario.detection * 3 + .seconds(5)
    if age > bound { world.broken(.liveness, "\(machine.name) holds a frame for \(age / 1_000_000) ms") }
  }

  static func memory(of engine: EngineProcess, on machine: Machine) {
    let world = machine.world
    let limits = world.scenario.limits
    let occupancy = engine.node.occupancy
    // A frame that was just let in may pass the limit by itself.
    let slack = 70_000
    if occupancy.sockets > limits.sockets {
      world.broken(.promise10, "\(machine.name) has \(occupancy.sockets) handles of \(limits.sockets)")
    }
    // Held for the log, and waiting for sockets: each within the limit.
    if occupancy.heldBytes > limits.holdBuffer * 2 {
      world.broken(.promise10, "\(machine.name) holds \(occupancy.heldBytes) bytes of packets")
    }
    if occupancy.unacknowledgedRecordBytes > limits.holdBuffer + slack * limits.sockets {
      world.broken(
        .promise10, "\(machine.name) has \(occupancy.unacknowledgedRecordBytes) bytes of records on their way"
      )
    }
    if occupancy.bufferedBytes > limits.sockets * 2 * (limits.holdBuffer + slack) {
      world.broken(.promise10, "\(machine.name) buffers \(occupancy.bufferedBytes) bytes")
    }
  }
}

extension Scenario.Kind {
  /// Whether the faults of such a scenario exclude two masters.
  public var excludesTwoMasters: Bool {
    switch self {
    case .linkFaults, .uplinkFaults, .isolation: true
    case .splitBrain, .frozenClock: false
    }
  }
}

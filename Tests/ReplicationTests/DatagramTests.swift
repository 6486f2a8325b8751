import OrderedCollections
import Packet
import Testing

@testable import Replication

/// UDP sockets: each datagram is on both REs before it can matter, once and in order, or it is lost as a whole.
@Suite struct DatagramTests {
  typealias Mode = ReplicationNode.Mode

  static let local = Endpoint(IPAddress(v4: 0x0505_0505), 17_000)
  static let peers = (1...3).map { Endpoint(IPAddress(v4: 0x0505_0404), 50_000 + UInt16($0)) }
  static let unconnected = Flow(unconnected: local)
  static let connected = Flow(.udp, local: local, remote: peers[0])

  static func datagram(_ payload: [UInt8], _ peer: Int = 0) -> Datagram {
    Datagram(remote: peers[peer], local: local, payload: payload)
  }

  /// A pair in step, and a socket on re0 that has `unread` in its queue.
  private func pair(
    _ flow: Flow, mode: Mode = .overlap, unread: [Datagram] = [], limit: Int = 1 << 20
  ) -> SimulatedPair {
    let pair = SimulatedPair(mode: mode, limit: limit)
    pair.start()
    pair.engines[0].datagramSockets[flow] = unread
    return pair
  }

  private func replicated(
    _ flow: Flow, mode: Mode = .overlap, unread: [Datagram] = [], limit: Int = 1 << 20
  ) throws -> (SimulatedPair, primary: Handle, secondary: Handle) {
    let pair = pair(flow, mode: mode, unread: unread, limit: limit)
    let handles = try pair.replicate(flow)
    pair.settle()
    #expect(pair.engines[0].replicated.contains(handles.primary))
    #expect(pair.engines[1].replicated.contains(handles.secondary))
    return (pair, handles.primary, handles.secondary)
  }

  private func phase(_ pair: SimulatedPair, _ handle: Handle, slot: Int = 0) -> SocketPhase? {
    try? pair.engines[slot].node.socket(handle).phase
  }

  @Test(
    "3.14 the pair shows every datagram of both directions, once and in order, with its two ends",
    arguments: [Mode.overlap, .strict], [connected, unconnected])
  func bothDirections(mode: Mode, flow: Flow) throws {
    let unread = [Self.datagram([1]), Self.datagram([]), Self.datagram([1, 2, 3])]
    let (pair, primary, secondary) = try replicated(flow, mode: mode, unread: unread)
    let peerCount = flow.isUnconnected ? 3 : 1
    var sent: [Datagram] = []
    var received = unread
    for number in 0..<20 as Range<UInt8> {
      let peer = Int(number) % peerCount
      let question = Self.datagram([UInt8](repeating: number, count: Int(number) * 70), peer)
      pair.peerSends(question)
      received.append(question)
      pair.settle()
      let answer = Self.datagram([UInt8](repeating: 100 + number, count: Int(19 - number)), peer)
      pair.engines[0].send(answer)
      sent.append(answer)
      pair.settle()
    }
    #expect(pair.engines[1].shown[secondary]?[.rcv] == received)
    #expect(pair.engines[1].shown[secondary]?[.snd] == sent)
    #expect(pair.engines[0].datagramSockets[flow] == received)
    #expect(pair.datagramsLeft == sent)
    let view = try pair.engines[0].node.socket(primary)
    #expect(view.transport == .udp && view.block == nil && view.flow == flow)
    #expect(try pair.engines[1].node.socket(secondary).positions == view.positions)
    #expect(try pair.engines[1].node.options(of: secondary) == [4, 2])
    #expect(pair.engines[0].heldFrames == 0)
    #expect(pair.engines[0].node.occupancy.heldBytes == 0)
    #expect(pair.engines[0].node.occupancy.unacknowledgedRecords == 0)
    let statistics = pair.engines[0].node.statistics
    #expect(statistics.prlRecordsSent == 20 && statistics.sdrlRecordsSent == 20)
    #expect(pair.violations == [])
  }

  @Test("What leaves waits for what was taken in before; strict mode delivers nothing before it is safe")
  func holding() throws {
    for mode in [Mode.overlap, .strict] {
      let (pair, _, secondary) = try replicated(Self.unconnected, mode: mode)
      pair.engines[1].withholdsAcknowledgements = true
      pair.peerSends(Self.datagram([1]))
      pair.settle()
      #expect(pair.engines[0].datagramSockets[Self.unconnected]?.count == (mode == .strict ? 0 : 1))
      #expect(pair.engines[1].shown[secondary]?[.rcv]?.count == 1)
      pair.engines[0].send(Self.datagram([2]))
      pair.engines[0].send(Self.datagram([3], 2))
      pair.settle()
      #expect(pair.datagramsLeft == [])
      pair.engines[1].withholdsAcknowledgements = false
      pair.engines[1].node.linkBatchEnded(now: pair.now)
      pair.engines[1].perform()
      pair.settle()
      #expect(pair.datagramsLeft == [Self.datagram([2]), Self.datagram([3], 2)])
      #expect(pair.engines[0].datagramSockets[Self.unconnected] == [Self.datagram([1])])
      #expect(pair.violations == [])
    }
  }

  @Test("A damaged datagram is in nobody's log") func damaged() throws {
    let (pair, _, secondary) = try replicated(Self.connected)
    var frame = Self.datagram([1, 2, 3]).frame(fromPeer: true)
    frame[frame.count - 1] ^= 4
    pair.engines[0].arrive(frame)
    pair.settle()
    #expect(pair.engines[0].node.statistics.droppedForChecksum == 1)
    #expect(pair.engines[0].datagramSockets[Self.connected] == [])
    #expect(pair.engines[1].shown[secondary]?[.rcv] == nil)
  }

  @Test(
    "A full log or hold buffer loses datagrams, which are counted; none goes on without the secondary",
    arguments: [Mode.overlap, .strict])
  func full(mode: Mode) throws {
    let (pair, _, secondary) = try replicated(Self.connected, mode: mode, limit: 5_000)
    pair.engines[1].withholdsAcknowledgements = true
    for number in 0..<20 as Range<UInt8> {
      let payload = [UInt8](repeating: number, count: 500)
      pair.peerSends(Self.datagram(payload))
      pair.settle(atMost: 100)
      pair.engines[0].send(Self.datagram(payload))
      pair.settle(atMost: 100)
    }
    let statistics = pair.engines[0].node.statistics
    #expect(statistics.datagramsDropped > 20 && statistics.droppedForLimit == 0)
    let logged = Int(statistics.prlRecordsSent + statistics.sdrlRecordsSent)
    #expect(logged + Int(statistics.datagramsDropped) == 40)
    #expect(pair.engines[0].node.occupancy.heldBytes <= 5_000)
    pair.engines[1].withholdsAcknowledgements = false
    pair.engines[1].node.linkBatchEnded(now: pair.now)
    pair.engines[1].perform()
    pair.settle()
    #expect(pair.datagramsLeft == pair.engines[1].shown[secondary]?[.snd])
    #expect(pair.engines[0].datagramSockets[Self.connected] == pair.engines[1].shown[secondary]?[.rcv])
    // The first ones found room, and the next do again.
    #expect(pair.datagramsLeft.first == Self.datagram([UInt8](repeating: 0, count: 500)))
    pair.engines[0].send(Self.datagram([99]))
    pair.settle()
    #expect(pair.datagramsLeft.last == Self.datagram([99]))
    #expect(pair.violations == [])
  }

  @Test("A pause holds both directions back, and they go on in order") func pause() throws {
    let (pair, primary, secondary) = try replicated(Self.connected)
    pair.engines[1].node.snoopPressure(secondary, isHigh: true)
    pair.engines[1].perform()
    pair.settle()
    for number in 0..<5 as Range<UInt8> {
      pair.peerSends(Self.datagram([number]))
      pair.settle()
      pair.engines[0].send(Self.datagram([number]))
      pair.settle()
    }
    #expect(pair.engines[0].datagramSockets[Self.connected] == [] && pair.datagramsLeft == [])
    #expect(pair.engines[0].node.occupancy.waitingPackets == 10)
    pair.engines[1].node.snoopPressure(secondary, isHigh: false)
    pair.engines[1].perform()
    pair.settle()
    let all = (0..<5 as Range<UInt8>).map { Self.datagram([$0]) }
    #expect(pair.engines[0].datagramSockets[Self.connected] == all && pair.datagramsLeft == all)
    // A snooper that stays behind loses its pair.
    pair.engines[1].node.snoopPressure(secondary, isHigh: true)
    pair.engines[1].perform()
    pair.advance(milliseconds: 1_200)
    #expect(pair.engines[0].unreplicated[primary] == .snoopBufferFull)
    #expect(pair.violations == [])
  }

  @Test("When replication ends, what is held goes before what waits, and both before what comes then")
  func orderAtTheEnd() throws {
    for mode in [Mode.overlap, .strict] {
      let (pair, primary, _) = try replicated(Self.connected, mode: mode)
      let other = pair.converse()
      try pair.replicate(other)
      pair.settle()
      pair.engines[1].withholdsAcknowledgements = true
      // Another socket's segment stands at the head of the queue.
      pair.localWrites(other, 50)
      let numbers = 0..<6 as Range<UInt8>
      for number in numbers {
        if number == 3 {
          try pair.engines[0].node.unreplicate(primary, now: pair.now)
          pair.engines[0].perform()
        }
        pair.engines[0].send(Self.datagram([number]))
        pair.engines[0].arrive(Self.datagram([number]).frame(fromPeer: true))
      }
      #expect(pair.datagramsLeft == [])
      pair.settle()
      #expect(pair.engines[0].unreplicated[primary] == .requested)
      pair.engines[0].send(Self.datagram([6]))
      pair.engines[0].arrive(Self.datagram([6]).frame(fromPeer: true))
      let all = (numbers.lowerBound...6).map { Self.datagram([$0]) }
      #expect(pair.datagramsLeft == all)
      #expect(pair.engines[0].datagramSockets[Self.connected] == all)
      let statistics = pair.engines[0].node.statistics
      #expect(statistics.sdrlReinjection.unreplicated == 6)
      #expect(pair.violations == [])
    }
  }

  @Test("A connected socket comes before the unconnected one of its local end, and each has its own")
  func sharedLocalEnd() throws {
    let (pair, _, secondary) = try replicated(Self.unconnected)
    pair.engines[0].datagramSockets[Self.connected] = []
    let own = try pair.replicate(Self.connected)
    pair.settle()
    for peer in 0...1 {
      pair.peerSends(Self.datagram([1], peer))
      pair.settle()
      pair.engines[0].send(Self.datagram([2], peer))
      pair.settle()
    }
    for stream in SnoopStream.allCases {
      let payload: [UInt8] = stream == .rcv ? [1] : [2]
      #expect(pair.engines[1].shown[own.secondary]?[stream] == [Self.datagram(payload, 0)])
      #expect(pair.engines[1].shown[secondary]?[stream] == [Self.datagram(payload, 1)])
    }
    // It goes on alone: what it exchanges is not the unconnected one's, as long as it has its handle.
    try pair.engines[0].node.unreplicate(own.primary, now: pair.now)
    pair.engines[0].perform()
    pair.settle()
    pair.engines[0].send(Self.datagram([3]))
    pair.peerSends(Self.datagram([4]))
    pair.settle()
    #expect(pair.datagramsLeft.last == Self.datagram([3]))
    #expect(pair.engines[0].datagramSockets[Self.connected]?.last == Self.datagram([4]))
    #expect(pair.engines[1].shown[secondary]?[.snd]?.count == 1)
    try pair.engines[0].node.free(own.primary)
    pair.engines[0].send(Self.datagram([5]))
    pair.settle()
    #expect(pair.engines[1].shown[secondary]?[.snd]?.last == Self.datagram([5]))
    #expect(pair.violations == [])
  }

  @Test(
    "The handshake of a connected socket waits until nothing of it is held as the unconnected one's",
    arguments: [Mode.overlap, .strict])
  func separation(mode: Mode) throws {
    let (pair, _, secondary) = try replicated(Self.unconnected, mode: mode)
    pair.engines[0].datagramSockets[Self.connected] = []
    pair.engines[1].withholdsAcknowledgements = true
    pair.engines[0].arrive(Self.datagram([1]).frame(fromPeer: true))
    pair.engines[0].send(Self.datagram([2]))
    let own = try pair.replicate(Self.connected)
    pair.settle()
    #expect(!pair.engines[0].steers(Self.connected))
    pair.engines[0].arrive(Self.datagram([3]).frame(fromPeer: true))
    pair.engines[0].send(Self.datagram([4]))
    pair.engines[1].withholdsAcknowledgements = false
    pair.engines[1].node.linkBatchEnded(now: pair.now)
    pair.engines[1].perform()
    pair.settle()
    #expect(pair.engines[0].steers(Self.connected))
    #expect(phase(pair, own.primary) == .replicating)
    #expect(pair.engines[1].shown[secondary] == [.rcv: [Self.datagram([1])], .snd: [Self.datagram([2])]])
    // What it had not read is in its own handshake.
    #expect(pair.engines[1].shown[own.secondary]?[.rcv] == [Self.datagram([1]), Self.datagram([3])])
    #expect(pair.engines[1].shown[own.secondary]?[.snd] == [Self.datagram([4])])
    #expect(pair.datagramsLeft == [Self.datagram([2]), Self.datagram([4])])
    #expect(pair.engines[0].datagramSockets[Self.connected] == [Self.datagram([1]), Self.datagram([3])])
    #expect(pair.violations == [])
  }

  @Test("A connected socket that is refused meanwhile waits behind what is held of it, too")
  func refusedBeforeItsHandshake() throws {
    let (pair, _, _) = try replicated(Self.unconnected, mode: .strict)
    pair.engines[0].datagramSockets[Self.connected] = []
    pair.engines[1].withholdsAcknowledgements = true
    pair.engines[0].arrive(Self.datagram([1]).frame(fromPeer: true))
    let own = try pair.replicate(Self.connected)
    pair.engines[0].arrive(Self.datagram([2]).frame(fromPeer: true))
    pair.cutLink()
    #expect(pair.engines[0].refused[own.primary] == .linkLost)
    pair.engines[0].arrive(Self.datagram([3]).frame(fromPeer: true))
    #expect(pair.engines[0].datagramSockets[Self.connected] == [])
    pair.advance(milliseconds: 2_000)
    #expect(pair.engines[0].datagramSockets[Self.connected] == [1, 2, 3].map { Self.datagram([$0]) })
    #expect(pair.engines[0].heldFrames == 0)
    #expect(pair.engines[0].node.occupancy.waitingPackets == 0)
    #expect(pair.violations == [])
  }

  @Test("What waits for the unconnected socket and is of the connected one goes over to it, in order")
  func adoption() throws {
    let (pair, primary, secondary) = try replicated(Self.unconnected)
    pair.engines[0].datagramSockets[Self.connected] = []
    pair.engines[1].node.snoopPressure(secondary, isHigh: true)
    pair.engines[1].perform()
    pair.settle()
    for peer in [0, 1, 0] {
      pair.engines[0].arrive(Self.datagram([UInt8(peer), 1], peer).frame(fromPeer: true))
      pair.engines[0].send(Self.datagram([UInt8(peer), 2], peer))
    }
    let before = pair.engines[0].node.occupancy
    #expect(before.waitingPackets == 6)
    let own = try pair.replicate(Self.connected)
    pair.settle()
    #expect(phase(pair, own.primary) == .replicating && phase(pair, primary) == .replicating)
    #expect(pair.engines[1].shown[own.secondary]?[.rcv]?.count == 2)
    #expect(pair.engines[1].shown[own.secondary]?[.snd]?.count == 2)
    #expect(pair.engines[0].node.occupancy.waitingPackets == 2)
    pair.engines[1].node.snoopPressure(secondary, isHigh: false)
    pair.engines[1].perform()
    pair.settle()
    #expect(pair.engines[1].shown[secondary]?[.snd] == [Self.datagram([1, 2], 1)])
    #expect(pair.engines[0].node.occupancy.waitingBytes == 0 && pair.engines[0].heldFrames == 0)
    #expect(pair.violations == [])
  }

  @Test("A merge brings flow and options, and sends nothing again") func merge() throws {
    for flow in [Self.connected, Self.unconnected] {
      let (pair, _, secondary) = try replicated(flow)
      pair.peerSends(Self.datagram([1]))
      pair.engines[0].send(Self.datagram([2]))
      pair.settleLink()
      pair.engines[0].send(Self.datagram([3]))
      pair.settleLink()
      let left = pair.datagramsLeft
      pair.killPrimary(kernelLives: false)
      #expect(pair.takeOver())
      // What comes before the merge waits for it.
      pair.engines[1].arrive(Self.datagram([4]).frame(fromPeer: true))
      #expect(pair.engines[1].node.occupancy.waitingPackets == 1)
      guard case .datagrams(let plan) = try pair.engines[1].node.merge(secondary, now: pair.now) else {
        Issue.record("a UDP socket is merged as a TCP connection")
        return
      }
      #expect(plan.flow == flow && plan.options == [4, 2])
      pair.engines[1].datagramSockets[flow] = []
      pair.engines[1].send(Self.datagram([5]))
      #expect(pair.datagramsLeft == left)
      pair.engines[1].node.merged(secondary, succeeded: true)
      pair.engines[1].perform()
      #expect(pair.engines[1].datagramSockets[flow] == [Self.datagram([4])])
      #expect(pair.datagramsLeft == left + [Self.datagram([5])])
      #expect(pair.engines[1].node.occupancy == Occupancy())
      #expect(pair.engines[1].node.statistics.socketsMerged == 1)
      #expect(pair.violations == [])
    }
  }

  @Test("A connected socket that is merged sends, though the unconnected one of its local end is not yet")
  func mergeOneByOne() throws {
    let (pair, _, secondary) = try replicated(Self.unconnected)
    pair.engines[0].datagramSockets[Self.connected] = []
    let own = try pair.replicate(Self.connected)
    pair.settle()
    pair.killPrimary(kernelLives: true)
    #expect(pair.takeOver())
    _ = try pair.engines[1].node.merge(own.secondary, now: pair.now)
    pair.engines[1].datagramSockets[Self.connected] = []
    pair.engines[1].node.merged(own.secondary, succeeded: true)
    pair.engines[1].perform()
    pair.engines[1].send(Self.datagram([1]))
    #expect(pair.datagramsLeft == [Self.datagram([1])])
    #expect(phase(pair, secondary, slot: 1) == .snooping)
  }

  @Test(
    "A planned switchover: nothing leaves the old primary any more, and what reaches it goes over the link")
  func switchover() throws {
    let (pair, primary, secondary) = try replicated(Self.unconnected)
    pair.engines[0].send(Self.datagram([1]))
    pair.settle()
    try pair.engines[0].node.releaseMastership(now: pair.now)
    pair.engines[0].perform()
    pair.engines[0].send(Self.datagram([2]))
    pair.engines[0].arrive(Self.datagram([3], 1).frame(fromPeer: true))
    pair.advance(milliseconds: 300)
    #expect(pair.engines[1].node.arbiter.phase == .primary)
    #expect(pair.engines[0].unreplicated[primary] == .mastershipLost)
    // The flow is forgotten; late datagrams are not.
    pair.engines[0].arrive(Self.datagram([4], 2).frame(fromPeer: true))
    pair.settle()
    #expect(pair.engines[0].node.statistics.forwardedLate == 2)
    _ = try pair.engines[1].node.merge(secondary, now: pair.now)
    pair.engines[1].datagramSockets[Self.unconnected] = []
    pair.engines[1].node.merged(secondary, succeeded: true)
    pair.engines[1].perform()
    #expect(
      pair.engines[1].datagramSockets[Self.unconnected] == [Self.datagram([3], 1), Self.datagram([4], 2)])
    #expect(pair.datagramsLeft == [Self.datagram([1])])
    #expect(pair.violations == [])
  }

  @Test("What reaches the old primary goes over the link also when it follows the flow already")
  func lateForFollowed() throws {
    let (pair, _, secondary) = try replicated(Self.unconnected)
    try pair.engines[0].node.releaseMastership(now: pair.now)
    pair.engines[0].perform()
    pair.advance(milliseconds: 300)
    _ = try pair.engines[1].node.merge(secondary, now: pair.now)
    pair.engines[1].datagramSockets[Self.unconnected] = []
    pair.engines[1].node.merged(secondary, succeeded: true)
    pair.engines[1].perform()
    let again = try pair.replicate(Self.unconnected, slot: 1)
    pair.settle()
    #expect(phase(pair, again.secondary) == .snooping)

    let late = Self.datagram([7], 1)
    pair.engines[0].arrive(late.frame(fromPeer: true))
    pair.settle()
    #expect(pair.engines[0].node.statistics.forwardedLate == 1)
    #expect(pair.engines[1].datagramSockets[Self.unconnected] == [late])
    #expect(pair.engines[0].shown[again.secondary]?[.rcv] == [late], "it is replicated like any other")
    // Only as long as a peer may not have heard of the new place.
    pair.advance(milliseconds: 2_000)
    pair.engines[0].arrive(Self.datagram([8], 1).frame(fromPeer: true))
    pair.settle()
    #expect(pair.engines[0].node.statistics.forwardedLate == 1)
    #expect(pair.engines[0].node.statistics.droppedAsSecondary == 1)
    #expect(pair.violations == [])
  }

  @Test("What comes while mastership is being taken over waits for the merge, or is gone with it")
  func duringTakeover() throws {
    for isGranted in [true, false] {
      let (pair, _, secondary) = try replicated(Self.connected)
      let next = pair.engines[1]
      next.answersLease = false
      try pair.engines[0].node.releaseMastership(now: pair.now)
      pair.engines[0].perform()
      pair.settle()
      #expect(next.node.arbiter.phase == .takingOver)
      next.arrive(Self.datagram([1]).frame(fromPeer: true))
      pair.engines[0].arrive(Self.datagram([2]).frame(fromPeer: true))
      pair.settle()
      #expect(next.heldFrames == 2)
      next.node.leaseGranted(isGranted, now: pair.now)
      next.perform()
      guard isGranted else {
        #expect(next.node.arbiter.phase != .primary)
        #expect(next.heldFrames == 0 && next.node.occupancy.waitingBytes == 0)
        #expect(next.node.statistics.prlReinjection.discarded == 2)
        continue
      }
      _ = try next.node.merge(secondary, now: pair.now)
      next.datagramSockets[Self.connected] = []
      next.node.merged(secondary, succeeded: true)
      next.perform()
      #expect(next.datagramSockets[Self.connected] == [Self.datagram([1]), Self.datagram([2])])
      #expect(next.heldFrames == 0 && next.node.occupancy.waitingBytes == 0)
      #expect(pair.violations == [])
    }
  }

  @Test("Losing the link ends replication and nothing else; until the pair is void nothing leaves")
  func linkLoss() throws {
    let (pair, primary, secondary) = try replicated(Self.connected)
    pair.engines[1].withholdsAcknowledgements = true
    pair.engines[0].send(Self.datagram([1]))
    pair.settle()
    pair.cutLink()
    pair.engines[0].send(Self.datagram([2]))
    pair.engines[0].arrive(Self.datagram([3]).frame(fromPeer: true))
    #expect(pair.datagramsLeft == [])
    pair.advance(milliseconds: 2_000)
    #expect(pair.engines[0].unreplicated[primary] == .linkLost)
    #expect(phase(pair, secondary, slot: 1) == .unreplicated(.linkLost))
    #expect(pair.datagramsLeft == [Self.datagram([1]), Self.datagram([2])])
    #expect(pair.engines[0].datagramSockets[Self.connected] == [Self.datagram([3])])
    #expect(pair.engines[0].heldFrames == 0)
    #expect(pair.violations == [])
  }

  @Test("A silent secondary is given up after the timeout of the layer that waits") func timeout() throws {
    for mode in [Mode.overlap, .strict] {
      let (pair, primary, _) = try replicated(Self.connected, mode: mode)
      pair.engines[1].withholdsAcknowledgements = true
      if mode == .strict {
        pair.peerSends(Self.datagram([1]))
      } else {
        pair.engines[0].send(Self.datagram([1]))
      }
      pair.settle()
      pair.advance(milliseconds: 1_200)
      #expect(pair.engines[0].unreplicated[primary] == (mode == .strict ? .prlTimeout : .sdrlTimeout))
      #expect(pair.engines[0].heldFrames == 0)
    }
  }

  @Test("A pair of the other transport is not filled, and waits on", arguments: [true, false])
  func wrongTransport(pairIsTCP: Bool) throws {
    let pair = pair(Self.connected)
    if pairIsTCP {
      let handles = try pair.replicate(Self.connected, attachedFor: .tcp)
      pair.settle()
      #expect(pair.engines[0].refused[handles.primary] == .wrongTransport)
      #expect(phase(pair, handles.secondary, slot: 1) == .attached)
      #expect(pair.engines[0].datagramSockets[Self.connected] == [])
    } else {
      let conversation = pair.converse()
      conversation.primaryHandle = try pair.engines[0].node.allocate()
      conversation.secondaryHandle = try pair.engines[1].node.attach(
        primary: conversation.primaryHandle!, transport: .udp)
      try pair.engines[0].node.replicate(
        conversation.primaryHandle!, secondary: conversation.secondaryHandle!, flow: conversation.flow)
      pair.engines[0].perform()
      pair.settle()
      #expect(pair.engines[0].refused[conversation.primaryHandle!] == .wrongTransport)
      #expect(phase(pair, conversation.secondaryHandle!, slot: 1) == .attached)
    }
    #expect(pair.violations == [])
  }

  @Test("What an application asks for and cannot have is refused with its reason") func refusals() throws {
    let (pair, primary, _) = try replicated(Self.connected)
    #expect(throws: SocketError.noRecordsInDatagrams(primary)) {
      try pair.engines[0].node.beginRecords(primary, writtenUpTo: SequenceNumber(0))
    }
    let another = try pair.engines[0].node.allocate()
    let secondary = try pair.engines[1].node.attach(primary: another, transport: .udp)
    #expect(throws: SocketError.flowInUse(Self.connected)) {
      try pair.engines[0].node.replicate(another, secondary: secondary, flow: Self.connected)
    }
    // A snapshot of the other kind is nobody's.
    try pair.engines[0].node.replicate(
      another, secondary: secondary, flow: Flow(unconnected: Endpoint(Self.local.address, 1)))
    let block = ControlBlock(
      sendUnacknowledged: SequenceNumber(0), sendNext: SequenceNumber(0), sendWindow: 0,
      sendWindowUpdate: SequenceNumber(0), maximumSendWindow: 0, receiveAcknowledged: SequenceNumber(0),
      receiveNext: SequenceNumber(0), receiveWindow: 0, timestampRecent: 0, timestampSent: 0,
      negotiated: NegotiatedOptions(
        maximumSegmentSize: 1, sendWindowScale: nil, receiveWindowScale: nil, sackPermitted: false,
        timestamps: false))
    pair.engines[0].node.actions = []
    pair.engines[0].node.snapshotTaken(
      another,
      SocketSnapshot(
        block: block, sendQueue: [], receiveQueue: [], finSent: false, finAcknowledged: false,
        finReceived: false, options: []), now: pair.now)
    #expect(pair.engines[0].node.actions.isEmpty)
    // One datagram that no record can hold.
    pair.engines[0].node.datagramSnapshotTaken(
      another,
      DatagramSnapshot(
        receiveQueue: [
          Datagram(remote: Self.peers[0], local: Self.local, payload: [UInt8](repeating: 0, count: 2 << 20))
        ],
        options: []), now: pair.now)
    pair.engines[0].perform()
    #expect(pair.engines[0].refused[another] == .limitReached)
  }

  // MARK: Versions of the link, and routing instances

  @Test("An older link has neither UDP sockets nor routing instances", arguments: [1, 2] as [UInt16])
  func olderLink(version: UInt16) throws {
    let pair = SimulatedPair(linkVersions: [1...version, LinkVersion.supported])
    pair.start()
    let handle = try pair.engines[0].node.allocate()
    let udp = SocketError.engineTooOld(version: version, lacks: "UDP sockets")
    #expect(throws: udp) { _ = try pair.engines[1].node.attach(primary: handle, transport: .udp) }
    let secondary = try pair.engines[1].node.attach(primary: handle)
    #expect(throws: udp) {
      try pair.engines[0].node.replicate(handle, secondary: secondary, flow: Self.connected)
    }
    let conversation = pair.converse()
    var flow = conversation.flow
    flow.instance = RoutingInstanceID(rawValue: 7)
    #expect(throws: SocketError.engineTooOld(version: version, lacks: "routing instances")) {
      try pair.engines[0].node.replicate(handle, secondary: secondary, flow: flow)
    }
    #expect("\(udp)".contains("version \(version) of the link has no UDP sockets"))
    if version >= LinkVersion.hasServices {
      for engine in pair.engines {
        try engine.node.register(ServiceTests.echo)
        engine.perform()
      }
      pair.settle()
      #expect(throws: udp) {
        try pair.engines[0].node.request(
          ReplicationRequest(service: ServiceTests.echo, primary: handle, flow: Self.connected, note: []),
          now: pair.now)
      }
    }
    #expect(pair.engines[0].node.occupancy.flows == 0)
  }

  @Test(
    "A flow goes over the link as it is, in the handshake and in a request",
    arguments: [0, 7, .max] as [UInt64])
  func flowOnTheLink(instance: UInt64) throws {
    let pair = SimulatedPair()
    pair.start()
    for engine in pair.engines {
      try engine.node.register(ServiceTests.echo)
      engine.perform()
    }
    pair.settle()
    let primary = try pair.engines[0].node.allocate()
    let flow = Flow(unconnected: Self.local, instance: RoutingInstanceID(rawValue: instance))
    let request = ReplicationRequest(service: ServiceTests.echo, primary: primary, flow: flow, note: [1])
    try ServiceTests.ask(pair, request)
    let asked = pair.engines[1].services.compactMap { action in
      if case .requested(let request) = action { request.flow } else { nil }
    }
    #expect(asked == [flow])
    let secondary = try pair.engines[1].node.attach(primary: primary, transport: flow.transport)
    try pair.engines[1].node.answerRequest(primary, with: secondary)
    pair.engines[1].perform()
    pair.settle()
    pair.engines[0].datagramSockets[flow] = []
    try pair.engines[0].node.replicate(primary, secondary: secondary, flow: flow)
    pair.engines[0].perform()
    pair.settle()
    #expect(try pair.engines[1].node.socket(secondary).flow == flow)
    #expect(phase(pair, secondary, slot: 1) == .snooping)
  }

  @Test("The same ends in another instance are another flow, and a late frame names its own")
  func instances() throws {
    let (pair, _, _) = try replicated(Self.connected)
    let other = RoutingInstanceID(rawValue: 9)
    let frame = Self.datagram([1]).frame(fromPeer: true)
    let packet = try #require(frame.withUnsafeBytes { UDPPacket($0) })
    func verdict(_ instance: RoutingInstanceID) -> Verdict {
      pair.engines[0].node.inbound(
        packet, reference: FrameReference(-1), byteCount: frame.count, instance: instance, now: pair.now
      ) { true }
    }
    let before = pair.engines[0].node.statistics.prlRecordsSent
    #expect(verdict(other) == .pass)
    #expect(pair.engines[0].node.statistics.prlRecordsSent == before)
    #expect(verdict(.main) == .pass)
    #expect(pair.engines[0].node.statistics.prlRecordsSent == before + 1)
    pair.engines[0].node.actions = []
    let handle = try pair.engines[0].node.allocate()
    let secondary = try pair.engines[1].node.attach(primary: handle, transport: .udp)
    var flow = Self.connected
    flow.instance = other
    try pair.engines[0].node.replicate(handle, secondary: secondary, flow: flow)
    #expect(verdict(other) == .hold)
    pair.engines[0].node.actions = []
    try pair.engines[0].node.releaseMastership(now: pair.now)
    pair.engines[0].node.actions = []
    var node = pair.engines[0].node
    node.forwards[flow] = pair.now + .seconds(1)
    node.flows[flow] = nil
    _ = node.inbound(
      packet, reference: FrameReference(-1), byteCount: frame.count, instance: other, now: pair.now
    ) { true }
    guard case .appendLateFrame(let header) = node.actions.last else {
      Issue.record("a late datagram is not passed on")
      return
    }
    #expect(header.handle.rawValue == 9 && header.kind == .prlLateFrame)
  }

  @Test("5.1.6 at debug every datagram has a line on both sides") func lines() throws {
    let pair = pair(Self.connected, unread: [Self.datagram([1, 2])])
    for engine in pair.engines { engine.node.logsRecords = true }
    let handles = try pair.replicate(Self.connected)
    pair.settle()
    pair.peerSends(Self.datagram([3]))
    pair.engines[0].send(Self.datagram([]))
    pair.settle()
    let peer = Self.peers[0]
    for (slot, way, handle) in [(0, "sent", handles.primary), (1, "received", handles.secondary)] {
      let lines = pair.engines[slot].lines.map(\.text).filter { $0.contains("Datagram") }
      #expect(
        lines.contains { $0.hasSuffix("\(way) for socket \(handle): prlDatagram, 1 bytes from \(peer)") })
      #expect(
        lines.contains { $0.hasSuffix("\(way) for socket \(handle): sdrlDatagram, 0 bytes to \(peer)") })
      #expect(lines.count == 3)
      let states = pair.engines[slot].lines.map(\.text).filter { $0.contains("per-socket state initialized") }
      #expect(states == ["PRL", "SDRL"].map { "\($0) per-socket state initialized for socket \(handle)" })
    }
  }
}

public import Packet
public import Replication

/// A state of a node to start from, and what the other node said next in truth.
///
/// Each scene is a step of one story: two nodes meet, replicate sockets, talk, close, hand mastership over or
/// lose each other.
public enum Scene: Int, CaseIterable, Sendable {
  /// Secondary to be; the link has just been connected.
  case greeting
  /// Secondary with two handles that wait for their handshake.
  case attached
  /// Secondary in the middle of a handshake: the flow is not steered yet.
  case receiving
  /// Secondary that follows a socket, and waits for another.
  case snooping
  /// Secondary that took over with a snoop pair; the link has just been connected again.
  case takenOver
  /// Primary whose snapshot is on its way.
  case starting
  /// Primary with two replicated sockets; records are not acknowledged, frames are held.
  case replicating
  /// Primary that waits for the secondary to let go of a pair.
  case ending
  /// Primary that has just handed mastership over.
  case handedOver
  /// Secondary whose pair waits for the handshake of a UDP socket.
  case attachedForDatagrams
  /// Secondary that follows a UDP socket.
  case snoopingDatagrams
  /// Primary with a UDP socket; records are not acknowledged, frames are held.
  case replicatingDatagrams

  /// Whether the node under test is the one that was primary first.
  private var slot: Int {
    switch self {
    case .greeting, .attached, .receiving, .snooping, .takenOver, .attachedForDatagrams,
      .snoopingDatagrams:
      1
    case .starting, .replicating, .ending, .handedOver, .replicatingDatagrams: 0
    }
  }

  /// The machine to be tested, and what it would be sent next.
  public func make(_ mode: ReplicationNode.Mode) -> (machine: Machine, next: [UInt8]) {
    var story = Story(mode)
    story.pair.openLink()
    var machine: Machine?
    func mark(_ story: inout Story) {
      machine = story.pair.machines[slot]
      story.pair.forget()
    }

    if self == .greeting { mark(&story) }
    story.meet()
    switch self {
    case .attachedForDatagrams, .snoopingDatagrams, .replicatingDatagrams:
      story.attach(1, transport: .udp)
      if self == .attachedForDatagrams { mark(&story) }
      story.replicate(0, Frames.datagrams)
      story.pair.exchange()
      if self == .snoopingDatagrams { mark(&story) }
      story.talkInDatagrams()
      if self == .replicatingDatagrams { mark(&story) }
      story.pair.exchange()
      story.pauseAndResume()
      story.talkInDatagrams()
      story.pair.exchange()
      story.unreplicate(0)
      story.pair.run(300)
      return (machine!, story.pair.heard[slot])
    default: break
    }
    story.attach(2)
    if self == .attached { mark(&story) }
    if self == .receiving { story.pair.use(1) { $0.answersSteering = false } }
    story.replicate(0)
    if self == .starting { mark(&story) }
    story.pair.exchange()
    if self == .receiving {
      mark(&story)
      story.steer(0)
      story.pair.exchange()
    }
    story.talk(0)
    story.pair.exchange()
    if self == .snooping { mark(&story) }
    story.replicate(1)
    story.pair.exchange()
    story.talk(1)
    if self == .replicating { mark(&story) }
    story.pair.exchange()
    if self == .takenOver {
      story.loseThePrimary()
      story.pair.openLink()
      mark(&story)
      story.pair.run(500)
      return (machine!, story.pair.heard[slot])
    }
    story.pauseAndResume()
    story.unreplicate(1)
    if self == .ending { mark(&story) }
    story.pair.exchange()
    story.close(0)
    story.pair.exchange()
    story.handOver()
    if self == .handedOver { mark(&story) }
    story.pair.exchange()
    story.pair.use(0) { $0.arrive(Frames.inbound(Frames.flow(1), received: 100, acknowledged: 4)) }
    story.pair.run(300)
    return (machine!, story.pair.heard[slot])
  }
}

/// What happens to a pair, in the order in which it may.
public struct Story {
  public var pair: NodePair
  public private(set) var primary: [Handle] = []
  public private(set) var secondary: [Handle] = []

  public init(_ mode: ReplicationNode.Mode) { pair = NodePair(mode: mode) }

  public mutating func meet() {
    pair.exchange()
    pair.run(400)
    precondition(pair.machines[0].node.arbiter.standbyIsReady, "the pair has not met")
  }

  public mutating func attach(_ count: Int, transport: TransportProtocol = .tcp) {
    for _ in 0..<count {
      var new: [Handle] = []
      pair.use(0) { machine in machine.call { node, _ in new.append(try node.allocate()) } }
      pair.use(1) { machine in
        machine.call { node, _ in new.append(try node.attach(primary: new[0], transport: transport)) }
      }
      primary.append(new[0])
      secondary.append(new[1])
    }
  }

  /// The secondary's flow is diverted at last.
  mutating func steer(_ number: Int) {
    let handle = secondary[number]
    pair.use(1) { machine in
      machine.answersSteering = true
      machine.call { node, _ in node.steered(handle) }
    }
  }

  public mutating func replicate(_ number: Int, _ flow: Flow? = nil) {
    let (handle, other) = (primary[number], secondary[number])
    pair.use(0) { machine in
      machine.call { node, _ in
        try node.replicate(handle, secondary: other, flow: flow ?? Frames.flow(number))
      }
    }
  }

  /// Datagrams both ways, of two peers.
  mutating func talkInDatagrams() {
    pair.use(0) { machine in
      for size in [0, 30, 900] {
        let payload = (0..<size).map { UInt8(truncatingIfNeeded: $0) }
        machine.arrive(Frames.datagram(peer: size % 4, isOutbound: false, payload: payload))
        machine.send(Frames.datagram(peer: size % 4, isOutbound: true, payload: payload))
      }
    }
  }

  /// Data both ways; from the peer also out of order.
  mutating func talk(_ number: Int) {
    let flow = Frames.flow(number)
    func bytes(_ range: Range<Int>) -> [UInt8] { range.map { UInt8(truncatingIfNeeded: $0) } }
    pair.use(0) { machine in
      machine.arrive(Frames.inbound(flow, received: 20, acknowledged: 4, payload: bytes(20..<50)))
      machine.send(Frames.outbound(flow, sent: 0, received: 0, payload: bytes(0..<30)))
      machine.arrive(Frames.inbound(flow, received: 0, acknowledged: 4, payload: bytes(0..<25)))
      machine.send(Frames.outbound(flow, sent: 0, received: 50, window: 990))
      machine.send(
        Frames.outbound(flow, sent: 30, received: 50, flags: [.ack, .psh], payload: bytes(30..<100)))
      machine.arrive(
        Frames.inbound(flow, received: 50, acknowledged: 34, clock: 902, payload: bytes(50..<100)))
    }
  }

  mutating func pauseAndResume() {
    let handle = secondary[0]
    for isHigh in [true, false] {
      pair.use(1) { machine in
        machine.call { node, _ in node.snoopPressure(handle, isHigh: isHigh) }
      }
      pair.exchange()
    }
  }

  mutating func unreplicate(_ number: Int) {
    let handle = primary[number]
    pair.use(0) { machine in
      machine.call { node, now in try node.unreplicate(handle, now: now) }
    }
  }

  mutating func close(_ number: Int) {
    let flow = Frames.flow(number)
    pair.use(0) { machine in
      machine.send(Frames.outbound(flow, sent: 100, received: 100, flags: [.ack, .fin]))
      machine.arrive(Frames.inbound(flow, received: 100, acknowledged: 105, flags: [.ack, .fin]))
      machine.send(Frames.outbound(flow, sent: 101, received: 101))
    }
  }

  /// The primary stops; the secondary takes over.
  mutating func loseThePrimary() {
    pair.use(1) { machine in
      machine.closeLink(.endOfStream)
      for _ in 0..<400 where machine.node.arbiter.phase != .primary { machine.tick(after: .milliseconds(5)) }
      precondition(machine.node.arbiter.phase == .primary, "nobody took over")
    }
    pair.use(0) { $0.closeLink(.closedHere) }
  }

  mutating func handOver() {
    pair.use(0) { machine in machine.call { node, now in try node.releaseMastership(now: now) } }
    precondition(pair.machines[0].node.arbiter.phase == .handingOver)
  }
}

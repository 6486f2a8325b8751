// Theory of operation
//
// Everything happens in events, one after the other, at moments of true time that no machine can see: each RE
// reads a clock of its own, which drifts. An event is a closure in a heap, ordered by its moment and then by
// when it was scheduled, so that a seed decides everything. Randomness comes in streams, one per purpose, so
// that leaving a fault out changes as little else as possible: that is what makes shrinking work.
//
// A packet enters at a peer (`PeerHost`), crosses the `Uplink`, meets the hook of an RE's kernel (`Machine`),
// which delivers it to a socket or hands it to the engine (`EngineProcess`: the real `ReplicationNode` and what
// `jsrd` does around it), and what leaves an RE passes `Machine.leave`, where the promises are checked.

import HeapModule
import Packet
import Replication

/// A moment that only the simulator knows, in nanoseconds from the start of a run.
typealias TrueTime = Int64

extension TrueTime {
  static func microseconds(_ count: Int64) -> TrueTime { count * 1_000 }
  static func milliseconds(_ count: Int64) -> TrueTime { count * 1_000_000 }
  static func seconds(_ count: Int64) -> TrueTime { count * 1_000_000_000 }
}

/// Two routing engines, their peers, and every path between them.
final class World {
  let scenario: Scenario
  private(set) var now: TrueTime = 0
  private var events = Heap<Event>()
  private var lastOrder: UInt64 = 0
  private let trace: ((String) -> Void)?

  private(set) var machines: [Machine] = []
  private(set) var link: InterRELink!
  private(set) var uplink: Uplink!
  private(set) var conversations: [Conversation] = []
  private var conversationsByFlow: [Flow: Conversation] = [:]
  private var conversationsByHandle: [Handle: Conversation] = [:]
  private var conversationsByNumber: [Int: Conversation] = [:]
  private var lastStamp: UInt64 = 0
  private var datagramsOnTheirWay: [UInt64: DatagramOnItsWay] = [:]
  let random: RandomStreams
  var statistics = RunStatistics()
  private(set) var violation: Violation?
  /// Faults are over, and everything is being made whole again.
  var isHealing = false
  /// Both REs hold a lease, for a reason that nothing excludes.
  var overlapIsExcused = false
  /// The RE that was primary last.
  var lastPrimary: Int?

  private struct Event: Comparable {
    var at: TrueTime
    var order: UInt64
    var body: () -> Void

    static func < (lhs: Event, rhs: Event) -> Bool { (lhs.at, lhs.order) < (rhs.at, rhs.order) }
    static func == (lhs: Event, rhs: Event) -> Bool { lhs.order == rhs.order }
  }

  /// - Parameter trace: is told the story, line by line; telling costs time.
  init(_ scenario: Scenario, trace: ((String) -> Void)?) {
    self.scenario = scenario
    self.trace = trace
    random = RandomStreams(seed: scenario.seed)
    link = InterRELink(world: self)
    uplink = Uplink(world: self)
    machines = (0...1).map { Machine(slot: $0, world: self) }
  }

  // MARK: Time

  /// Does something `delay` nanoseconds from now.
  func after(_ delay: TrueTime, _ body: @escaping () -> Void) {
    lastOrder += 1
    events.insert(Event(at: now + max(0, delay), order: lastOrder, body: body))
  }

  /// Some engine sleeps in the middle of its work, and the world goes on around it.
  private(set) var isNested = false

  func runNested(until end: TrueTime) {
    isNested = true
    run(until: end)
    isNested = false
  }

  /// Lets time pass until `end`, or until something is wrong.
  func run(until end: TrueTime) {
    while violation == nil, let next = events.min, next.at <= end {
      events.removeMin()
      now = next.at
      statistics.steps += 1
      next.body()
    }
    if violation == nil { now = max(now, end) }
  }

  /// Nothing more happens: what was to come holds on to everything.
  func end() { events = Heap() }

  // MARK: The story

  /// Tells what happens; the text is made only if somebody listens.
  func tell(_ who: @autoclosure () -> String, _ text: @autoclosure () -> String) {
    guard let trace else { return }
    trace("\(Self.milliseconds(now)) ms  \(who()): \(text())")
  }

  var isTold: Bool { trace != nil }

  static func milliseconds(_ time: TrueTime) -> String {
    let microseconds = String(time / 1_000 % 1_000)
    let whole = String(time / 1_000_000)
    return String(repeating: " ", count: max(0, 6 - whole.count)) + whole + "."
      + String(repeating: "0", count: 3 - microseconds.count) + microseconds
  }

  /// A promise is broken: the run ends here.
  func broken(_ check: Check, _ text: @autoclosure () -> String) {
    guard violation == nil else { return }
    let new = Violation(check: check, text: text(), at: now, step: statistics.steps)
    violation = new
    tell("CHECK", "\(new)")
  }

  // MARK: Conversations

  func add(_ conversation: Conversation) {
    conversations.append(conversation)
    conversationsByFlow[conversation.flow] = conversation
    conversationsByNumber[conversation.number] = conversation
  }

  /// Between two writes of either side. When all is whole again, nobody dawdles.
  func pause(of conversation: Conversation) -> TrueTime {
    isHealing ? min(.milliseconds(5), conversation.plan.pause) : conversation.plan.pause
  }

  /// The largest write of either side, in bytes.
  func largestWrite(of conversation: Conversation) -> Int {
    isHealing ? max(3_000, conversation.plan.largestWrite) : conversation.plan.largestWrite
  }

  func name(_ handle: Handle, _ conversation: Conversation) { conversationsByHandle[handle] = conversation }
  func conversation(_ flow: Flow) -> Conversation? { conversationsByFlow[flow] }
  func conversation(_ handle: Handle) -> Conversation? { conversationsByHandle[handle] }

  /// Over UDP, where an unconnected socket has no peer in its flow.
  func conversation(ofPeerPort port: UInt16) -> Conversation? {
    DatagramPeers.conversation(ofPort: port).flatMap { conversationsByNumber[$0] }
  }

  func conversation(of packet: ModelPacket, isOutbound: Bool) -> Conversation? {
    switch packet {
    case .tcp: conversation(packet.flow(isOutbound: isOutbound))
    case .udp(let packet):
      conversation(ofPeerPort: isOutbound ? packet.destination.port : packet.source.port)
    }
  }

  // MARK: Datagrams

  /// A number for a frame, higher than all before.
  func nextStamp() -> UInt64 {
    lastStamp += 1
    return lastStamp
  }

  func noteOnItsWay(_ datagram: DatagramOnItsWay, _ stamp: UInt64) { datagramsOnTheirWay[stamp] = datagram }
  func takeOnItsWay(_ stamp: UInt64) -> DatagramOnItsWay? { datagramsOnTheirWay.removeValue(forKey: stamp) }
}

/// Streams of random numbers, one per purpose.
final class RandomStreams {
  var network: SeededGenerator
  var scheduling: SeededGenerator
  var applications: SeededGenerator
  var peers: SeededGenerator

  init(seed: UInt64) {
    network = SeededGenerator(seed: seed &* 8 &+ 1)
    scheduling = SeededGenerator(seed: seed &* 8 &+ 2)
    applications = SeededGenerator(seed: seed &* 8 &+ 3)
    peers = SeededGenerator(seed: seed &* 8 &+ 4)
  }
}

/// What is held against every run.
public enum Check: String, Sendable, CaseIterable {
  case promise1 = "promise 1 (no acknowledgement of what the secondary lacks)"
  case promise2 = "promise 2 (no byte leaves that the secondary lacks)"
  case promise3 = "promise 3 (a merge covers all that has left)"
  case promise4 = "promise 4 (the window's right edge never moves back)"
  case promise5 = "promise 5 (the snoop pair is a prefix of the streams)"
  case promise6 = "promise 6 (only the master speaks)"
  case promise7 = "promise 7 (one socket's trouble is its own)"
  case promise8 = "promise 8 (no loss of the secondary ends a connection)"
  case promise9 = "promise 9 (records are whole)"
  case promise10 = "promise 10 (memory is bounded)"
  case twoMasters = "two masters"
  case stream = "streams (byte-exact, once, to the end)"
  case liveness = "liveness"
  case accounting = "accounting (all counts come back to zero)"
  case protocolUse = "use of the protocol"
}

/// A promise that was broken: which, by what, when.
public struct Violation: Sendable, CustomStringConvertible {
  public var check: Check
  public var text: String
  /// Nanoseconds of true time.
  public var at: Int64
  /// Events up to then.
  public var step: Int

  public var description: String {
    "\(check.rawValue) broken at \(World.milliseconds(at).drop { $0 == " " }) ms, step \(step): \(text)"
  }
}

/// What a run has exercised.
public struct RunStatistics: Sendable, CustomStringConvertible {
  public var steps = 0
  /// Times that mastership moved to the other RE.
  public var failovers = 0
  /// Of these, how many carried at least one live connection over.
  public var failoversWithMerges = 0
  public var merges = 0
  public var replications = 0
  /// Records that were taken.
  public var records = 0
  public var conversations = 0
  /// Those among them that go over UDP.
  public var datagramConversations = 0
  /// Merges of UDP sockets, which are among all.
  public var datagramMerges = 0
  /// Datagrams that REs put on the wire.
  public var datagramsLeft = 0
  /// Connections that were lost as they may be: not replicated when their RE was lost, or with both REs.
  public var lost = 0
  public var framesLeft = 0
  /// Times that both REs held a lease at once, in runs whose faults do not exclude it.
  public var twoMasters = 0

  public init() {}

  public var description: String {
    "\(steps) steps, \(failovers) failovers (\(failoversWithMerges) with connections to merge, \(merges) merges), "
      + "\(conversations) connections (\(lost) may have been lost), \(replications) replications, \(records) records, "
      + "\(framesLeft) frames on the wire, two masters \(twoMasters) times; of these over UDP "
      + "\(datagramConversations) conversations, \(datagramMerges) merges, \(datagramsLeft) frames"
  }

  public static func += (lhs: inout Self, rhs: Self) {
    lhs.steps += rhs.steps
    lhs.failovers += rhs.failovers
    lhs.failoversWithMerges += rhs.failoversWithMerges
    lhs.merges += rhs.merges
    lhs.replications += rhs.replications
    lhs.records += rhs.records
    lhs.conversations += rhs.conversations
    lhs.datagramConversations += rhs.datagramConversations
    lhs.datagramMerges += rhs.datagramMerges
    lhs.datagramsLeft += rhs.datagramsLeft
    lhs.lost += rhs.lost
    lhs.framesLeft += rhs.framesLeft
    lhs.twoMasters += rhs.twoMasters
  }
}

import Packet
import Replication

/// Everything that a seed decides before a run begins. The run itself draws further numbers from the same
/// seed; a scenario with fewer faults is a run of its own, which shrinking makes use of.
public struct Scenario: Sendable, CustomStringConvertible {
  /// What an RE's engine is configured with, beside what differs between the two.
  struct Limits: Sendable {
    var sockets = 32
    var holdBuffer = 1 << 20
    var snoopBuffer = 64 << 10
    /// Bytes that the socket to the application takes before the snoop buffer fills.
    var snoopSocket = 16 << 10
    var record = 1 << 20
  }

  /// How packets between the peers and the REs fare. Rates are per packet.
  struct Weather: Sendable {
    var delay: Range<TrueTime> = .microseconds(50)..<(.microseconds(400))
    var loss = 0.0
    var duplication = 0.0
    /// A packet that takes this much longer than others overtakes nothing and is overtaken.
    var reordering = 0.0
    var corruption = 0.0
  }

  /// One connection, from its beginning to its end.
  struct Plan: Sendable {
    var opensAt: TrueTime
    var peerStart: UInt32
    var localStart: UInt32
    var peer = ModelTCP.Options()
    var local = ModelTCP.Options()
    /// Bytes that each side sends before it closes its direction.
    var peerTotal: Int
    var localTotal: Int
    /// The largest write, in bytes, and the pause between two, of either side.
    var largestWrite: Int
    var pause: TrueTime
    /// The RE's application sends records of this size, in bytes, through the record interface where it can.
    var recordSize: Int?
    /// Bytes that the channel for records takes.
    var recordChannel = 4_000
    /// The snooping application reads nothing of this connection for so long, from its start.
    var snooperStuckFor: TrueTime = 0
    /// The peer resets the connection then, counted from its start.
    var peerResetsAfter: TrueTime?
    /// The conversation goes over UDP.
    var datagrams: DatagramPlan?
  }

  /// One UDP socket of the REs, and the peers that talk with it.
  struct DatagramPlan: Sendable {
    /// The socket is connected, to its only peer.
    var isConnected: Bool
    var localPort: UInt16
    var peerCount: Int
    /// What the peers ask for, all in all.
    var requestCount: Int
    /// Requests that may be unanswered at a time.
    var window: Int
    /// In bytes.
    var largestPayload: Int
    /// How long a peer waits for an answer before it asks again.
    var patience: TrueTime
    /// Datagrams that the kernel keeps for the application.
    var queueLimit: Int
    /// How likely a peer sends an empty datagram too, each time that it sends.
    var empties: Double
  }

  /// How a run divides its time between faults and what they hit.
  enum Pace: Sendable {
    /// A few faults, and traffic that is looked at closely.
    case calm
    /// Many faults, among connections that live through several of them.
    case storm
    /// A failover every few hundred milliseconds: short detection, small connections.
    case flurry
  }

  /// Which pairs of faults may come together.
  public enum Kind: String, Sendable, CaseIterable {
    /// Machines, engines, applications and the link fail; the REs always hear each other on the uplinks.
    case linkFaults
    /// The same, but it is the uplinks that fail, while the link is whole.
    case uplinkFaults
    /// One application does not read; nothing else is wrong.
    case isolation
    /// Both paths are cut while both REs live: two masters are not excluded.
    case splitBrain
    /// A machine stops together with its clock: two masters are not excluded.
    case frozenClock
  }

  public var seed: UInt64
  public var kind: Kind
  var mode: ReplicationNode.Mode
  var pace: Pace
  var limits = Limits()
  var timeouts = LayerTimeouts()
  /// The engines log every record from their start; it costs time.
  var logsRecords = false
  var keepalive = Nanoseconds.milliseconds(100)
  var misses = 3
  var priorities: [UInt16] = [200, 100]
  /// Parts per million that each machine's clock runs fast.
  var drift: [Double] = [0, 0]
  var linkDelay: Range<TrueTime> = .microseconds(20)..<(.microseconds(200))
  /// Of how many chunks of the link one is cut in two on its way.
  var linkSplits = 0.05
  var weather = Weather()
  var plans: [Plan] = []
  public var faults: [Fault] = []
  /// From then on nothing new goes wrong.
  var faultsEnd: TrueTime
  /// Which REs run an engine of the previous release until it is started again.
  var beginsWithOldEngine = [false, false]
  /// The applications' instances ask each other through the engines where these can, and over a channel otherwise.
  var meetsThroughEngines = false
  /// How likely an instance declines what it is asked through the engines.
  var unwillingness = 0.0

  public var description: String {
    "seed \(seed): \(kind.rawValue), \(mode == .strict ? "strict" : "overlap"), detection "
      + "\(detection / 1_000_000) ms, \(plans.count) connections, \(faults.count) faults until "
      + "\(faultsEnd / 1_000_000) ms"
  }

  var timing: PairTiming { PairTiming(interval: keepalive, misses: misses) }
  var detection: TrueTime { timing.detection.count }

  /// The scenario of `seed`.
  public init(seed: UInt64) {
    var random = SeededGenerator(seed: seed &* 8)
    let kind: Kind =
      random.chance(0.05) ? .isolation : Bool.random(using: &random) ? .linkFaults : .uplinkFaults
    self.init(seed: seed, kind: kind, using: &random)
  }

  /// A scenario of one kind.
  public init(seed: UInt64, kind: Kind) {
    var random = SeededGenerator(seed: seed &* 8)
    self.init(seed: seed, kind: kind, using: &random)
  }

  private init(seed: UInt64, kind: Kind, using random: inout SeededGenerator) {
    self.seed = seed
    self.kind = kind
    mode = Bool.random(using: &random) ? .overlap : .strict
    let pace: Pace = random.chance(0.3) ? .calm : random.chance(0.2) ? .storm : .flurry
    self.pace = pace
    logsRecords = pace == .calm && seed.isMultiple(of: 8)
    faultsEnd = .milliseconds(.random(in: pace == .calm ? 2_000...12_000 : 40_000...100_000, using: &random))
    misses = random.chance(0.3) ? .random(in: 2...6, using: &random) : 3
    let shortest = PairTiming.shortestDetection.milliseconds / Int64(misses) + 1
    if pace == .flurry {
      keepalive = .milliseconds(.random(in: shortest...shortest * 2, using: &random))
    } else if random.chance(0.3) {
      keepalive = .milliseconds(.random(in: shortest...200, using: &random))
    }
    if random.chance(0.3) { priorities = [100, .random(in: 50...150, using: &random)] }
    drift = (0...1).map { _ in .random(in: -500...500, using: &random) }
    if random.chance(0.2) {
      linkDelay = .milliseconds(1)..<(.milliseconds(.random(in: 2...12, using: &random)))
    }
    if random.chance(0.3) { linkSplits = 0.5 }
    if kind == .isolation {
      planIsolation(using: &random)
      planDatagrams(using: &random)
    } else {
      drawLimits(using: &random)
      drawWeather(using: &random)
      switch pace {
      case .calm: planConversations(using: &random)
      case .storm: planStorm(using: &random)
      case .flurry: planFlurry(using: &random)
      }
      planDatagrams(using: &random)
      faults = Fault.draw(for: self, using: &random)
      beginsWithOldEngine = (0...1).map { _ in random.chance(0.25) }
      meetsThroughEngines = random.chance(0.4)
      if random.chance(0.3) { unwillingness = .random(in: 0.05...0.4, using: &random) }
    }
  }

  private mutating func drawLimits(using random: inout SeededGenerator) {
    if random.chance(0.25) { limits.holdBuffer = .random(in: 4_000...40_000, using: &random) }
    if random.chance(0.25) { limits.snoopBuffer = .random(in: 2_000...20_000, using: &random) }
    if random.chance(0.25) { limits.snoopSocket = .random(in: 500...4_000, using: &random) }
    if random.chance(0.15) { limits.sockets = .random(in: 2...4, using: &random) }
    if random.chance(0.15) { limits.record = .random(in: 1_100...4_000, using: &random) }
    if random.chance(0.2) { timeouts.prl = .milliseconds(.random(in: 50...1_500, using: &random)) }
    if random.chance(0.2) { timeouts.sdrl = .milliseconds(.random(in: 50...1_500, using: &random)) }
    if random.chance(0.2) { timeouts.psrm = .milliseconds(.random(in: 50...1_500, using: &random)) }
  }

  private mutating func drawWeather(using random: inout SeededGenerator) {
    if random.chance(0.4) { weather.loss = .random(in: 0.001...0.08, using: &random) }
    if random.chance(0.4) { weather.duplication = .random(in: 0.001...0.08, using: &random) }
    if random.chance(0.4) { weather.reordering = .random(in: 0.001...0.15, using: &random) }
    if random.chance(0.2) { weather.corruption = .random(in: 0.001...0.03, using: &random) }
  }

  private mutating func planConversations(using random: inout SeededGenerator) {
    for _ in 0..<Int.random(in: 1...4, using: &random) {
      plans.append(Self.plan(opensBefore: faultsEnd / 3, using: &random))
    }
    for _ in 0..<Int.random(in: 1...4, using: &random) {
      plans.append(Self.plan(opensBefore: faultsEnd, using: &random))
    }
  }

  /// Connections that live long and say little, one after the other.
  private mutating func planStorm(using random: inout SeededGenerator) {
    var opensAt: TrueTime = 0
    while opensAt < faultsEnd {
      var plan = Self.plan(opensBefore: .milliseconds(60), using: &random)
      plan.opensAt = opensAt + .milliseconds(50)
      plan.pause = .milliseconds([20, 100, 300].randomElement(using: &random)!)
      plan.largestWrite = [1, 100, 600].randomElement(using: &random)!
      plan.peerResetsAfter = nil
      plan.snooperStuckFor = 0
      plans.append(plan)
      opensAt += .milliseconds(.random(in: 200...3_000, using: &random))
    }
  }

  /// Connections that live for a second or so: most meet one failover, and some two or three.
  private mutating func planFlurry(using random: inout SeededGenerator) {
    var opensAt: TrueTime = 0
    while opensAt < faultsEnd {
      var plan = Self.plan(opensBefore: .milliseconds(60), using: &random)
      plan.opensAt = opensAt + .milliseconds(20)
      plan.pause = .milliseconds([20, 60, 150].randomElement(using: &random)!)
      plan.largestWrite = [1, 100, 600].randomElement(using: &random)!
      let longest = plan.largestWrite * Int(.seconds(1) / plan.pause)
      plan.peerTotal = .random(in: 0...longest, using: &random)
      plan.localTotal = .random(in: 0...longest, using: &random)
      plan.peerResetsAfter = nil
      plan.snooperStuckFor = 0
      plans.append(plan)
      opensAt += .milliseconds(.random(in: 50...1_000, using: &random))
    }
  }

  /// Has some of the conversations go over UDP. A connected socket may have the local end of an unconnected one, so that
  /// the peer's end alone tells their datagrams apart.
  private mutating func planDatagrams(using random: inout SeededGenerator) {
    var unconnected: [UInt16] = []
    for place in plans.indices where random.chance(0.23) {
      let isConnected = Bool.random(using: &random)
      var localPort = 17_000 + UInt16(place)
      if isConnected {
        localPort = 16_500
        // Only a socket of one's own keeps other people's trouble away.
        if kind != .isolation, random.chance(0.6), let last = unconnected.last { localPort = last }
      } else {
        unconnected.append(localPort)
      }
      let most = pace == .flurry ? max(2, Int(.seconds(2) / plans[place].pause)) : 200
      plans[place].datagrams = DatagramPlan(
        isConnected: isConnected, localPort: localPort,
        peerCount: isConnected ? 1 : .random(in: 1...3, using: &random),
        requestCount: .random(in: 1...min(most, 200), using: &random),
        window: .random(in: 1...5, using: &random),
        largestPayload: [20, 200, 1_000].randomElement(using: &random)!,
        patience: .milliseconds([50, 300, 1_000].randomElement(using: &random)!),
        queueLimit: [3, 20].randomElement(using: &random)!,
        empties: random.chance(0.5) ? 0.1 : 0)
      plans[place].recordSize = nil
      plans[place].peerResetsAfter = nil
    }
  }

  private mutating func planIsolation(using random: inout SeededGenerator) {
    for number in 0..<Int.random(in: 2...4, using: &random) {
      var plan = Self.plan(opensBefore: .milliseconds(500), using: &random)
      plan.peerResetsAfter = nil
      plan.peer.shrinksWindow = false
      plan.peer.capacity = min(plan.peer.capacity, 4_000)
      plan.local.capacity = min(plan.local.capacity, 4_000)
      plan.peer.initialSendWindow = plan.local.capacity
      plan.local.initialSendWindow = plan.peer.capacity
      plan.snooperStuckFor = number == 0 ? faultsEnd * 2 : 0
      plans.append(plan)
    }
    // Room for all that a window lets come at once: what does not fit is a snooper's own trouble.
    limits.snoopBuffer = 30_000
    limits.snoopSocket = 1_000
  }

  private static func plan(opensBefore limit: TrueTime, using random: inout SeededGenerator) -> Plan {
    func start() -> UInt32 {
      // Near the wrap as often as not.
      Bool.random(using: &random)
        ? 0 &- UInt32.random(in: 0...20_000, using: &random)
        : UInt32.random(in: .min ... .max, using: &random)
    }
    var plan = Plan(
      opensAt: .random(in: .milliseconds(50)...limit, using: &random), peerStart: start(),
      localStart: start(), peerTotal: total(), localTotal: total(),
      largestWrite: [1, 30, 300, 3_000].randomElement(using: &random)!,
      pause: .microseconds([500, 5_000, 30_000, 300_000].randomElement(using: &random)!))
    func total() -> Int { [0, 500, 20_000, 60_000].randomElement(using: &random)! }
    func options() -> ModelTCP.Options {
      var options = ModelTCP.Options()
      options.capacity = [400, 1_000, 4_000, 20_000].randomElement(using: &random)!
      options.windowScale = [0, 2, 7].randomElement(using: &random)!
      options.segmentSize = [88, 200, 1_000].randomElement(using: &random)!
      if Bool.random(using: &random) { options.delayedAck = .milliseconds(40) }
      return options
    }
    plan.peer = options()
    plan.local = options()
    // What the two ends told each other in their SYNs.
    plan.local.segmentSize = plan.peer.segmentSize
    plan.local.sendWindowScale = plan.peer.windowScale
    plan.peer.sendWindowScale = plan.local.windowScale
    plan.local.initialSendWindow = plan.peer.capacity
    plan.peer.initialSendWindow = plan.local.capacity
    plan.peer.timestamps = !random.chance(0.2)
    plan.local.timestamps = plan.peer.timestamps
    plan.peer.shrinksWindow = random.chance(0.1)
    if random.chance(0.1) {
      plan.peerResetsAfter = .milliseconds(.random(in: 10...3_000, using: &random))
    }
    if random.chance(0.15) {
      plan.snooperStuckFor = .milliseconds(.random(in: 100...3_000, using: &random))
    }
    if random.chance(0.4) {
      plan.recordSize = [7, 19, 200, 1_000].randomElement(using: &random)!
      plan.recordChannel = [100, 500, 4_000].randomElement(using: &random)!
    }
    return plan
  }
}

extension SeededGenerator {
  /// True in so many of all cases: 0 never, 1 always.
  mutating func chance(_ probability: Double) -> Bool {
    probability > 0 && Double(next() >> 11) * 0x1p-53 < probability
  }

  /// A moment from a range; its beginning if it is empty.
  mutating func moment(_ range: Range<TrueTime>) -> TrueTime {
    range.isEmpty ? range.lowerBound : .random(in: range, using: &self)
  }
}

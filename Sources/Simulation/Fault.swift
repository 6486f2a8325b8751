import Replication

/// Something that goes wrong, or that an operator does, at a moment.
public struct Fault: Sendable, CustomStringConvertible {
  /// Where a sleep or a crash catches an engine.
  enum Place: Sendable, Hashable, CustomStringConvertible {
    case betweenEvents
    /// In the middle of its work: after it has carried out so many more of the actions that its protocol asked
    /// for.
    case afterActions(Int)
    /// It has decided to renew its lease, and not done it yet.
    case beforeRenewal
    /// It has just renewed its lease.
    case afterRenewal

    var description: String {
      switch self {
      case .betweenEvents: "between two events"
      case .afterActions(let count): "after \(count) more actions"
      case .beforeRenewal: "just before it renews its lease"
      case .afterRenewal: "just after it has renewed its lease"
      }
    }
  }

  enum Kind: Sendable, Hashable {
    case machineCrash(slot: Int)
    case engineCrash(slot: Int, Place)
    case engineSleep(slot: Int, Place)
    case applicationCrash(slot: Int)
    /// It neither reads nor writes, nor hears of events.
    case applicationStuck(slot: Int)
    /// Both directions of the inter-RE link.
    case linkCut
    case linkOneWay(from: Int)
    /// Bytes stay on their way.
    case linkStall(from: Int)
    /// The TCP connection between the engines is reset.
    case linkReset
    /// The cable is pulled, and both REs see it.
    case linkCarrier
    /// The RE's uplink has no carrier.
    case uplinkCarrier(slot: Int)
    /// The uplink network does not carry packets of this RE, though all carriers are there.
    case uplinkCut(slot: Int)
    /// The uplink network loses so many of the frames between the REs, in per cent.
    case uplinkLoss(Int)
    case switchover(askedOn: Int)
    /// The primary's application stops and begins to replicate its connections again.
    case unreplicateAll
    /// The peer's network delivers frames again that it delivered long ago.
    case oldDuplicates
    /// Somebody sends segments that fit no connection's state.
    case forgeries
    /// The whole machine stops, its clock goes on.
    case machineSleep(slot: Int)
    /// The whole machine stops, and its clock with it.
    case machineFreeze(slot: Int)
    /// An operator of the RE holds back acknowledgements of records of a layer, sent or received.
    case acknowledgementsHeld(slot: Int, Layer)
    /// An operator of the RE changes how long records of a layer may be unacknowledged, in milliseconds.
    case timeoutChanged(slot: Int, Layer, Int64)
    /// An operator of the RE wants to see every record in the log, or not any more.
    case recordsLogged(slot: Int, Bool)
  }

  var at: TrueTime
  var kind: Kind
  /// How long it lasts; what was stopped or cut comes back then.
  var duration: TrueTime

  public var description: String {
    "\(World.milliseconds(at).drop { $0 == " " }) ms: \(kindText)"
  }

  private var kindText: String {
    let time = "for \(World.milliseconds(duration).drop { $0 == " " }) ms"
    switch kind {
    case .machineCrash(let slot): return "re\(slot) loses power \(time)"
    case .engineCrash(let slot, let place): return "the engine of re\(slot) crashes \(place), gone \(time)"
    case .engineSleep(let slot, let place): return "the engine of re\(slot) sleeps \(place), \(time)"
    case .applicationCrash(let slot): return "the application on re\(slot) crashes, gone \(time)"
    case .applicationStuck(let slot): return "the application on re\(slot) is stuck \(time)"
    case .linkCut: return "the link is cut \(time)"
    case .linkOneWay(let slot): return "the link carries nothing from re\(slot) \(time)"
    case .linkStall(let slot): return "the link is slow from re\(slot) \(time)"
    case .linkReset: return "the link's connection is reset"
    case .linkCarrier: return "the link's cable is pulled \(time)"
    case .uplinkCarrier(let slot): return "the uplink of re\(slot) has no carrier \(time)"
    case .uplinkCut(let slot): return "the uplink network forgets re\(slot) \(time)"
    case .uplinkLoss(let percent): return "the uplink loses \(percent) % between the REs \(time)"
    case .switchover(let slot): return "an operator asks re\(slot) for a switchover"
    case .unreplicateAll: return "the application on the primary unreplicates its connections"
    case .oldDuplicates: return "old packets come again"
    case .forgeries: return "forged segments arrive"
    case .machineSleep(let slot): return "re\(slot) stops \(time), its clock goes on"
    case .machineFreeze(let slot): return "re\(slot) stops \(time), its clock with it"
    case .acknowledgementsHeld(let slot, let layer):
      return "acknowledgements of \(layer) are held on re\(slot) \(time)"
    case .timeoutChanged(let slot, let layer, let time):
      return "an operator sets the timeout of \(layer) on re\(slot) to \(time) ms"
    case .recordsLogged(let slot, let isOn):
      return "an operator turns the logging of records on re\(slot) \(isOn ? "on" : "off")"
    }
  }

  /// The faults of a scenario, in order of time.
  static func draw(for scenario: Scenario, using random: inout SeededGenerator) -> [Fault] {
    var faults: [Fault] = []
    // Most faults come one at a time, with time to get whole again; others fall on top of each other.
    let isDense = random.chance(0.3) && scenario.pace == .calm
    // In a storm the pair gets whole before the next fault, as a rule.
    let longest: TrueTime
    switch scenario.pace {
    case .calm: longest = scenario.detection * 5
    case .storm: longest = scenario.detection * 7
    case .flurry: longest = scenario.detection * 4
    }
    func gap(after fault: Fault) -> TrueTime {
      if isDense || random.chance(0.15) { return .random(in: 0...(.milliseconds(300)), using: &random) }
      // As often as not the next one waits until connections should be replicated again.
      if scenario.pace == .flurry, random.chance(0.6) {
        return fault.duration + scenario.detection + .milliseconds(.random(in: 100...400, using: &random))
      }
      return .random(in: scenario.detection...longest, using: &random)
    }
    var at: TrueTime = .milliseconds(.random(in: 150...800, using: &random))
    while at < scenario.faultsEnd {
      let fault = one(for: scenario, at: at, using: &random)
      faults.append(fault)
      at += gap(after: fault)
    }
    return faults
  }

  private static func one(
    for scenario: Scenario, at: TrueTime, using random: inout SeededGenerator
  ) -> Fault {
    let slot = Int.random(in: 0...1, using: &random)
    let detection = scenario.detection
    // Around the times that matter to leases and detection, as often as not.
    let around: [TrueTime] = [detection / 4, detection / 2, detection, detection * 2, detection * 3]
    let near =
      around.randomElement(using: &random)! + .random(in: -detection / 10...detection / 10, using: &random)
    // Now and then for so long that everybody has learnt to live with it.
    let duration =
      random.chance(0.04)
      ? .random(in: .seconds(1)...(.seconds(2) + detection * 8), using: &random)
      : Bool.random(using: &random) ? near : .random(in: .milliseconds(1)...detection * 6, using: &random)
    func place() -> Place {
      switch Int.random(in: 0..<8, using: &random) {
      case 0...1: .betweenEvents
      case 2: .beforeRenewal
      case 3: .afterRenewal
      default: .afterActions(.random(in: 0...12, using: &random))
      }
    }
    func fault(_ kind: Kind, _ duration: TrueTime) -> Fault { Fault(at: at, kind: kind, duration: duration) }

    switch scenario.kind {
    case .splitBrain where random.chance(0.3): return fault(.linkCut, detection * 6)
    case .frozenClock where random.chance(0.4):
      return fault(.machineFreeze(slot: slot), .random(in: detection...detection * 4, using: &random))
    default: break
    }
    // In a flurry every second one is of those that move mastership.
    let movesMastership = scenario.pace == .flurry && random.chance(0.5)
    switch movesMastership
      ? [0, 4, 7, 13, 13, 13].randomElement(using: &random)! : Int.random(in: 0..<32, using: &random)
    {
    case 0...3: return fault(.machineCrash(slot: slot), duration + detection)
    case 4...6: return fault(.engineCrash(slot: slot, place()), duration)
    case 7...9: return fault(.engineSleep(slot: slot, place()), duration)
    case 10...11: return fault(.applicationCrash(slot: slot), duration)
    case 12: return fault(.applicationStuck(slot: slot), duration)
    case 13...17: return fault(.switchover(askedOn: slot), 0)
    case 18: return fault(.unreplicateAll, 0)
    case 19: return fault(.oldDuplicates, 0)
    case 20: return fault(.forgeries, 0)
    case 21: return fault(.machineSleep(slot: slot), duration)
    case 22:
      let layer = [Layer.sdrl, .psrm, .prl].randomElement(using: &random)!
      switch Int.random(in: 0..<4, using: &random) {
      case 0: return fault(.timeoutChanged(slot: slot, layer, .random(in: 50...1_500, using: &random)), 0)
      // Seldom: it costs time.
      case 1 where scenario.pace == .calm:
        return fault(.recordsLogged(slot: slot, .random(using: &random)), 0)
      default: return fault(.acknowledgementsHeld(slot: slot, layer), duration)
      }
    default:
      switch scenario.kind {
      case .uplinkFaults, .splitBrain:
        switch Int.random(in: 0..<4, using: &random) {
        case 0...1: return fault(.uplinkCarrier(slot: slot), duration)
        case 2: return fault(.uplinkCut(slot: slot), duration)
        default: return fault(.uplinkLoss(.random(in: 10...100, using: &random)), duration)
        }
      case .linkFaults, .frozenClock, .isolation:
        switch Int.random(in: 0..<5, using: &random) {
        case 0: return fault(.linkCut, duration)
        case 1: return fault(.linkOneWay(from: slot), duration)
        case 2: return fault(.linkStall(from: slot), duration)
        case 3: return fault(.linkReset, 0)
        default: return fault(.linkCarrier, duration)
        }
      }
    }
  }
}

import Packet
import Replication

/// The network between the peers and the REs: loses, delays, doubles, damages and reorders packets, and knows
/// behind which RE the replicated address was last announced.
final class Uplink {
  private unowned(unsafe) let world: World
  /// Whether the RE's interface has a carrier.
  private(set) var hasCarrier = [true, true] { didSet { changedAt = world.now } }
  /// Whether the network carries frames of the RE, either way.
  private(set) var carries = [true, true] { didSet { changedAt = world.now } }
  /// Of how many frames between the REs one is lost.
  var lossBetweenREs = 0.0 { didSet { changedAt = world.now } }
  private var changedAt: TrueTime?
  /// Where the peers send what is meant for the replicated address.
  private(set) var owner: Int?

  init(world: World) { self.world = world }

  func setCarrier(_ works: Bool, of slot: Int) { hasCarrier[slot] = works }
  func setCarries(_ works: Bool, of slot: Int) { carries[slot] = works }

  private func reaches(_ slot: Int) -> Bool { hasCarrier[slot] && carries[slot] }

  private var delay: TrueTime { world.random.network.moment(world.scenario.weather.delay) }

  /// Lets a packet suffer what the weather has for it.
  private func suffer(_ frame: [UInt8], _ arrive: @escaping ([UInt8]) -> Void) {
    let weather = world.scenario.weather
    if world.random.network.chance(weather.loss) { return }
    var frame = frame
    if world.random.network.chance(weather.corruption) {
      // Behind the Ethernet and IP headers: anything there is covered by the checksum.
      let place = Int.random(in: 34..<frame.count, using: &world.random.network)
      frame[place] ^= 1 << UInt8.random(in: 0...7, using: &world.random.network)
    }
    var late: TrueTime = 0
    if world.random.network.chance(weather.reordering) {
      late = .microseconds(.random(in: 100...5_000, using: &world.random.network))
    }
    world.after(delay + late) { arrive(frame) }
    if world.random.network.chance(weather.duplication) {
      world.after(delay + .microseconds(.random(in: 0...20_000, using: &world.random.network))) {
        arrive(frame)
      }
    }
  }

  // MARK: Peers

  /// A frame of an RE, to the peer that it names.
  func send(_ frame: [UInt8], from slot: Int) {
    guard reaches(slot) else { return }
    suffer(frame) { [unowned self] in PeerHost.receive($0, in: world) }
  }

  /// A frame of a peer, to whoever has the replicated address.
  func sendFromPeer(_ frame: [UInt8]) {
    suffer(frame) { [unowned self] frame in
      guard let owner, reaches(owner) else { return }
      world.machines[owner].ingress(frame)
    }
  }

  // MARK: Between the REs

  /// How long it may take an engine to ask who has the address, and to hear of it: two turns of its timer, and the way.
  static let answerTime = TrueTime.milliseconds(40)

  /// Frames between the REs all get through, and have for long enough for an answer to be there.
  var connectsREs: Bool {
    reaches(0) && reaches(1) && lossBetweenREs == 0
      && changedAt.map { world.now - $0 >= Self.answerTime } ?? true
  }

  private func carriesBetweenREs() -> Bool {
    reaches(0) && reaches(1) && !world.random.network.chance(lossBetweenREs)
  }

  /// Sends the other RE the payload of a keepalive frame.
  func tell(_ payload: [UInt8], from slot: Int) {
    guard carriesBetweenREs() else { return }
    world.after(delay) { [unowned self] in world.machines[1 - slot].engine?.input(.uplink(payload)) }
  }

  /// Asks who has the replicated address: the other RE's kernel answers if its fence lets it.
  func probe(from slot: Int) {
    guard carriesBetweenREs() else { return }
    world.after(delay) { [unowned self] in
      let other = world.machines[1 - slot]
      guard other.isOn, !other.isStopped, other.hasAddresses, other.leaseIsInForce, carriesBetweenREs() else {
        return
      }
      world.after(delay) { [unowned self] in world.machines[slot].engine?.input(.probeAnswered) }
    }
  }

  /// A gratuitous ARP, if the fence lets it out.
  func announce(from slot: Int) {
    let machine = world.machines[slot]
    guard machine.leaseIsInForce, machine.hasAddresses, reaches(slot),
      !world.random.network.chance(world.scenario.weather.loss)
    else { return }
    world.after(delay) { [unowned self] in
      if owner != slot { world.tell("uplink", "the address is behind re\(slot) now") }
      owner = slot
    }
  }

  /// The peers' kernels ask now and then, when nobody answers their packets.
  func resolveAgain() {
    for machine in world.machines
    where machine.isOn && !machine.isStopped && machine.hasAddresses && machine.leaseIsInForce
      && reaches(machine.slot)
    {
      owner = machine.slot
    }
  }
}

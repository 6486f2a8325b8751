import Replication

/// The inter-RE link: one TCP connection between the engines, made again and again by re1, over a path that
/// can be cut, slowed down and be deaf in one direction.
final class InterRELink {
  /// One end of one connection.
  fileprivate struct End {
    /// The socket is open, on this RE.
    var isOpen = true
    /// The engine was told of the connection.
    var isKnown = false
    /// Bytes that wait to be sent: the path does not carry, or the other RE is not there.
    var outgoing: [UInt8] = []
    /// Behind `outgoing`, the end of the stream.
    var endIsDue = false
    /// When what was sent last arrives: the stream keeps its order.
    var arrival: TrueTime = 0
  }

  fileprivate final class Connection {
    var ends = [End(), End()]
  }

  private unowned(unsafe) let world: World
  private var connection: Connection?
  /// Whether bytes get through, by the slot of the sender.
  private var carries = [true, true]
  private var slowness: [TrueTime] = [0, 0]
  private(set) var hasCarrier = true
  private var isConnecting = false
  private var backlog: [Connection] = []

  init(world: World) { self.world = world }

  var pathWorks: Bool { carries[0] && carries[1] && hasCarrier }

  /// Whether the engines are connected, and nothing is on its way.
  var isQuiet: Bool {
    connection?.ends.allSatisfy { $0.isOpen && $0.outgoing.isEmpty && $0.arrival <= world.now } ?? false
  }

  // MARK: Faults

  func setCarries(_ works: Bool, from slot: Int) {
    carries[slot] = works
    if works { for connection in all { pump(connection, from: slot) } }
  }

  func setSlowness(_ delay: TrueTime, from slot: Int) { slowness[slot] = delay }

  func setCarrier(_ works: Bool) {
    hasCarrier = works
    if works {
      for connection in all { for slot in 0...1 { pump(connection, from: slot) } }
    } else {
      for machine in world.machines { machine.engine?.input(.linkCarrierLost) }
    }
  }

  /// A middlebox resets the connection: both ends are told that the other ended it.
  func reset() {
    guard let connection else { return }
    for slot in 0...1 { ended(connection, slot, .reset) }
  }

  func machineIsOn(_ slot: Int) { if slot == 1 { connectLater() } }

  /// Silence, whatever was open.
  func machineIsOff(_ slot: Int) {
    for connection in all {
      connection.ends[slot].isOpen = false
      connection.ends[slot].outgoing = []
      connection.ends[slot].endIsDue = false
    }
    tidy()
  }

  /// The engine is gone, and its kernel says so to the other end.
  func processEnded(_ slot: Int) {
    for connection in all { close(connection, slot) }
    tidy()
  }

  // MARK: The connection

  private var all: [Connection] { (connection.map { [$0] } ?? []) + backlog }

  /// re1 tries again after a while.
  func connectLater() {
    guard !isConnecting else { return }
    isConnecting = true
    world.after(world.scenario.timing.reconnection.count) { [unowned self] in
      isConnecting = false
      connect()
    }
  }

  private func connect() {
    let client = world.machines[1]
    guard client.isOn, let engine = client.engine, !engine.hasLink else { return }
    let server = world.machines[0]
    guard !client.isStopped, !engine.isAsleep, pathWorks, server.isOn, !server.isStopped,
      server.engine != nil
    else { return connectLater() }
    let new = Connection()
    if connection == nil { connection = new } else { backlog.append(new) }
    let delay = world.random.network.moment(world.scenario.linkDelay)
    // Either side may hear of it first.
    for slot in 0...1 {
      let machine = world.machines[slot]
      let boot = machine.boots
      let opening = delay + .microseconds(.random(in: 0...200, using: &world.random.network))
      // What the other end sends waits in the kernel until the engine has been told of the connection.
      new.ends[1 - slot].arrival = world.now + opening
      world.after(opening) {
        guard machine.boots == boot, let engine = machine.engine, new.ends[slot].isOpen else { return }
        engine.input(.linkOpened(LinkEnd(slot: slot, connection: new)))
      }
    }
  }

  /// What an engine holds of a connection.
  struct LinkEnd {
    let slot: Int
    fileprivate let connection: Connection

    static func === (lhs: Self, rhs: Self) -> Bool { lhs.connection === rhs.connection }
  }

  /// The engine takes the connection into use.
  func accept(_ end: LinkEnd) {
    end.connection.ends[end.slot].isKnown = true
    if connection !== end.connection, end.slot == 0 || connection == nil {
      // The one before is over for re0.
      if let old = connection { backlog.append(old) }
      connection = end.connection
      backlog.removeAll { $0 === end.connection }
      tidy()
    }
  }

  func send(_ bytes: [UInt8], on end: LinkEnd) {
    guard end.connection.ends[end.slot].isOpen else { return }
    end.connection.ends[end.slot].outgoing += bytes
  }

  /// Puts what was appended on its way.
  func flush(_ end: LinkEnd) { pump(end.connection, from: end.slot) }

  /// The engine closes its end.
  func close(_ end: LinkEnd) {
    close(end.connection, end.slot)
    tidy()
  }

  private func close(_ connection: Connection, _ slot: Int) {
    guard connection.ends[slot].isOpen else { return }
    connection.ends[slot].isOpen = false
    connection.ends[slot].endIsDue = true
    pump(connection, from: slot)
  }

  private func pump(_ connection: Connection, from slot: Int) {
    let machine = world.machines[slot]
    guard carries[slot], hasCarrier, machine.isOn, !machine.isStopped else { return }
    var bytes = connection.ends[slot].outgoing
    connection.ends[slot].outgoing = []
    if bytes.count > 1, world.random.network.chance(world.scenario.linkSplits) {
      let cut = Int.random(in: 1..<bytes.count, using: &world.random.network)
      deliver(Array(bytes[..<cut]), connection, from: slot)
      bytes = Array(bytes[cut...])
    }
    if !bytes.isEmpty { deliver(bytes, connection, from: slot) }
    if connection.ends[slot].endIsDue {
      connection.ends[slot].endIsDue = false
      schedule(connection, from: slot) { [unowned self] in ended(connection, 1 - slot, .endOfStream) }
    }
  }

  private func schedule(_ connection: Connection, from slot: Int, _ body: @escaping () -> Void) {
    let delay = world.random.network.moment(world.scenario.linkDelay) + slowness[slot]
    let at = max(connection.ends[slot].arrival, world.now + delay)
    connection.ends[slot].arrival = at
    world.after(at - world.now, body)
  }

  private func deliver(_ bytes: [UInt8], _ connection: Connection, from slot: Int) {
    schedule(connection, from: slot) { [unowned self] in arrive(bytes, connection, from: slot) }
  }

  private func arrive(_ bytes: [UInt8], _ connection: Connection, from slot: Int) {
    let receiver = world.machines[1 - slot]
    guard receiver.isOn else { return }
    guard connection.ends[1 - slot].isOpen else {
      // Nobody has this connection any more: the kernel says so.
      if connection.ends[slot].isOpen, carries[1 - slot], hasCarrier {
        schedule(connection, from: 1 - slot) { [unowned self] in ended(connection, slot, .reset) }
      }
      return
    }
    receiver.engine?.input(.linkBytes(bytes, LinkEnd(slot: 1 - slot, connection: connection)))
  }

  private func ended(_ connection: Connection, _ slot: Int, _ ending: LinkEnding) {
    guard connection.ends[slot].isOpen else { return }
    connection.ends[slot].isOpen = false
    connection.ends[slot].outgoing = []
    world.machines[slot].engine?.input(
      .linkEnded(LinkEnd(slot: slot, connection: connection), ending))
    tidy()
  }

  private func tidy() {
    backlog.removeAll { !$0.ends[0].isOpen && !$0.ends[1].isOpen }
    if let connection, !connection.ends[0].isOpen, !connection.ends[1].isOpen { self.connection = nil }
  }
}

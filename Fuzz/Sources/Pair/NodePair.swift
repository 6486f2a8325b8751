public import Replication

/// Two machines and the link between them.
public struct NodePair {
  /// The node with slot 0 is the primary to begin with.
  public private(set) var machines: [Machine]
  /// What each machine has been sent since the last `forget`.
  public private(set) var heard: [[UInt8]] = [[], []]

  public init(mode: ReplicationNode.Mode) {
    let now = Instant(nanoseconds: 1_000_000_000_000)
    machines = [Machine(slot: 0, mode: mode, now: now), Machine(slot: 1, mode: mode, now: now)]
  }

  public mutating func forget() { heard = [[], []] }

  public mutating func use(_ slot: Int, _ body: (inout Machine) -> Void) { body(&machines[slot]) }

  public mutating func openLink() {
    for slot in 0...1 { machines[slot].openLink() }
  }

  public mutating func closeLink() {
    for slot in 0...1 { machines[slot].closeLink(.closedHere) }
  }

  /// Delivers what is on its way, until nothing is.
  public mutating func exchange() {
    while deliver(to: 0) || deliver(to: 1) {}
  }

  /// Delivers what is on its way to one machine. False if nothing was.
  @discardableResult
  public mutating func deliver(to slot: Int) -> Bool {
    let bytes = machines[1 - slot].takeOutput()
    guard !bytes.isEmpty else { return false }
    heard[slot] += bytes
    machines[slot].receive(bytes)
    precondition(machines[slot].closing == nil, machines[slot].closing!)
    return true
  }

  /// Lets time pass.
  public mutating func run(_ milliseconds: Int) {
    for _ in 0..<milliseconds / 5 {
      for slot in 0...1 { machines[slot].tick(after: .milliseconds(5)) }
      exchange()
    }
  }
}

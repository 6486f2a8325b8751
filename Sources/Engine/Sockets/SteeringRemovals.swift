import DequeModule
import Packet
import Replication

/// Flows that need not pass the engine any more, and leave the packet filter a little later.
///
/// A frame that waits in the TAP device when its flow is unsteered is overtaken by those that go straight to
/// the wire. Mostly TCP does not mind; but an acknowledgement that arrives after the end of its connection is
/// answered, and the answer finds no socket here: a reset. By the time a flow leaves, what it was unsteered
/// for is long over.
struct SteeringRemovals {
  private var due: [Flow: Instant] = [:]
  private var order = Deque<(flow: Flow, time: Instant)>()

  static let delay = Nanoseconds.milliseconds(200)

  var count: Int { due.count }

  mutating func add(_ flow: Flow, now: Instant) {
    let time = now + Self.delay
    due[flow] = time
    order.append((flow, time))
  }

  /// The flow is steered again.
  mutating func cancel(_ flow: Flow) { due[flow] = nil }

  mutating func takeDue(now: Instant) -> [Flow] {
    var flows: [Flow] = []
    while let first = order.first, first.time <= now {
      order.removeFirst()
      // Cancelled, or added again later.
      guard due[first.flow] == first.time else { continue }
      due[first.flow] = nil
      flows.append(first.flow)
    }
    return flows
  }
}

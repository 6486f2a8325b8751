import Fuzzing
import Packet
import Pair
import Replication

/// The inter-RE link, and the keepalives of the uplink: whatever bytes come in, in whatever pieces, and whatever
/// happens to the sockets meanwhile, a node stays within its memory, says what it does not like, and goes on
/// with the next link.
///
/// An input is: the scene (1 byte; the highest bit chooses strict mode), a seed for how the rest is cut (2),
/// how much else happens in between (1; 0 is nothing), then the bytes from the link.
@main
struct LinkInput {
  private static let headerByteCount = 4

  static func main() {
    let scenes = [ReplicationNode.Mode.overlap, .strict].map { mode in
      Scene.allCases.map { $0.make(mode).machine }
    }
    fuzz { bytes in
      guard bytes.count >= headerByteCount else { return }
      var machine = scenes[Int(bytes[0] >> 7)][Int(bytes[0] & 0x7f) % Scene.allCases.count]
      var choices = Choices(seed: UInt64(bytes.bigEndian(at: 1, as: UInt16.self)))
      readUplink(bytes.dropFirst(headerByteCount))
      read(bytes.dropFirst(headerByteCount), &machine, &choices, events: Int(bytes[3]))
      goOn(&machine, &choices)
      end(&machine)
    }
  }

  private static func readUplink(_ bytes: Slice<UnsafeRawBufferPointer>) {
    withExactCopy(of: bytes) { payload in
      guard let keepalive = Keepalive(uplinkPayload: payload) else { return }
      let again = keepalive.uplinkPayload().withUnsafeBytes { Keepalive(uplinkPayload: $0) }
      precondition(again == keepalive, "a keepalive is not read as it is written")
    }
  }

  private static func read(
    _ bytes: Slice<UnsafeRawBufferPointer>, _ machine: inout Machine, _ choices: inout Choices, events: Int
  ) {
    var rest = bytes[...]
    while !rest.isEmpty, machine.closing == nil {
      // Small pieces cut every field somewhere; large ones bring many records at once.
      let limit = choices.below(4) == 0 ? 20 : 2_000
      let piece = rest.prefix(1 + choices.below(limit))
      rest = rest.dropFirst(piece.count)
      machine.receive(piece)
      machine.checkOccupancy()
      if events > 0, choices.below(256) < events {
        happen(piece, &machine, &choices)
        machine.checkOccupancy()
      }
      _ = machine.takeOutput()
    }
  }

  /// Something that does not come from the link.
  private static func happen(
    _ piece: Slice<UnsafeRawBufferPointer>, _ machine: inout Machine, _ choices: inout Choices
  ) {
    let flow = Frames.flow(choices.below(2))
    let sockets = machine.node.sockets
    let handle = sockets.isEmpty ? Handle(rawValue: 0) : sockets[choices.below(sockets.count)].handle
    let payload = [UInt8](repeating: 7, count: choices.below(3) * 100)
    switch choices.below(16) {
    case 0: machine.tick(after: .milliseconds(Int64(choices.below(400))))
    case 1:
      machine.send(
        Frames.outbound(flow, sent: choices.below(200), received: choices.below(200), payload: payload))
    case 2:
      machine.arrive(
        Frames.inbound(flow, received: choices.below(200), acknowledged: choices.below(200), payload: payload)
      )
    case 3: machine.send(Frames.outbound(flow, sent: 100, received: 100, flags: [.ack, .fin]))
    case 4: machine.arrive(Frames.inbound(flow, received: 100, acknowledged: 104, flags: [.ack, .fin]))
    case 5:
      let isHigh = choices.below(2) == 0
      machine.call { node, _ in node.snoopPressure(handle, isHigh: isHigh) }
    case 6: machine.call { node, _ in node.snoopFailed(handle, because: .applicationGone) }
    case 7: machine.call { node, now in try node.unreplicate(handle, now: now) }
    case 8: machine.call { node, _ in node.steered(handle) }
    case 9:
      let succeeds = choices.below(4) > 0
      machine.call { node, now in
        _ = try node.merge(handle, now: now)
        node.merged(handle, succeeded: succeeds)
      }
    case 10: machine.call { node, _ in try node.free(handle) }
    case 11: machine.call { node, now in try node.acquireMastership(now: now) }
    case 12: machine.call { node, now in try node.releaseMastership(now: now) }
    case 13, 14:
      let isOutbound = choices.below(2) == 0
      let frame = Frames.datagram(peer: choices.below(3), isOutbound: isOutbound, payload: payload)
      if isOutbound { machine.send(frame) } else { machine.arrive(frame) }
    default:
      guard let keepalive = withExactCopy(of: piece, { Keepalive(uplinkPayload: $0) }) else { return }
      machine.call { node, now in node.uplinkReceived(keepalive, now: now) }
    }
  }

  /// Whatever has been said on this link, the next one works.
  private static func goOn(_ machine: inout Machine, _ choices: inout Choices) {
    machine.closeLink(
      machine.closing == nil ? LinkEnding.allCases[choices.below(LinkEnding.allCases.count)] : .closedHere)
    machine.tick(after: .milliseconds(5))
    machine.openLink()
    var other = Machine(slot: 1 - machine.node.configuration.slot, mode: .overlap, now: machine.now)
    other.openLink()
    machine.receive(other.takeOutput())
    precondition(machine.node.peerName != nil, "the next link does not come up: \(machine.closing ?? "")")
    machine.checkOccupancy()
    machine.closeLink(.endOfStream)
  }

  /// Longer than every timeout, lease and license.
  private static func letTimePass(_ machine: inout Machine) {
    for _ in 0..<60 { machine.tick(after: .milliseconds(40)) }
  }

  /// When every socket is given back, nothing is left.
  private static func end(_ machine: inout Machine) {
    letTimePass(&machine)
    for view in machine.node.sockets {
      machine.call { node, now in try node.unreplicate(view.handle, now: now) }
    }
    letTimePass(&machine)
    for view in machine.node.sockets {
      machine.call { node, now in
        _ = try node.merge(view.handle, now: now)
        node.merged(view.handle, succeeded: true)
      }
      machine.call { node, _ in try node.free(view.handle) }
    }
    letTimePass(&machine)
    let occupancy = machine.node.occupancy
    precondition(occupancy == Occupancy(), "left at the end: \(occupancy), \(machine.node.sockets)")
    precondition(machine.heldFrameCount == 0, "\(machine.heldFrameCount) frames are held at the end")
  }
}

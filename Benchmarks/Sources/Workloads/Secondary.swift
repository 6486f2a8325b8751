import Packet
import Replication

// What the secondary's node does for what it reads from the link, up to its acknowledgement.
extension Workload {
  static let secondary: [Workload] = [
    Workload("secondary: records of an echo of 312 bytes") { repeating(EchoOnSecondary(byteCount: 312)) },
    Workload("secondary: record of 1448 bytes in") { repeating(SegmentInOnSecondary(byteCount: 1_448)) },
    Workload("secondary: record of a control block") { repeating(Unchanging.block()) },
    Workload("secondary: record of a datagram of 312 bytes") { repeating(Unchanging.datagram()) },
  ]
}

/// A secondary, and what it is sent.
private struct Secondary {
  var node: ReplicationNode
  private let now: Instant
  private let handle: Handle

  init(_ socket: ReplicatedSocket) {
    node = socket.secondary
    now = socket.now
    handle = socket.peer
  }

  var view: ReplicationNode.SocketView? { try? node.socket(handle) }

  /// Reads records, of which `snooped` have bytes for the application, and acknowledges them.
  mutating func receive(_ records: UnsafeMutableRawBufferPointer, snooped: Int) {
    let used = node.linkReceived(UnsafeRawBufferPointer(records), now: now)
    precondition(used == records.count)
    node.linkBatchEnded(now: now)
    precondition(node.actions.count == snooped + 1)
    for action in node.actions.dropLast() {
      switch action {
      case .snoop, .snoopDatagram: break
      default: preconditionFailure("something else than bytes for the application")
      }
    }
    guard case .send = node.actions.last else { preconditionFailure("no acknowledgement") }
    node.actions.removeAll(keepingCapacity: true)
  }
}

/// Memory for records, with some of them.
private func memory(_ records: [SegmentRecord]) -> UnsafeMutableRawBufferPointer {
  let memory = UnsafeMutableRawBufferPointer.allocate(
    byteCount: records.reduce(0) { $0 + $1.byteCount }, alignment: 8)
  memory.initializeMemory(as: UInt8.self, repeating: 1)
  var offset = 0
  for record in records {
    record.store(in: UnsafeMutableRawBufferPointer(rebasing: memory[offset..<offset + record.byteCount]))
    offset += record.byteCount
  }
  return memory
}

/// What the peer sent and what was answered, for the application to see; the peer acknowledges the answer before.
private struct EchoOnSecondary: Repeatable {
  private var secondary: Secondary
  private let byteCount: Int
  private var incoming: SegmentRecord
  private var outgoing: SegmentRecord
  private let records: UnsafeMutableRawBufferPointer

  init(byteCount: Int) {
    let socket = ReplicatedSocket(.overlap)
    secondary = Secondary(socket)
    self.byteCount = byteCount
    incoming = socket.record(of: .segmentIn(byteCount))
    outgoing = socket.record(of: .segmentOut(byteCount))
    records = memory([incoming, outgoing])
  }

  mutating func run(_ times: Int) {
    let answer = UnsafeMutableRawBufferPointer(rebasing: records[incoming.byteCount...])
    for _ in 0..<times {
      incoming.acknowledgment = outgoing.sequence
      incoming.store(in: records)
      incoming.sequence += byteCount
      outgoing.acknowledgment = incoming.sequence
      outgoing.store(in: answer)
      outgoing.sequence += byteCount
      secondary.receive(records, snooped: 2)
    }
    precondition(secondary.view?.block?.sendNext == outgoing.sequence)
    precondition(secondary.view?.block?.receiveNext == incoming.sequence)
  }
}

/// What the peer sent, for the application to see.
private struct SegmentInOnSecondary: Repeatable {
  private var secondary: Secondary
  private let byteCount: Int
  private var incoming: SegmentRecord
  private let records: UnsafeMutableRawBufferPointer

  init(byteCount: Int) {
    let socket = ReplicatedSocket(.overlap)
    secondary = Secondary(socket)
    self.byteCount = byteCount
    incoming = socket.record(of: .segmentIn(byteCount))
    records = memory([incoming])
  }

  mutating func run(_ times: Int) {
    for _ in 0..<times {
      incoming.store(in: records)
      incoming.sequence += byteCount
      secondary.receive(records, snooped: 1)
    }
    precondition(secondary.view?.block?.receiveNext == incoming.sequence)
  }
}

/// A record that may come again as it is.
private struct Unchanging: Repeatable {
  private var secondary: Secondary
  private let record: UnsafeMutableRawBufferPointer
  private let snooped: Int
  private let isApplied: (ReplicationNode.SocketView) -> Bool

  static func block() -> Unchanging {
    let socket = ReplicatedSocket(.overlap)
    let bytes = socket.blockRecord
    let record = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 8)
    record.copyBytes(from: bytes)
    let clock = ReplicatedSocket.packet(.segmentIn(0)).packet.segment.timestamps!.value + 1
    return Unchanging(secondary: Secondary(socket), record: record, snooped: 0) {
      $0.block?.timestampRecent == clock
    }
  }

  static func datagram() -> Unchanging {
    let socket = ReplicatedSocket(.overlap, .udp)
    let datagram = socket.datagramRecord(isOutbound: false, byteCount: 312)
    let record = UnsafeMutableRawBufferPointer.allocate(byteCount: datagram.byteCount, alignment: 8)
    record.initializeMemory(as: UInt8.self, repeating: 1)
    datagram.store(in: record)
    return Unchanging(secondary: Secondary(socket), record: record, snooped: 1) { $0.positions.prl > 0 }
  }

  mutating func run(_ times: Int) {
    let before = secondary.node.statistics.recordsReceived
    for _ in 0..<times { secondary.receive(record, snooped: snooped) }
    precondition(secondary.node.statistics.recordsReceived - before == UInt64(times))
    precondition(secondary.view.map(isApplied) == true)
  }
}

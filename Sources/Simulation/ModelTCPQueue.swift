import Packet

/// Bytes of one direction of a stream in order, taken off at the front: a send or receive queue.
///
/// Taking off moves an index; the bytes themselves are moved once for as many as have been taken off.
struct ModelTCPQueue: Sendable {
  private var storage: [UInt8] = []
  private var head = 0

  /// How many bytes may have been taken off before the rest moves to the front.
  private static let slack = 1024

  init() {}

  init(_ bytes: [UInt8]) { storage = bytes }

  var count: Int { storage.count &- head }
  var isEmpty: Bool { storage.count == head }

  /// All of it, in order.
  var bytes: [UInt8] { head == 0 ? storage : Array(storage[head...]) }

  /// A copy of the bytes from `range.lowerBound` behind the front on.
  func bytes(_ range: Range<Int>) -> [UInt8] {
    Array(storage[(head &+ range.lowerBound)..<(head &+ range.upperBound)])
  }

  mutating func append(_ bytes: some Collection<UInt8>) { storage.append(contentsOf: bytes) }

  /// Takes `count` bytes off the front.
  mutating func removeFirst(_ count: Int) {
    precondition(count >= 0 && count <= self.count, "more bytes than the queue holds")
    head &+= count
    if head == storage.count {
      storage.removeAll(keepingCapacity: true)
      head = 0
    } else if head >= Self.slack, head >= storage.count / 2 {
      storage.removeFirst(head)
      head = 0
    }
  }
}

/// Segments that arrived before their turn, ordered by where they start. They may overlap.
struct ModelTCPIslands: Sendable {
  private struct Island {
    var start: SequenceNumber
    var bytes: [UInt8]

    var end: SequenceNumber { start + bytes.count }
  }

  private var islands: [Island] = []

  var isEmpty: Bool { islands.isEmpty }

  mutating func insert(_ bytes: UnsafeRawBufferPointer, at start: SequenceNumber) {
    let end = start + bytes.count
    if islands.contains(where: { $0.start <= start && end <= $0.end }) { return }
    let place = islands.firstIndex { $0.start > start } ?? islands.count
    islands.insert(Island(start: start, bytes: Array(bytes)), at: place)
  }

  /// Moves what now follows without a gap to the end of `queue`.
  ///
  /// - Parameter next: where the queue ends in sequence space; moves with it.
  mutating func drain(into queue: inout ModelTCPQueue, next: inout SequenceNumber) {
    var used = 0
    for island in islands {
      guard island.start <= next else { break }
      used &+= 1
      let known = next - island.start
      guard known < island.bytes.count else { continue }
      queue.append(island.bytes[known...])
      next = island.end
    }
    if used > 0 { islands.removeFirst(used) }
  }
}

import Replication

/// The inter-RE link: two ordered streams of bytes that can be cut anywhere.
struct SimulatedLink {
  private(set) var isUp = false
  /// Bytes on their way, by the slot of the sender.
  private var pending: [[UInt8]] = [[], []]
  /// Whole records that arrived, by the slot of the sender.
  private(set) var delivered = [0, 0]
  /// Nothing arrives any more from this slot, though nobody is told.
  var mute: Set<Int> = []

  mutating func open() {
    isUp = true
    pending = [[], []]
  }

  mutating func cut() {
    isUp = false
    pending = [[], []]
  }

  mutating func send(_ bytes: [UInt8], from slot: Int) {
    guard isUp else { return }
    pending[slot] += bytes
  }

  func hasRecords(from slot: Int) -> Bool { isUp && !pending[slot].isEmpty && !mute.contains(slot) }

  /// Takes the next record from `slot` off the wire.
  mutating func takeRecord(from slot: Int) -> [UInt8] {
    let count = nextRecordByteCount(from: slot)
    defer { pending[slot].removeFirst(count) }
    delivered[slot] += 1
    return Array(pending[slot][..<count])
  }

  /// The first half of the next record, or nothing: what a cut in the middle lets through.
  func halfRecord(from slot: Int) -> [UInt8] {
    hasRecords(from: slot) ? Array(pending[slot][..<(nextRecordByteCount(from: slot) / 2)]) : []
  }

  private func nextRecordByteCount(from slot: Int) -> Int {
    pending[slot][4..<8].reduce(0) { $0 << 8 | Int($1) }
  }
}

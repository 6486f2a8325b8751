import Packet

/// The outgoing bytes that the peer has not acknowledged, on the secondary: the send queue of the socket
/// that a merge would make.
struct UnacknowledgedBytes {
  /// Sequence number of the first byte kept.
  private(set) var start: SequenceNumber
  /// Bytes; what is before `head` has been acknowledged and is dropped in large steps.
  private var storage: [UInt8] = []
  private var head = 0

  init(start: SequenceNumber) { self.start = start }

  var count: Int { storage.count - head }
  /// Sequence number behind the last byte.
  var end: SequenceNumber { start + count }

  mutating func append(_ bytes: UnsafeRawBufferPointer) { storage.append(contentsOf: bytes) }

  /// The peer has everything before `sequence`.
  mutating func acknowledge(upTo sequence: SequenceNumber) {
    let distance = sequence - start
    guard distance > 0 else { return }
    let dropped = min(distance, count)
    head += dropped
    start += dropped
    if head == storage.count {
      storage.removeAll(keepingCapacity: storage.capacity <= 1 << 16)
      head = 0
    } else if head >= 1 << 16, head >= storage.count / 2 {
      storage.removeFirst(head)
      head = 0
    }
  }

  /// All bytes kept, in order.
  var bytes: [UInt8] { Array(storage[head...]) }
}

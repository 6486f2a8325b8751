import Packet

/// The peer's stream on the secondary: what is in order has gone to the snooper; what came early waits
/// here.
///
/// Where two segments claim the same byte, the one that came first is believed, as the kernel does for
/// bytes it has queued.
struct Reassembly {
  /// Sequence number of the next byte in order, not counting FIN.
  private(set) var next: SequenceNumber
  /// Where the peer's FIN stands, once it has been heard of.
  private(set) var fin: SequenceNumber?
  /// Bytes that wait for earlier ones.
  private(set) var byteCount = 0
  private var early: [Early] = []

  private struct Early {
    var start: SequenceNumber
    var bytes: [UInt8]
    var end: SequenceNumber { start + bytes.count }
  }

  init(next: SequenceNumber, finReceived: Bool) {
    self.next = next
    fin = finReceived ? next : nil
  }

  /// Whether the peer's stream has come to its end.
  var isComplete: Bool { fin == next }

  /// RCV.NXT: counts the FIN once all before it is here.
  var acknowledgeable: SequenceNumber { isComplete ? next + 1 : next }

  /// Notes that the peer's FIN stands at `sequence`.
  mutating func noteFIN(at sequence: SequenceNumber) { if fin == nil { fin = sequence } }

  /// Takes the bytes that start at `sequence`.
  ///
  /// - Returns: which of `bytes`, from its start, continue the stream right away; they are not kept here.
  ///   After that, `takeReady()` gives what had been waiting for them.
  mutating func receive(_ bytes: UnsafeRawBufferPointer, at sequence: SequenceNumber) -> Range<Int> {
    let end = sequence + bytes.count
    guard end > next else { return 0..<0 }
    if sequence <= next {
      let start = next - sequence
      next = end
      return start..<bytes.count
    }
    if !planted(.earlyBytesLost) { keep(bytes, at: sequence) }
    return 0..<0
  }

  private mutating func keep(_ bytes: UnsafeRawBufferPointer, at sequence: SequenceNumber) {
    // Only the parts that nobody has claimed yet.
    var start = sequence
    let end = sequence + bytes.count
    var index = 0
    while start < end {
      while index < early.count, early[index].end <= start { index += 1 }
      let limit = index < early.count ? SequenceNumber.earlier(end, early[index].start) : end
      if start < limit {
        let piece = (start - sequence)..<(limit - sequence)
        early.insert(Early(start: start, bytes: [UInt8](bytes[piece])), at: index)
        byteCount += piece.count
        index += 1
      }
      start = index < early.count ? .later(limit, early[index].end) : limit
    }
  }

  /// The next piece that is now in order, or `nil`.
  mutating func takeReady() -> [UInt8]? {
    while let first = early.first, first.start <= next {
      early.removeFirst()
      byteCount -= first.bytes.count
      guard first.end > next else { continue }
      let shown = planted(.overlapShownTwice) ? 0 : next - first.start
      let piece = shown == 0 ? first.bytes : Array(first.bytes[shown...])
      next = first.end
      return piece
    }
    return nil
  }
}

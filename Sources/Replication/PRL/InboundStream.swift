import DequeModule
import Packet

/// The incoming stream of one socket on the primary: which of the peer's bytes are in the log.
///
/// Segments are logged as they come, also out of order, since the kernel will acknowledge all of them at
/// once when the gap is filled. The secondary puts them in order.
struct InboundStream {
  /// Sequence number behind the last byte of the gapless part of the log, not counting FIN.
  private(set) var next: SequenceNumber
  /// Of the last record of this stream.
  private(set) var position: LogPosition
  /// Where the peer's FIN stands, once it is in the log.
  private(set) var fin: SequenceNumber?
  /// What is in the log beyond `next`, in order, not touching.
  private var islands: [Island] = []

  private struct Island {
    var start: SequenceNumber
    var end: SequenceNumber
  }

  /// More islands than a window of small segments with every second one lost hardly occur; beyond this
  /// number a segment is not taken in, and the peer sends it again.
  static let maximumIslands = 256

  /// How far the log could be acknowledged to the peer, as it rose: each value with the record that made it so.
  private var marks: Deque<(acknowledgeable: SequenceNumber, position: LogPosition)> = []
  /// What the secondary is known to have, as an acknowledgement number.
  private var safe: SequenceNumber

  init(next: SequenceNumber, position: LogPosition, finReceived: Bool) {
    self.next = next
    self.position = position
    fin = finReceived ? next : nil
    safe = finReceived ? next + 1 : next
  }

  /// What must be acknowledged by the secondary before a segment may leave that acknowledges `number`, which
  /// must not be beyond `acknowledgeable`; 0 if nothing need be.
  mutating func requirement(of number: SequenceNumber, acknowledged: LogPosition) -> LogPosition {
    while let first = marks.first, first.position <= acknowledged {
      safe = first.acknowledgeable
      marks.removeFirst()
    }
    guard number > safe else { return 0 }
    return marks.first { $0.acknowledgeable >= number }?.position ?? position
  }

  /// The acknowledgement number that everything in the log amounts to: counts the FIN if all before it is
  /// there.
  var acknowledgeable: SequenceNumber { fin == next ? next + 1 : next }

  enum Verdict {
    /// Everything in the segment is in the log already, or there is nothing to log.
    case known
    /// The segment carries something new, from `sequence` on.
    case new(sequence: SequenceNumber)
    /// There are too many gaps to remember one more.
    case tooFragmented
  }

  func judge(_ segment: TCPSegment) -> Verdict {
    // Nothing follows a FIN.
    if let fin, segment.payloadEnd > fin { return .known }
    let carriesNewFIN = segment.flags.contains(.fin) && fin == nil && segment.payloadEnd >= next
    if segment.payload.isEmpty || segment.payloadEnd <= next {
      return carriesNewFIN ? .new(sequence: .later(segment.sequence, next)) : .known
    }
    let start = SequenceNumber.later(segment.sequence, next)
    if !carriesNewFIN,
      islands.contains(where: { $0.start <= start && segment.payloadEnd <= $0.end })
    {
      return .known
    }
    if start > next, islands.count >= Self.maximumIslands { return .tooFragmented }
    return .new(sequence: start)
  }

  /// The part of `segment` from `start` on has been appended at `position`.
  mutating func append(_ segment: TCPSegment, from start: SequenceNumber, at position: LogPosition) {
    self.position = position
    let before = acknowledgeable
    defer { if acknowledgeable != before { marks.append((acknowledgeable, position)) } }
    if segment.flags.contains(.fin), fin == nil { fin = segment.payloadEnd }
    guard segment.payloadEnd > start else { return }
    if start > next {
      insert(Island(start: start, end: segment.payloadEnd))
      return
    }
    next = .later(next, segment.payloadEnd)
    while let first = islands.first, first.start <= next {
      next = .later(next, first.end)
      islands.removeFirst()
    }
  }

  private mutating func insert(_ new: Island) {
    var merged = new
    let low = islands.firstIndex { $0.end >= new.start } ?? islands.count
    var high = low
    while high < islands.count, islands[high].start <= merged.end {
      merged.start = .earlier(merged.start, islands[high].start)
      merged.end = .later(merged.end, islands[high].end)
      high += 1
    }
    islands.replaceSubrange(low..<high, with: CollectionOfOne(merged))
  }
}

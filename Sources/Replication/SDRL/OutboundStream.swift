import Packet

/// The outgoing stream of one socket on the primary: up to where its bytes are in the log.
struct OutboundStream {
  /// Sequence number behind the last byte in the log, not counting FIN.
  private(set) var next: SequenceNumber
  /// Of the record that holds the last of those bytes.
  private(set) var position: LogPosition
  /// Where our FIN stands, once it is in the log.
  private(set) var fin: SequenceNumber?

  init(next: SequenceNumber, position: LogPosition, finSent: Bool) {
    self.next = next
    self.position = position
    fin = finSent ? next : nil
  }

  /// Behind all that is in the log, a FIN too.
  var end: SequenceNumber { fin == nil ? next : next + 1 }

  enum Verdict {
    /// Everything in the segment is in the log already.
    case known
    /// The segment carries something new, from `sequence` on.
    case new(sequence: SequenceNumber)
    /// Bytes before the segment never came by: the log has no gaps, so the segment cannot be taken. The
    /// kernel will send again what is missing, and this with it.
    case gap
  }

  func judge(_ segment: TCPSegment) -> Verdict {
    let carriesFIN = segment.flags.contains(.fin)
    let end = segment.payloadEnd
    let isBehindNext = planted(.outgoingWrapForgotten) ? end.rawValue > next.rawValue : end > next
    let hasNewBytes = !segment.payload.isEmpty && isBehindNext
    guard hasNewBytes || (carriesFIN && fin == nil) else { return .known }
    guard segment.sequence <= next else { return .gap }
    return .new(sequence: next)
  }

  /// The new part of `segment` has been appended at `position`.
  mutating func append(_ segment: TCPSegment, at position: LogPosition) {
    next = .later(next, segment.payloadEnd)
    if segment.flags.contains(.fin) { fin = next }
    self.position = position
  }

  /// A record of `count` bytes has been appended at `position`, before the kernel has any of it.
  mutating func append(recordOf count: Int, at position: LogPosition) {
    next += count
    self.position = position
  }
}

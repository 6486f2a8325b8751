import DequeModule
import Packet

/// How far a socket may have sent, as the secondary has been told: what a merge takes for sent.
///
/// Without records the log ends where the last segment did. With records, and with what waited in the send queue
/// when replication began, it is ahead of what the kernel sends, by as much as the peer's window is behind; a kernel
/// does not believe an acknowledgement of what it takes for unsent (`tcp_ack` in net/ipv4/tcp_input.c), so the secondary
/// must know of a limit before a segment leaves that comes near it.
struct SendLimit {
  /// The furthest limit that a record tells of; counts a FIN.
  private(set) var announced: SequenceNumber
  /// What the secondary is known to have been told.
  private var confirmed: SequenceNumber
  /// Limits on their way, each with the record that tells of it; both rise.
  private var marks: Deque<(limit: SequenceNumber, position: LogPosition)> = []

  /// - Parameter limit: what the handshake tells of; replication begins when that is acknowledged.
  init(_ limit: SequenceNumber) {
    announced = limit
    confirmed = limit
  }

  /// The record at `position` tells of `limit`.
  mutating func announce(_ limit: SequenceNumber, at position: LogPosition, acknowledged: LogPosition) {
    prune(acknowledged)
    guard limit > announced else { return }
    announced = limit
    marks.append((limit, position))
  }

  /// What must be acknowledged before a segment may leave that ends at `end`, which has been announced; 0 if nothing
  /// need be. Bytes up to a limit are in the log before the record that tells of it.
  mutating func requirement(of end: SequenceNumber, acknowledged: LogPosition) -> LogPosition {
    prune(acknowledged)
    guard end > confirmed else { return 0 }
    return marks.first { $0.limit >= end }?.position ?? 0
  }

  private mutating func prune(_ acknowledged: LogPosition) {
    while let first = marks.first, first.position <= acknowledged {
      confirmed = first.limit
      marks.removeFirst()
    }
  }
}

import JSR

/// A connection that this instance follows as the secondary, and, for a moment after a merge, the live
/// socket that it has become.
final class SnoopedPair {
  enum State {
    case snooping
    /// The engine was asked for the live socket; `rcv` is not read meanwhile.
    case merging
    /// The live socket is there; the end of what the primary sent is still to be read from `snd`.
    case merged(Int32)
  }

  /// Our handle and the primary's.
  let handle: Handle
  let primary: Handle
  /// What the peer sent; `nil` once closed. Both are owned by the server that owns the pair.
  var rcv: Int32?
  /// What the primary sent; `nil` once closed.
  var snd: Int32?
  let rcvNumber: Int32
  let sndNumber: Int32
  var snooper: Snooper
  var state = State.snooping
  /// The peer has closed its direction of the live socket.
  var liveInputEnded = false
  /// When the last of both directions ended, in nanoseconds of `MonotonicClock`.
  var endedAt: UInt64?
  /// Why replication ended, if the engine said so.
  var reason: String?
  var rcvByteCount: UInt64 = 0
  var sndByteCount: UInt64 = 0

  init(_ pair: AnswerMessage.Pair, primary: Handle, snooper: Snooper) {
    handle = pair.secondary
    self.primary = primary
    rcv = pair.rcv
    snd = pair.snd
    rcvNumber = pair.rcv
    sndNumber = pair.snd
    self.snooper = snooper
  }

  /// Replication has ended, and each direction has ended or cannot be read before the other one goes on.
  var isStuck: Bool {
    reason != nil && (rcv == nil || !snooper.wantsReceived) && (snd == nil || !snooper.wantsSent)
  }

  var isMerged: Bool { if case .merged = state { true } else { false } }
}

/// Why a call to the engine failed.
public enum JSRError: Error, Hashable, Sendable, CustomStringConvertible {
  /// There is no engine at the control socket: start `jsrd`, or give the path that its configuration names.
  case unreachable(path: String, reason: String)
  /// The engine went away, or the session was closed, before it answered. Open sockets live on as ordinary
  /// sockets; connect a new session.
  case engineGone
  /// The engine refused, and says why.
  case refused(RefusalCode, message: String)
  /// The record interface of a socket has ended with its replication, or because it was asked to. The first `accepted`
  /// records of the channel are written to the socket, whole; nothing of those after them is. The application writes to its
  /// socket itself from there on.
  case recordsEnded(accepted: UInt64)
  /// The connection is the other routing engine's now, or gone. At least the first `safe` records of the channel are known
  /// there.
  case connectionMoved(safe: UInt64)
  /// A record must have between one byte and as many as the engine's configuration allows (`limits.record`).
  case recordSize(Int, limit: Int)
  /// The engine answered something that this library does not understand: the versions do not fit.
  case misunderstood(String)

  public var description: String {
    switch self {
    case .unreachable(let path, let reason):
      "engine not reachable at \(path): \(reason)"
    case .engineGone:
      "the engine is gone"
    case .refused(_, let message):
      message
    case .recordsEnded(let accepted):
      "no more records are taken, \(accepted) were accepted and are written: write to the socket itself"
    case .connectionMoved(let safe):
      "the connection has moved to the other RE or is gone; \(safe) records are known to be safe"
    case .recordSize(let size, let limit):
      "a record of \(size) bytes cannot be sent: between 1 and \(limit) can (limits.record)"
    case .misunderstood(let detail):
      "the engine's answer was not understood: \(detail)"
    }
  }
}

/// Why a call to the engine failed.
public enum JSRError: Error, Hashable, Sendable, CustomStringConvertible {
  /// There is no engine at the control socket: start `jsrd`, or give the path that its configuration names.
  case unreachable(path: String, reason: String)
  /// The engine went away, or the session was closed, before it answered. Open sockets live on as ordinary
  /// sockets; connect a new session.
  case engineGone
  /// The engine refused, and says why.
  case refused(RefusalCode, message: String)
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
    case .misunderstood(let detail):
      "the engine's answer was not understood: \(detail)"
    }
  }
}

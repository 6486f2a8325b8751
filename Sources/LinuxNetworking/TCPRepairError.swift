import Descriptors

/// A socket's state could not be read or rebuilt.
public enum TCPRepairError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The socket cannot be replicated at all.
  case refused(ReplicationRefusal)
  /// A system call failed. `EPERM` means that CAP_NET_ADMIN is missing.
  case system(SystemError)
  /// Packets kept arriving while the state was read. Hold them back first, then try again.
  case unsettled
  /// The snapshot contradicts itself in what is named here.
  case inconsistent(String)

  public var description: String {
    switch self {
    case .refused(let refusal): "\(refusal)"
    case .system(let error): "\(error)"
    case .unsettled: "the socket's state kept changing while it was read; hold its packets and try again"
    case .inconsistent(let what): "the snapshot contradicts itself: \(what)"
    }
  }
}

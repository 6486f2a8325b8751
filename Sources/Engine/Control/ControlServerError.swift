public import Descriptors

/// Why there is no control socket.
public enum ControlServerError: Error, Hashable, Sendable, CustomStringConvertible {
  /// Another engine uses the path: end it, or give this one another `control`.
  case alreadyRunning(path: String)
  /// What stands at the path is not a socket and is not removed: move it away.
  case occupied(path: String)
  case system(SystemError)

  public var description: String {
    switch self {
    case .alreadyRunning(let path):
      "another engine uses the control socket \(path); end it or configure another path"
    case .occupied(let path): "\(path) is in the way of the control socket and is not a socket; move it away"
    case .system(let error): "no control socket: \(error)"
    }
  }
}

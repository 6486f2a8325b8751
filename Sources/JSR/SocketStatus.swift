import Control

/// The state of one handle as the engine sees it.
public struct SocketStatus: Hashable, Sendable {
  /// The handle on this routing engine.
  public let handle: Handle
  /// The handle of the same connection on the other one, once it is known.
  public let peerHandle: Handle?
  /// The part that this routing engine plays for this socket; `none` if it is not replicated.
  public let role: Role
  public let state: SocketState
  /// Address and port of this end, such as `5.5.5.5:16000`; `nil` until there is a socket.
  public let local: String?
  /// Address and port of the peer; `nil` until there is a socket.
  public let remote: String?

  init(_ report: SocketReport) {
    handle = report.handle
    peerHandle = report.peerHandle
    role = report.role
    state = report.state
    local = report.local
    remote = report.foreign
  }
}

import Control

/// What the engine tells an application, in the order in which it happened.
public enum Event: Hashable, Sendable, CustomStringConvertible {
  /// The handshake of one of the application's sockets, or of one of its snoop pairs, is over.
  case replicated(Handle)
  /// Replication of a socket has ended for the reason given; on the primary the socket goes on as an
  /// ordinary one, on the secondary both snoop streams end after the bytes that were replicated.
  case unreplicated(Handle, reason: String)
  /// The other routing engine is connected and can take snoop pairs.
  case secondaryUp
  /// The other routing engine is gone.
  case secondaryDown
  /// This routing engine has become primary: merge every snoop pair.
  case mastershipGained
  /// This routing engine is primary no more: its replicated sockets are dead.
  case mastershipLost
  /// The peer of a replicated socket has closed its direction (FIN).
  case peerClosed(Handle)
  /// So many events were not delivered because the application read too slowly: ask for the state of
  /// whatever matters.
  case missed(count: Int)
  /// The engine has ended or the session was closed; always the last event.
  case engineGone

  public var description: String {
    switch self {
    case .replicated(let handle): "replicated \(handle)"
    case .unreplicated(let handle, let reason): "unreplicated \(handle): \(reason)"
    case .secondaryUp: "secondary up"
    case .secondaryDown: "secondary down"
    case .mastershipGained: "mastership gained"
    case .mastershipLost: "mastership lost"
    case .peerClosed(let handle): "peer closed \(handle)"
    case .missed(let count): "\(count) events missed"
    case .engineGone: "engine gone"
    }
  }
}

extension Event {
  init(_ event: ControlEvent) {
    self =
      switch event.kind {
      case .replicated(let handle): .replicated(handle)
      case .unreplicated(let handle, let reason): .unreplicated(handle, reason: reason)
      case .secondaryUp: .secondaryUp
      case .secondaryDown: .secondaryDown
      case .mastershipGained: .mastershipGained
      case .mastershipLost: .mastershipLost
      case .peerClosed(let handle): .peerClosed(handle)
      case .missed(let count): .missed(count: count)
      }
  }
}

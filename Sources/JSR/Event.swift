import Control

/// A connection that the primary's instance of a service wants to be followed.
public typealias RequestedReplication = ControlEvent.ReplicationRequested

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
  /// Requests that name this service, which the session has registered, can be made here from now on: this routing engine
  /// is primary, and the other instance is there. Replicate what is not replicated.
  case serviceAvailable(String)
  /// They cannot be made any more.
  case serviceUnavailable(String)
  /// The primary's instance of a service that the session has registered asks for one connection to be followed: answer
  /// with `accept` or `decline` within two seconds.
  case replicationRequested(RequestedReplication)
  /// A request that was not answered yet is off.
  case requestWithdrawn(service: String, primary: Handle)
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
    case .serviceAvailable(let service): "service \(service) available"
    case .serviceUnavailable(let service): "service \(service) unavailable"
    case .replicationRequested(let request):
      "service \(request.service) asks for \(request.primary), \(request.local) to \(request.foreign)"
    case .requestWithdrawn(let service, let primary): "service \(service) asks no more for \(primary)"
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
      case .serviceAvailable(let service): .serviceAvailable(service)
      case .serviceUnavailable(let service): .serviceUnavailable(service)
      case .replicationRequested(let request): .replicationRequested(request)
      case .requestWithdrawn(let service, let primary): .requestWithdrawn(service: service, primary: primary)
      case .missed(let count): .missed(count: count)
      }
  }
}

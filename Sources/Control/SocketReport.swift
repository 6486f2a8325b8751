public import Replication

/// One line of `show sockets`: a handle and what is known of it. A field without a value is missing in JSON.
public struct SocketReport: Sendable, Hashable, Codable {
  /// What one layer of replication holds for the socket.
  public struct Layer: Sendable, Hashable, Codable {
    /// The layer's state for this socket is set up.
    public var initialized: Bool
    /// The log position of the layer's last record for this socket; 0 before the first.
    public var logPosition: UInt64

    public init(initialized: Bool, logPosition: UInt64) {
      self.initialized = initialized
      self.logPosition = logPosition
    }

    private enum CodingKeys: String, CodingKey {
      case initialized
      case logPosition = "log_position"
    }
  }

  public var handle: Handle
  /// The handle of the same connection on the other routing engine.
  public var peerHandle: Handle?
  /// The part that this routing engine plays for the socket; `none` if it is not replicated.
  public var role: MastershipRole
  public var state: SocketState
  /// The name that the application gave.
  public var application: String
  /// The routing instance, if it is not the main one.
  public var instance: String?
  /// `tcp` or `udp`.
  public var proto: String?
  /// Address and port of this end, such as `5.5.5.5:16000`.
  public var local: String?
  /// Address and port of the peer.
  public var foreign: String?
  public var sdrl: Layer
  public var prl: Layer
  public var psrm: Layer

  public init(
    handle: Handle, peerHandle: Handle?, role: MastershipRole, state: SocketState, application: String,
    instance: String? = nil, proto: String?, local: String?, foreign: String?, sdrl: Layer, prl: Layer,
    psrm: Layer
  ) {
    self.handle = handle
    self.peerHandle = peerHandle
    self.role = role
    self.state = state
    self.application = application
    self.instance = instance
    self.proto = proto
    self.local = local
    self.foreign = foreign
    self.sdrl = sdrl
    self.prl = prl
    self.psrm = psrm
  }

  private enum CodingKeys: String, CodingKey {
    case handle, role, state, application, instance, proto, local, foreign, sdrl, prl, psrm
    case peerHandle = "peer_handle"
  }
}

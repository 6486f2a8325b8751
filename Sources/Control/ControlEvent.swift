public import Packet
public import Replication

/// Something that happened, told to clients that asked for it.
///
/// As JSON: `{"version": 1, "event": "unreplicated", "time_ms": 1700000000000, "handle": "0x…", "reason": "…"}`.
public struct ControlEvent: Sendable, Hashable, CustomStringConvertible {
  public enum Kind: Sendable, Hashable {
    /// The handshake of a socket, or of a snoop pair, is over.
    case replicated(Handle)
    /// Replication of a socket has ended.
    case unreplicated(Handle, reason: String)
    /// The other routing engine is connected and stands by.
    case secondaryUp
    /// The other routing engine is gone.
    case secondaryDown(reason: String)
    /// This routing engine has become primary.
    case mastershipGained
    /// This routing engine is primary no more.
    case mastershipLost(reason: String)
    /// The peer of a replicated socket has closed its direction (FIN).
    case peerClosed(Handle)
    /// Requests that name a service of the client can be made here from now on, or no more.
    case serviceAvailable(String)
    case serviceUnavailable(String)
    /// The other routing engine's instance of a service asks this one to follow a connection.
    case replicationRequested(ReplicationRequested)
    /// A request that was not answered yet is off.
    case requestWithdrawn(service: String, primary: Handle)
    /// So many events were not sent because the client read too slowly.
    case missed(count: Int)
  }

  /// A connection, or a UDP socket, that is to be followed.
  public struct ReplicationRequested: Sendable, Hashable {
    public var service: String
    /// The primary's name for the socket.
    public var primary: Handle
    /// What it speaks: whether the snoop pair has streams of bytes, or of datagrams.
    public var transport: TransportProtocol
    /// Address and port of this end, such as `5.5.5.5:16000`, and of the peer: for a UDP socket that is not connected
    /// the unspecified address, and port 0.
    public var local: String
    public var foreign: String
    /// What the other instance has to say of it.
    public var note: [UInt8]

    public init(
      service: String, primary: Handle, transport: TransportProtocol = .tcp, local: String, foreign: String,
      note: [UInt8]
    ) {
      self.service = service
      self.primary = primary
      self.transport = transport
      self.local = local
      self.foreign = foreign
      self.note = note
    }
  }

  public var kind: Kind
  /// When it happened, in milliseconds since 1970 (UTC).
  public var timeMilliseconds: Int64

  public init(_ kind: Kind, timeMilliseconds: Int64) {
    self.kind = kind
    self.timeMilliseconds = timeMilliseconds
  }

  /// One line for people, without the time.
  public var description: String {
    switch kind {
    case .replicated(let handle): "replicated \(handle)"
    case .unreplicated(let handle, let reason): "unreplicated \(handle): \(reason)"
    case .secondaryUp: "secondary up"
    case .secondaryDown(let reason): "secondary down: \(reason)"
    case .mastershipGained: "mastership gained"
    case .mastershipLost(let reason): "mastership lost: \(reason)"
    case .peerClosed(let handle): "peer closed \(handle)"
    case .serviceAvailable(let service): "service \(service) available"
    case .serviceUnavailable(let service): "service \(service) unavailable"
    case .replicationRequested(let request):
      "service \(request.service) asks for \(request.primary), \(request.local) to \(request.foreign)"
    case .requestWithdrawn(let service, let primary): "service \(service) asks no more for \(primary)"
    case .missed(let count): "\(count) events missed"
    }
  }

  /// The message that carries the event.
  public func message() throws(ControlError) -> [UInt8] {
    if let flatMessage { return flatMessage }
    return try ControlJSON.encode(self)
  }
}

extension ControlEvent: Codable {
  private enum CodingKeys: String, CodingKey {
    case version, event, handle, reason, count, service, primary, transport, local, foreign, note
    case timeMilliseconds = "time_ms"
  }

  private enum Name: String {
    case replicated, unreplicated, missed
    case secondaryUp = "secondary_up"
    case secondaryDown = "secondary_down"
    case mastershipGained = "mastership_gained"
    case mastershipLost = "mastership_lost"
    case peerClosed = "peer_closed"
    case serviceAvailable = "service_available"
    case serviceUnavailable = "service_unavailable"
    case replicationRequested = "replication_requested"
    case requestWithdrawn = "request_withdrawn"
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    timeMilliseconds = try container.decode(Int64.self, forKey: .timeMilliseconds)
    let text = try container.decode(String.self, forKey: .event)
    guard let name = Name(rawValue: text) else {
      throw DecodingError.dataCorruptedError(
        forKey: .event, in: container, debugDescription: "there is no event \"\(text)\"")
    }
    func handle() throws -> Handle { try container.decode(Handle.self, forKey: .handle) }
    func string(_ key: CodingKeys) throws -> String { try container.decode(String.self, forKey: key) }
    func primary() throws -> Handle { try container.decode(Handle.self, forKey: .primary) }
    func reason() throws -> String { try container.decode(String.self, forKey: .reason) }
    kind =
      switch name {
      case .replicated: .replicated(try handle())
      case .unreplicated: .unreplicated(try handle(), reason: try reason())
      case .secondaryUp: .secondaryUp
      case .secondaryDown: .secondaryDown(reason: try reason())
      case .mastershipGained: .mastershipGained
      case .mastershipLost: .mastershipLost(reason: try reason())
      case .peerClosed: .peerClosed(try handle())
      case .serviceAvailable: .serviceAvailable(try string(.service))
      case .serviceUnavailable: .serviceUnavailable(try string(.service))
      case .replicationRequested:
        .replicationRequested(
          ReplicationRequested(
            service: try string(.service), primary: try primary(),
            transport: try TransportProtocol(from: container, forKey: .transport), local: try string(.local),
            foreign: try string(.foreign), note: try container.decode([UInt8].self, forKey: .note)))
      case .requestWithdrawn: .requestWithdrawn(service: try string(.service), primary: try primary())
      case .missed: .missed(count: try container.decode(Int.self, forKey: .count))
      }
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(ControlProtocol.version, forKey: .version)
    try container.encode(timeMilliseconds, forKey: .timeMilliseconds)
    func name(_ name: Name) throws { try container.encode(name.rawValue, forKey: .event) }
    func reason(_ text: String) throws {
      try container.encode(String(decoding: text.utf8.prefix(1024), as: UTF8.self), forKey: .reason)
    }
    switch kind {
    case .replicated(let handle):
      try name(.replicated)
      try container.encode(handle, forKey: .handle)
    case .unreplicated(let handle, let text):
      try name(.unreplicated)
      try container.encode(handle, forKey: .handle)
      try reason(text)
    case .secondaryUp: try name(.secondaryUp)
    case .secondaryDown(let text):
      try name(.secondaryDown)
      try reason(text)
    case .mastershipGained: try name(.mastershipGained)
    case .mastershipLost(let text):
      try name(.mastershipLost)
      try reason(text)
    case .peerClosed(let handle):
      try name(.peerClosed)
      try container.encode(handle, forKey: .handle)
    case .serviceAvailable(let service):
      try name(.serviceAvailable)
      try container.encode(service, forKey: .service)
    case .serviceUnavailable(let service):
      try name(.serviceUnavailable)
      try container.encode(service, forKey: .service)
    case .replicationRequested(let request):
      try name(.replicationRequested)
      try container.encode(request.service, forKey: .service)
      try container.encode(request.primary, forKey: .primary)
      try request.transport.encode(to: &container, forKey: .transport)
      try container.encode(request.local, forKey: .local)
      try container.encode(request.foreign, forKey: .foreign)
      try container.encode(request.note, forKey: .note)
    case .requestWithdrawn(let service, let primary):
      try name(.requestWithdrawn)
      try container.encode(service, forKey: .service)
      try container.encode(primary, forKey: .primary)
    case .missed(let count):
      try name(.missed)
      try container.encode(count, forKey: .count)
    }
  }
}

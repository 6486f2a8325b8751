import FoundationEssentials
public import Packet
public import Replication

/// One request to the engine.
///
/// As JSON: `{"version": 1, "id": 7, "request": "replicate", "primary": "0x…", "secondary": "0x…"}`.
public struct ControlRequest: Sendable, Hashable {
  /// What is asked for.
  public enum Body: Sendable, Hashable {
    /// The first request of every client. Answer: `welcome`.
    case hello(application: String, protocolVersion: Int, role: ClientRole = .application)
    /// A new handle. Answer: `handle`.
    case allocate
    /// Gives back a handle that has no socket. Answer: `done`.
    case free(Handle)
    /// A snoop pair for a handle of the primary, whose socket is of this kind. Answer: `handle`, with two descriptors,
    /// rcv before snd.
    case attach(primary: Handle, transport: TransportProtocol = .tcp)
    /// Replicates the socket whose descriptor comes with the request. Answer, after the handshake: `done`. The
    /// client keeps its own descriptor and leaves it alone until then.
    case replicate(primary: Handle, secondary: Handle)
    /// Ends replication; the socket goes on. Answer: `done`.
    case unreplicate(Handle)
    /// Turns a snoop pair into a live socket, and signs it (RFC 2385) if there is a key, which is base64 in
    /// JSON. Answer: `done`, with one descriptor.
    case merge(Handle, signingKey: [UInt8]? = nil)
    /// Closes the engine's duplicate of a socket in order. Answer: `done`.
    case close(Handle)
    /// What the application sends on a socket comes as records from now on. Answer: `recordChannel`, with the
    /// descriptor of the channel for them (``RecordReport``), whose writing direction the application ends to end record
    /// mode.
    case beginRecords(Handle)
    /// The client is the instance of this name on this RE, until it ends or unregisters. Answer: `done`.
    case registerService(String)
    /// Answer: `done`.
    case unregisterService(String)
    /// As `replicate`, with the pair that the instance of `service` on the other RE attaches when it is asked; `note` is
    /// for that instance, at most `ReplicationRequest.noteLimit` bytes. Answer, after the handshake: `done`.
    case requestReplication(primary: Handle, service: String, note: [UInt8])
    /// Answers a request of the other RE's instance with a snoop pair. Answer: `handle`, with two descriptors, rcv before
    /// snd.
    case acceptReplication(primary: Handle)
    /// Refuses one. Answer: `done`.
    case declineReplication(primary: Handle, reason: String)
    /// The state of one handle. Answer: `socket`.
    case status(Handle)
    /// Events from now on. Answer: `done`.
    case subscribe(SubscriptionScope)
    /// A report. Answer: `status`, `sockets`, `connections`, `statistics` or `memory`.
    case show(Report)
    /// Moves mastership. Answer: `done`.
    case master(MastershipAction)
    /// Changes a setting (`SettingName`) until the engine ends or reads its configuration again. For operators.
    /// Answer: `setting`, as it is now.
    case set(name: String, value: String)
    /// A setting (`SettingName`). Answer: `setting`.
    case get(name: String)
    /// How much is logged from now on. For operators. Answer: `done`.
    case logLevel(LogLevel)
    /// Fault injection: records of a layer count as not acknowledged. For operators, and only if the engine's
    /// configuration allows debugging. Answer: `done`.
    case holdAcknowledgements(of: DataLayer, isOn: Bool)
  }

  /// What a client may ask for.
  public enum ClientRole: String, Sendable, Hashable, Codable, CaseIterable {
    /// Has handles of its own, and speaks for no others.
    case application
    /// Has none, may end the replication of any socket, and changes settings.
    case `operator`
  }

  /// The levels of the engine's log, from the most said to the least (swift-log).
  public enum LogLevel: String, Sendable, Hashable, Codable, CaseIterable {
    case trace, debug, info, notice, warning, error, critical
  }

  /// The layers that replicate what belongs to one socket.
  public enum DataLayer: String, Sendable, Hashable, Codable, CaseIterable {
    case prl, sdrl, psrm
  }

  /// Whose events a client wants.
  public enum SubscriptionScope: String, Sendable, Hashable, Codable {
    /// Those of the routing engine, and of the client's own handles.
    case own
    /// Those of every client.
    case all
  }

  /// The reports that can be asked for.
  public enum Report: String, Sendable, Hashable, Codable, CaseIterable {
    case status, sockets, connections, statistics, memory
  }

  /// What can be done to mastership, seen from the routing engine that is asked.
  public enum MastershipAction: String, Sendable, Hashable, Codable, CaseIterable {
    /// This routing engine becomes primary.
    case acquire
    /// This routing engine stops being primary.
    case release
    /// The two change places.
    case `switch`
  }

  /// Chosen by the client; comes back in the reply.
  public var id: UInt64
  public var body: Body

  public init(id: UInt64, body: Body) {
    self.id = id
    self.body = body
  }

  /// How many descriptors come with this request.
  public var descriptorCount: Int {
    switch body {
    case .replicate, .requestReplication: 1
    default: 0
    }
  }
}

extension ControlRequest {
  /// A message that is not a request, with the `id` under which to say so.
  public struct Unreadable: Error, Hashable, Sendable {
    /// The request's `id`; 0 if not even that could be read.
    public let id: UInt64
    public let error: ControlError
  }

  /// Reads one message.
  public init(reading bytes: [UInt8]) throws(Unreadable) {
    if let object = FlatObject(bytes), let request = ControlRequest(object) {
      self = request
    } else {
      try self.init(decoding: bytes)
    }
  }

  /// Reads a message of whatever form.
  init(decoding bytes: [UInt8]) throws(Unreadable) {
    let envelope: Envelope
    do {
      envelope = try ControlJSON.decode(Envelope.self, from: bytes)
    } catch {
      throw Unreadable(id: 0, error: error)
    }
    do {
      self = try envelope.request.get()
    } catch {
      throw Unreadable(id: envelope.id, error: ControlJSON.complaint(about: error))
    }
  }

  /// What can be read of a message even if it is no request.
  private struct Envelope: Decodable {
    enum CodingKeys: String, CodingKey { case version, id }

    let id: UInt64
    let request: Result<ControlRequest, any Error>

    init(from decoder: any Decoder) throws {
      let container = try decoder.container(keyedBy: CodingKeys.self)
      let version = try container.decodeIfPresent(Int.self, forKey: .version)
      id = try container.decodeIfPresent(UInt64.self, forKey: .id) ?? 0
      request = Result {
        switch version {
        case ControlProtocol.version: try ControlRequest(from: decoder)
        case nil: throw ControlError(.malformed, "the field \"version\" is missing")
        case let version?:
          throw ControlError(
            .version,
            "version \(version) of the control protocol is not spoken here, use \(ControlProtocol.version)")
        }
      }
    }
  }

  /// The message that carries the request.
  public func message() throws(ControlError) -> [UInt8] {
    if let flatMessage { return flatMessage }
    return try ControlJSON.encode(self)
  }
}

extension ControlRequest: Codable {
  private enum CodingKeys: String, CodingKey {
    case version, id, request, application, handle, primary, secondary, scope, report, action, role, name,
      value, level, layer, on, service, note, reason, transport
    case protocolVersion = "protocol_version"
    case signingKey = "signing_key"
  }

  private enum Name: String {
    case hello, allocate, free, attach, replicate, unreplicate, merge, close, status, subscribe, show, master,
      set, get
    case logLevel = "log_level"
    case holdAcknowledgements = "hold_acknowledgements"
    case beginRecords = "begin_records"
    case registerService = "register_service"
    case unregisterService = "unregister_service"
    case requestReplication = "request_replication"
    case acceptReplication = "accept_replication"
    case declineReplication = "decline_replication"
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    id = try container.decode(UInt64.self, forKey: .id)
    let text = try container.decode(String.self, forKey: .request)
    guard let name = Name(rawValue: text) else {
      throw DecodingError.dataCorruptedError(
        forKey: .request, in: container, debugDescription: "there is no request \"\(text)\"")
    }
    func handle(_ key: CodingKeys = .handle) throws -> Handle {
      try container.decode(Handle.self, forKey: key)
    }
    func choice<Choice: RawRepresentable<String>>(_: Choice.Type, _ key: CodingKeys) throws -> Choice {
      let text = try container.decode(String.self, forKey: key)
      guard let choice = Choice(rawValue: text) else {
        throw DecodingError.dataCorruptedError(
          forKey: key, in: container, debugDescription: "there is no \(key.rawValue) \"\(text)\"")
      }
      return choice
    }
    switch name {
    case .hello:
      body = .hello(
        application: try container.decode(String.self, forKey: .application),
        protocolVersion: try container.decode(Int.self, forKey: .protocolVersion),
        role: container.contains(.role) ? try choice(ClientRole.self, .role) : .application)
    case .allocate: body = .allocate
    case .free: body = .free(try handle())
    case .attach:
      body = .attach(
        primary: try handle(.primary), transport: try TransportProtocol(from: container, forKey: .transport))
    case .replicate: body = .replicate(primary: try handle(.primary), secondary: try handle(.secondary))
    case .unreplicate: body = .unreplicate(try handle())
    case .merge:
      let key = try container.decodeIfPresent(Data.self, forKey: .signingKey)
      body = .merge(try handle(), signingKey: key.map { Array($0) })
    case .close: body = .close(try handle())
    case .beginRecords: body = .beginRecords(try handle())
    case .registerService: body = .registerService(try container.decode(String.self, forKey: .service))
    case .unregisterService: body = .unregisterService(try container.decode(String.self, forKey: .service))
    case .requestReplication:
      body = .requestReplication(
        primary: try handle(.primary), service: try container.decode(String.self, forKey: .service),
        note: container.contains(.note) ? try container.decode([UInt8].self, forKey: .note) : [])
    case .acceptReplication: body = .acceptReplication(primary: try handle(.primary))
    case .declineReplication:
      body = .declineReplication(
        primary: try handle(.primary), reason: try container.decode(String.self, forKey: .reason))
    case .status: body = .status(try handle())
    case .subscribe: body = .subscribe(try choice(SubscriptionScope.self, .scope))
    case .show: body = .show(try choice(Report.self, .report))
    case .master: body = .master(try choice(MastershipAction.self, .action))
    case .set:
      body = .set(
        name: try container.decode(String.self, forKey: .name),
        value: try container.decode(String.self, forKey: .value))
    case .get: body = .get(name: try container.decode(String.self, forKey: .name))
    case .logLevel: body = .logLevel(try choice(LogLevel.self, .level))
    case .holdAcknowledgements:
      body = .holdAcknowledgements(
        of: try choice(DataLayer.self, .layer), isOn: try container.decode(Bool.self, forKey: .on))
    }
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(ControlProtocol.version, forKey: .version)
    try container.encode(id, forKey: .id)
    func name(_ name: Name) throws { try container.encode(name.rawValue, forKey: .request) }
    switch body {
    case .hello(let application, let protocolVersion, let role):
      try name(.hello)
      // An engine that knows of no roles has only applications.
      if role != .application { try container.encode(role, forKey: .role) }
      try container.encode(application, forKey: .application)
      try container.encode(protocolVersion, forKey: .protocolVersion)
    case .allocate: try name(.allocate)
    case .free(let handle):
      try name(.free)
      try container.encode(handle, forKey: .handle)
    case .attach(let primary, let transport):
      try name(.attach)
      try container.encode(primary, forKey: .primary)
      try transport.encode(to: &container, forKey: .transport)
    case .replicate(let primary, let secondary):
      try name(.replicate)
      try container.encode(primary, forKey: .primary)
      try container.encode(secondary, forKey: .secondary)
    case .unreplicate(let handle):
      try name(.unreplicate)
      try container.encode(handle, forKey: .handle)
    case .merge(let handle, let signingKey):
      try name(.merge)
      try container.encode(handle, forKey: .handle)
      try container.encodeIfPresent(signingKey.map { Data($0) }, forKey: .signingKey)
    case .close(let handle):
      try name(.close)
      try container.encode(handle, forKey: .handle)
    case .beginRecords(let handle):
      try name(.beginRecords)
      try container.encode(handle, forKey: .handle)
    case .registerService(let service):
      try name(.registerService)
      try container.encode(service, forKey: .service)
    case .unregisterService(let service):
      try name(.unregisterService)
      try container.encode(service, forKey: .service)
    case .requestReplication(let primary, let service, let note):
      try name(.requestReplication)
      try container.encode(primary, forKey: .primary)
      try container.encode(service, forKey: .service)
      if !note.isEmpty { try container.encode(note, forKey: .note) }
    case .acceptReplication(let primary):
      try name(.acceptReplication)
      try container.encode(primary, forKey: .primary)
    case .declineReplication(let primary, let reason):
      try name(.declineReplication)
      try container.encode(primary, forKey: .primary)
      try container.encode(String(decoding: reason.utf8.prefix(1024), as: UTF8.self), forKey: .reason)
    case .status(let handle):
      try name(.status)
      try container.encode(handle, forKey: .handle)
    case .subscribe(let scope):
      try name(.subscribe)
      try container.encode(scope, forKey: .scope)
    case .show(let report):
      try name(.show)
      try container.encode(report, forKey: .report)
    case .master(let action):
      try name(.master)
      try container.encode(action, forKey: .action)
    case .set(let setting, let value):
      try name(.set)
      try container.encode(setting, forKey: .name)
      try container.encode(value, forKey: .value)
    case .get(let setting):
      try name(.get)
      try container.encode(setting, forKey: .name)
    case .logLevel(let level):
      try name(.logLevel)
      try container.encode(level, forKey: .level)
    case .holdAcknowledgements(let layer, let isOn):
      try name(.holdAcknowledgements)
      try container.encode(layer, forKey: .layer)
      try container.encode(isOn, forKey: .on)
    }
  }
}

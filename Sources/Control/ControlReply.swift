public import Replication

/// The engine's answer to one request.
///
/// As JSON: `{"version": 1, "id": 7, "more": false, "result": {"handle": "0x…"}}`, or with
/// `"error": {"code": "…", "message": "…"}` in place of `result`. `done` is an empty `result`.
public struct ControlReply: Sendable, Hashable {
  /// What was asked for.
  public enum Body: Sendable, Hashable {
    case done
    case welcome(Welcome)
    case handle(Handle)
    case status(StatusReport)
    case socket(SocketReport)
    case sockets([SocketReport])
    case connections([ConnectionReport])
    case statistics([StatisticsReport])
    case memory([MemoryReport])
    case setting(SettingReport)
    /// With the descriptor of the channel. The limit is that of one record, in bytes.
    case recordChannel(limit: Int)
  }

  /// Who answers `hello`.
  public struct Welcome: Sendable, Hashable, Codable {
    /// The name of the routing engine.
    public var node: String
    /// 0 or 1.
    public var slot: UInt8
    /// The version of the engine.
    public var engineVersion: String

    public init(node: String, slot: UInt8, engineVersion: String) {
      self.node = node
      self.slot = slot
      self.engineVersion = engineVersion
    }

    private enum CodingKeys: String, CodingKey {
      case node, slot
      case engineVersion = "engine_version"
    }
  }

  /// The `id` of the request; 0 for what could not be read, or for a client that is not let in.
  public var id: UInt64
  /// More of the same list follows under the same `id`.
  public var more: Bool
  public var outcome: Result<Body, ControlError>

  public init(id: UInt64, more: Bool = false, outcome: Result<Body, ControlError>) {
    self.id = id
    self.more = more
    self.outcome = outcome
  }
}

extension ControlReply: Codable {
  private enum CodingKeys: String, CodingKey { case version, id, more, result, error }
  private struct RecordLimit: Codable { var limit: Int }
  private enum ResultKeys: String, CodingKey {
    case welcome, handle, status, socket, sockets, connections, statistics, memory, setting
    case recordChannel = "record_channel"
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    id = try container.decode(UInt64.self, forKey: .id)
    more = try container.decode(Bool.self, forKey: .more)
    if let error = try container.decodeIfPresent(ControlError.self, forKey: .error) {
      outcome = .failure(error)
      return
    }
    let result = try container.nestedContainer(keyedBy: ResultKeys.self, forKey: .result)
    func value<Value: Decodable>(_: Value.Type, _ key: ResultKeys) throws -> Value {
      try result.decode(Value.self, forKey: key)
    }
    outcome =
      switch result.allKeys.first {
      case nil: .success(.done)
      case .welcome: .success(.welcome(try value(Welcome.self, .welcome)))
      case .handle: .success(.handle(try value(Handle.self, .handle)))
      case .status: .success(.status(try value(StatusReport.self, .status)))
      case .socket: .success(.socket(try value(SocketReport.self, .socket)))
      case .sockets: .success(.sockets(try value([SocketReport].self, .sockets)))
      case .connections: .success(.connections(try value([ConnectionReport].self, .connections)))
      case .statistics: .success(.statistics(try value([StatisticsReport].self, .statistics)))
      case .memory: .success(.memory(try value([MemoryReport].self, .memory)))
      case .setting: .success(.setting(try value(SettingReport.self, .setting)))
      case .recordChannel:
        .success(.recordChannel(limit: try value(RecordLimit.self, .recordChannel).limit))
      }
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(ControlProtocol.version, forKey: .version)
    try container.encode(id, forKey: .id)
    try container.encode(more, forKey: .more)
    switch outcome {
    case .failure(let error):
      try container.encode(error, forKey: .error)
    case .success(let body):
      var result = container.nestedContainer(keyedBy: ResultKeys.self, forKey: .result)
      switch body {
      case .done: break
      case .welcome(let value): try result.encode(value, forKey: .welcome)
      case .handle(let value): try result.encode(value, forKey: .handle)
      case .status(let value): try result.encode(value, forKey: .status)
      case .socket(let value): try result.encode(value, forKey: .socket)
      case .sockets(let value): try result.encode(value, forKey: .sockets)
      case .connections(let value): try result.encode(value, forKey: .connections)
      case .statistics(let value): try result.encode(value, forKey: .statistics)
      case .memory(let value): try result.encode(value, forKey: .memory)
      case .setting(let value): try result.encode(value, forKey: .setting)
      case .recordChannel(let limit):
        try result.encode(RecordLimit(limit: limit), forKey: .recordChannel)
      }
    }
  }
}

extension ControlReply {
  /// Joins the messages of one long list: `self` came first, `next` under the same `id` after it.
  ///
  /// - Throws: `malformed` if the two are not parts of one list.
  public mutating func append(_ next: ControlReply) throws(ControlError) {
    switch (outcome, next.outcome) {
    case (.success(.sockets(let head)), .success(.sockets(let tail))):
      outcome = .success(.sockets(head + tail))
    case (.success(.connections(let head)), .success(.connections(let tail))):
      outcome = .success(.connections(head + tail))
    case (.success(.statistics(let head)), .success(.statistics(let tail))):
      outcome = .success(.statistics(head + tail))
    default:
      throw ControlError(.malformed, "the parts of a long reply do not belong together")
    }
    more = next.more
  }
}

/// All that `jsrctl top` shows, as it was at one moment.
public struct TopSample: Sendable, Codable {
  public var status: StatusReport
  public var sockets: [SocketReport]
  public var connections: [ConnectionReport]
  public var statistics: [StatisticsReport]
  public var memory: [MemoryReport]

  public init(
    status: StatusReport, sockets: [SocketReport], connections: [ConnectionReport],
    statistics: [StatisticsReport], memory: [MemoryReport]
  ) {
    self.status = status
    self.sockets = sockets
    self.connections = connections
    self.statistics = statistics
    self.memory = memory
  }

  /// Asks the engine for everything.
  public init(from client: ControlClient) throws(ControlClient.Failure) {
    func refuse() -> ControlClient.Failure {
      .refused(ControlError(.malformed, "the engine answered with another report than was asked for"))
    }
    guard case .status(let status) = try client.request(.show(.status)),
      case .sockets(let sockets) = try client.request(.show(.sockets)),
      case .connections(let connections) = try client.request(.show(.connections)),
      case .statistics(let statistics) = try client.request(.show(.statistics)),
      case .memory(let memory) = try client.request(.show(.memory))
    else { throw refuse() }
    self.init(
      status: status, sockets: sockets, connections: connections, statistics: statistics, memory: memory)
  }

  /// As one JSON document on one line.
  public func document() throws(ControlError) -> String {
    String(decoding: try ControlJSON.encode(self), as: UTF8.self)
  }

  /// A figure of `show statistics`; 0 if the engine does not count that.
  func figure(_ layer: String, _ name: String) -> Int64 {
    statistics.first { $0.layer == layer && $0.name == name }?.value ?? 0
  }

  func area(_ name: String) -> MemoryReport? { memory.first { $0.area == name } }
}

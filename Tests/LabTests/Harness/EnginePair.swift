import Testing

/// Both routing engines of a lab, each with its engine and its echo server, in step.
struct EnginePair: Sendable {
  let lab: Lab
  let re0: RoutingEngine
  let re1: RoutingEngine

  /// Both engines, with nothing running on them.
  init(unstarted lab: Lab, configuration: EngineConfiguration = EngineConfiguration()) {
    self.lab = lab
    re0 = RoutingEngine(.re0, in: lab, configuration: configuration)
    re1 = RoutingEngine(.re1, in: lab, configuration: configuration)
  }

  /// Starts both engines and no echo server; re0 is the primary when this returns, and re1 is in step.
  init(withoutServersIn lab: Lab, configuration: EngineConfiguration = EngineConfiguration()) async throws {
    self.init(unstarted: lab, configuration: configuration)
    try await re0.startEngine()
    try await re1.startEngine()
    try await waitUntilInStep(primary: re0)
  }

  /// Starts both, each with its server; re0 is the primary when this returns, and re1 is in step.
  init(
    in lab: Lab, configuration: EngineConfiguration = EngineConfiguration(), servers: [String] = ["--quiet"]
  ) async throws {
    try await self.init(withoutServersIn: lab, configuration: configuration)
    try re0.startServer(servers)
    try re1.startServer(servers)
    try await re0.waitUntilServing()
    try await re1.server.waitForLine(containing: "CHANNEL up", within: .seconds(10))
  }

  func other(_ engine: RoutingEngine) -> RoutingEngine { engine.node == .re0 ? re1 : re0 }

  /// Waits until `primary` is just that, and the other engine is ready to take over.
  func waitUntilInStep(primary: RoutingEngine, within time: Duration = .seconds(15)) async throws {
    let secondary = other(primary)
    try await eventually(within: time, "\(primary.node) is primary and \(secondary.node) in step") {
      let (first, second) = (try await primary.status(), try await secondary.status())
      return first.role == "primary" && second.role == "secondary" && first.peer.inStep
    }
  }

  /// Waits until `count` sockets are replicated from `primary` to the other engine.
  func waitUntilReplicated(
    _ count: Int, primary: RoutingEngine, within time: Duration = .seconds(15)
  ) async throws {
    let secondary = other(primary)
    var pairs: Int?
    var states: [Node: [String]] = [:]
    try await eventually(
      within: time,
      "\(count) sockets replicated from \(primary.node); \(pairs ?? 0) pairs, states \(states)"
    ) {
      // A report on many sockets costs the engines time that they need for the sockets, and is asked for only
      // when it may be the last one.
      pairs = try await secondary.levels()["snoop_pairs"]
      guard pairs == count else { return false }
      for engine in [primary, secondary] {
        states[engine.node] = try await engine.sockets().map(\.state)
      }
      return states[primary.node]?.count { $0 == "replicating" } == count
        && states[secondary.node]?.count { $0 == "snooping" } == count
    }
  }
}

import Testing

/// What one layer says of itself in the logs of both routing engines.
struct LayerWatch: Sendable {
  /// As log lines name it.
  let layer: String

  /// Lines about what the layer keeps for all sockets together.
  func globalLines(of engine: RoutingEngine) throws -> [String] {
    try engine.engine.errors.filter { $0.contains("\(layer) global state") }
  }

  /// Waits until `engine` has said that the layer's state for each of `handles` is there.
  func waitUntilInitialized(_ handles: [String], on engine: RoutingEngine) async throws {
    for handle in handles {
      try await engine.engine.waitForLine(
        containing: "\(layer) per-socket state initialized for socket \(handle)", within: .seconds(5))
    }
    try expectOneEach("initialized", handles, on: engine)
  }

  /// Waits until `engine` has said that it is gone.
  func waitUntilCleanedUp(_ handles: [String], on engine: RoutingEngine) async throws {
    for handle in handles {
      try await engine.engine.waitForLine(
        containing: "\(layer) per-socket state cleaned up for socket \(handle)", within: .seconds(5))
    }
    try expectOneEach("cleaned up", handles, on: engine)
  }

  private func expectOneEach(_ what: String, _ handles: [String], on engine: RoutingEngine) throws {
    let lines = try engine.engine.errors
    for handle in handles {
      let count = lines.count { $0.contains("\(layer) per-socket state \(what) for socket \(handle)") }
      #expect(count == 1, "\(layer) \(what) \(count) times on \(engine.node) for \(handle)")
    }
  }

  /// Fault injection: records of the layer are not acknowledged, or are again.
  func holdAcknowledgements(_ isOn: Bool, on engine: RoutingEngine) async throws {
    try await engine.order(["debug", "hold-acks", layer.lowercased(), isOn ? "on" : "off"])
  }

  /// Changes the layer's timeout while the engine runs.
  func setTimeout(_ time: String, on engine: RoutingEngine) async throws {
    try await engine.order(["set", "\(layer.lowercased()).timeout", time])
  }

  /// Lines about single records, which there are at the level debug. Pieces of queues, which a handshake copies,
  /// are no records in the sense of `show statistics`.
  func recordLines(of engine: RoutingEngine, _ verb: String) throws -> [String] {
    try engine.engine.errors.filter {
      $0.contains(" \(layer) record ") && $0.contains(" \(verb) ") && !$0.contains("Initial,")
    }
  }

  /// A figure of this layer in `show statistics`.
  func figure(_ name: String, of engine: RoutingEngine) async throws -> Int {
    let name = "\(layer.lowercased()).\(name)"
    guard let value = try await engine.figures()[name] else {
      throw LabFailure("show statistics on \(engine.node) has no \(name)")
    }
    return value
  }
}

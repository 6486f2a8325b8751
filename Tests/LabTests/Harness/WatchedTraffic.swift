import Testing

/// Traffic of one jsrpeer over replicated connections, from before its first SYN to after its last FIN, and
/// everything that must be true of it whatever happens to the routing engines meanwhile.
struct WatchedTraffic: Sendable {
  let pair: EnginePair
  let peer: PeerTraffic
  let connectionCount: Int
  private let watch: ConnectionWatch
  private let levels: [Node: [String: Int]]

  /// Starts the traffic and returns when every connection is replicated from re0 to re1.
  ///
  /// - Parameters:
  ///   - families: What the connections take turns in.
  ///   - options: Of jsrpeer; `-n`, `-p` and the like are added.
  ///   - time: How long replication of all connections may take to begin.
  init(
    _ pair: EnginePair, connections: Int = 5, families: [Family] = Family.allCases, _ options: [String],
    within time: Duration = .seconds(15)
  ) async throws {
    self.pair = pair
    connectionCount = connections
    levels = [.re0: try await pair.re0.levels(), .re1: try await pair.re1.levels()]
    watch = try await ConnectionWatch(in: pair.lab)
    peer = try PeerTraffic(in: pair.lab, families: families, ["-n", "\(connections)"] + options)
    try await pair.waitUntilReplicated(connections, primary: pair.re0, within: time)
  }

  /// What has begun, ended or been reset so far.
  var events: [ConnectionWatch.Event] { watch.events }

  /// Lets endless traffic end, and checks all that the peer and its link have seen.
  ///
  /// - Parameter living: The engines that are still there, and so must have let go of everything.
  @discardableResult
  func stop(living: [RoutingEngine]) async throws -> PeerTraffic.Summary {
    let (summary, end) = try await peer.stop()
    try await check(summary, end, living: living)
    return summary
  }

  /// Waits until bounded traffic has ended by itself, and checks the same.
  @discardableResult
  func finish(within time: Duration, living: [RoutingEngine]) async throws -> PeerTraffic.Summary {
    let (summary, end) = try await peer.finish(within: time)
    try await check(summary, end, living: living)
    return summary
  }

  private func check(
    _ summary: PeerTraffic.Summary, _ end: Program.End, living: [RoutingEngine]
  ) async throws {
    #expect(end == .exited(0), "jsrpeer: \(peer.program.lastWords)")
    #expect(summary.faults == 0, "\(summary)")
    #expect(summary.connections == connectionCount)
    #expect(summary.sent >= connectionCount)
    #expect(summary.echoedByRe0 + summary.echoedByRe1 == summary.sent)
    try await checkLink()
    await checkNothingIsLeft(on: living)
  }

  /// Ends the watch: every connection was seen to begin, none was reset, and none was closed but by the peer.
  func checkLink() async throws {
    let events = try await watch.finish()
    #expect(events.connectionCount == connectionCount, "a watch that misses connections proves nothing")
    #expect(events.resets.isEmpty, "\(events.resets)")
    #expect(events.unaskedFins.isEmpty, "\(events.unaskedFins)")
  }

  /// Levels are back where they were before the traffic.
  private func checkNothingIsLeft(on living: [RoutingEngine]) async {
    for engine in living { await engine.checkNothingIsLeft(since: levels[engine.node] ?? [:]) }
  }

  /// Waits until every connection has got `count` bytes more than it had.
  func waitUntilFlowing(_ count: Int = 1000, within time: Duration = .seconds(10)) async throws {
    let before = try await bytesReceived()
    try await eventually(within: time, "each of \(connectionCount) connections gets \(count) more bytes") {
      let now = try await bytesReceived()
      return now.count == connectionCount && now.allSatisfy { $0.value >= (before[$0.key] ?? 0) + count }
    }
  }

  /// What the peer's kernel has got so far, by the peer's end of the connection.
  private func bytesReceived() async throws -> [String: Int] {
    let sockets = try await KernelSocket.all(on: .peer, in: pair.lab).filter { $0.state == "ESTAB" }
    return Dictionary(sockets.map { ($0.local, Int($0.values["bytes_received"] ?? "") ?? 0) }) { first, _ in
      first
    }
  }
}

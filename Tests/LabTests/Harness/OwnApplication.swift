import JSR
import Synchronization
import Testing

/// The test itself as the application of both routing engines: it holds every end of a replicated connection.
final class OwnApplication: Sendable {
  /// One replicated connection and its snoop pair.
  struct Connection: ~Copyable, Sendable {
    let peer: StreamEnd
    let server: StreamEnd
    /// The handle on re0.
    let primary: Handle
    /// The handle on re1.
    let secondary: Handle
    let rcv: StreamEnd
    let snd: StreamEnd
  }

  let pair: EnginePair
  /// On re0, and on re1.
  let primary: Session
  let secondary: Session
  private let listening: ListeningSocket
  private let families: [Family]
  private let connectionCount = Atomic<Int>(0)
  private let levels: [Node: [String: Int]]

  /// Starts both engines, without echo servers; re0 is the primary when this returns, and re1 is in step.
  ///
  /// - Parameter families: What the connections take turns in.
  init(
    in lab: Lab, configuration: EngineConfiguration = EngineConfiguration(),
    families: [Family] = Family.allCases
  ) async throws {
    self.families = families
    pair = EnginePair(unstarted: lab, configuration: configuration)
    try await pair.re0.startEngine()
    try await pair.re1.startEngine()
    try await pair.waitUntilInStep(primary: pair.re0)
    primary = try await Session.connect(to: lab.controlSocket(of: .re0), application: "primary")
    secondary = try await Session.connect(to: lab.controlSocket(of: .re1), application: "secondary")
    levels = [.re0: try await pair.re0.levels(), .re1: try await pair.re1.levels()]
    listening = try await ListeningSocket(on: .re0, in: lab, sendBuffer: 256 << 10)
  }

  /// A new connection of the peer, to be accepted.
  func connectPeer() async throws -> StreamEnd {
    let number = connectionCount.add(1, ordering: .relaxed).oldValue
    return try await StreamEnd(
      connectedFrom: .peer, in: pair.lab, receiveBuffer: 256 << 10, family: families[number % families.count])
  }

  func accept() async throws -> StreamEnd { try await listening.accept() }

  /// A new connection of the peer, replicated.
  func connect() async throws -> Connection {
    try await replicate(try await connectPeer(), try await accept())
  }

  /// Replicates a connection under new handles.
  func replicate(_ peer: consuming StreamEnd, _ server: consuming StreamEnd) async throws -> Connection {
    let name = try await primary.allocate()
    let snoop = try await secondary.attach(primary: name)
    let (handle, rcv, snd) = snoop.release()
    switch await primary.replicate(server.release(), primary: name, secondary: handle) {
    case .replicating(let socket):
      return Connection(
        peer: peer, server: try StreamEnd(socket), primary: name, secondary: handle,
        rcv: try StreamEnd(Socket(owning: rcv)), snd: try StreamEnd(Socket(owning: snd)))
    case .refused(_, let reason): throw LabFailure("replication was refused: \(reason)")
    }
  }

  /// Checks that nothing is left of any connection on either routing engine, and ends both sessions.
  func end() async throws {
    for engine in [pair.re0, pair.re1] {
      await engine.checkNothingIsLeft(since: levels[engine.node] ?? [:])
      let areas = try await engine.memory()
      #expect(Set(areas.map(\.area)).isSuperset(of: Self.emptyAreas))
      for area in areas where Self.emptyAreas.contains(area.area) {
        #expect(area.used == 0, "\(area.area) on \(engine.node)")
      }
    }
    primary.close()
    secondary.close()
  }

  /// Of `show memory`: what there is only for connections.
  private static let emptyAreas: Set = [
    "hold_buffer", "replication_log", "snoop_buffers", "takeover_buffers", "handles", "flows",
  ]
}

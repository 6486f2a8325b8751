import Foundation
import JSR

/// `jsrctl monitor` at work on one routing engine.
struct EventMonitor: Sendable {
  let program: Program

  private struct Line: Decodable {
    let event: String
    let handle: String?
    let reason: String?
    let count: Int?
  }

  /// Returns when the engine has the monitor for a client.
  init(on engine: RoutingEngine) async throws {
    let before = try await engine.clientCount()
    let program = try engine.lab.start(
      "monitor-\(engine.node)", on: engine.node, [Binaries.path(of: "jsrctl"), "monitor", "--json"])
    self.program = program
    try await eventually(within: .seconds(5), "the monitor on \(engine.node) is connected") {
      try await engine.clientCount() == before + 1
    }
  }

  /// What it has printed, as an application would be told.
  func events() throws -> [Event] {
    try program.output.map { line in
      let line = try JSONDecoder().decode(Line.self, from: Data(line.utf8))
      func handle() throws -> Handle {
        guard let handle = line.handle.flatMap({ Handle($0) }) else {
          throw LabFailure("\(line) has no handle")
        }
        return handle
      }
      switch line.event {
      case "replicated": return .replicated(try handle())
      case "unreplicated": return .unreplicated(try handle(), reason: line.reason ?? "none")
      case "secondary_up": return .secondaryUp
      case "secondary_down": return .secondaryDown
      case "mastership_gained": return .mastershipGained
      case "mastership_lost": return .mastershipLost
      case "peer_closed": return .peerClosed(try handle())
      case "missed": return .missed(count: line.count ?? 0)
      default: throw LabFailure("the monitor printed an event that nobody knows: \(line)")
      }
    }
  }
}

extension RoutingEngine {
  /// How many programs are connected to the control socket, jsrctl that asks for it among them.
  fileprivate func clientCount() async throws -> Int {
    guard let clients = try await memory().first(where: { $0.area == "clients" }) else {
      throw LabFailure("show memory on \(node) does not count clients")
    }
    return clients.used
  }
}

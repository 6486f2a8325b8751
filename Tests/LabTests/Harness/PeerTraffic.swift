import Foundation
import Glibc

/// jsrpeer at work on the peer, which knows nothing of replication.
struct PeerTraffic: Sendable {
  /// What jsrpeer counted, from its own `--json` summary.
  struct Summary: Decodable, Sendable {
    let connections: Int
    let sent: Int
    let echoedByRe0: Int
    let echoedByRe1: Int
    let lost: Int
    let repeated: Int
    let mismatched: Int
    let unexpectedEnds: Int
    let bytesSent: Int
    let bytesReceived: Int
    let longestGapMs: Double
    let durationMs: Double
    let mbitPerSecond: Double

    /// What a peer must never see.
    var faults: Int { lost + repeated + mismatched + unexpectedEnds }
  }

  let program: Program

  /// Starts jsrpeer towards the replicated address, whose connections take turns in `families`: the first one is of
  /// the first family, the second one of the second, the third one of the first again.
  init(
    _ name: String = "jsrpeer", in lab: Lab, on node: Node = .peer, families: [Family] = Family.allCases,
    port: Int = 16000, _ options: [String]
  ) throws {
    program = try lab.start(
      name, on: node,
      [Binaries.path(of: "jsrpeer")] + options + ["-p", "\(port)", "-v", "--json"]
        + families.map(\.replicated))
  }

  /// Its lines about echoes that came back.
  var echoLines: [String] {
    program.output.filter { $0.contains("RE0") || $0.contains("RE1") }
  }

  /// From now on jsrpeer sends and does not read: what comes stays in its kernel.
  func ceaseReading() { program.send(SIGUSR1) }

  /// jsrpeer reads again.
  func readAgain() { program.send(SIGUSR2) }

  /// Ends endless traffic: jsrpeer sends no more, waits for the echoes that are out, and sums up.
  func stop() async throws -> (summary: Summary, end: Program.End) {
    program.send(SIGINT)
    return try await finish(within: .seconds(20))
  }

  /// Waits for jsrpeer to end by itself.
  func finish(within time: Duration) async throws -> (summary: Summary, end: Program.End) {
    let end = try await program.waitForEnd(within: time)
    guard let document = program.output.last(where: { $0.hasPrefix("{") }) else {
      throw LabFailure("jsrpeer printed no summary: \(program.lastWords)")
    }
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return (try decoder.decode(Summary.self, from: Data(document.utf8)), end)
  }
}

/// The last line of counts that an echo server printed: with `--quiet` it prints one a second, when they change.
struct ServerCounts: Sendable, CustomStringConvertible {
  let description: String
  let role: String
  let messages: Int
  let bytesIn: Int
  let bytesOut: Int
  /// Of a secondary: echoes on `snd` that were what the peer's bytes on `rcv` ask for, and those that were not.
  let matches: Int
  let mismatches: Int

  /// `nil` before the first such line.
  init?(of server: Program) {
    guard let line = server.output.last(where: { $0.hasPrefix("COUNTS ") }),
      let counts = line.firstMatch(
        of:
          /COUNTS (\w+) .* messages (\d+) .*bytes in (\d+) out (\d+) matches (\d+) mismatches (\d+)/
      )?.output,
      let messages = Int(counts.2), let bytesIn = Int(counts.3), let bytesOut = Int(counts.4),
      let matches = Int(counts.5), let mismatches = Int(counts.6)
    else { return nil }
    description = line
    role = String(counts.1)
    self.messages = messages
    self.bytesIn = bytesIn
    self.bytesOut = bytesOut
    self.matches = matches
    self.mismatches = mismatches
  }
}

extension EnginePair {
  /// Waits until the server on re1, which has snooped all of a traffic that is over, has counted all of it on both
  /// descriptors: every byte that the peer sent, every byte that it got, and every message as it should be.
  func waitUntilAllMatched(_ summary: PeerTraffic.Summary) async throws {
    var counts: ServerCounts?
    try await eventually(
      within: .seconds(15), "re1 has snooped all of \(summary): \(counts?.description ?? "no counts")"
    ) {
      counts = ServerCounts(of: try re1.server)
      return counts?.role == "secondary" && counts?.matches == summary.sent && counts?.mismatches == 0
        && counts?.bytesIn == summary.bytesSent && counts?.bytesOut == summary.bytesReceived
    }
  }
}

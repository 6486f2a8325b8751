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
  /// Waits until the server on re1 has counted, on both descriptors of all its pairs, so many messages as they should
  /// be and so many bytes, and none that is wrong.
  func waitUntilMatched(messages: Int, bytesIn: Int, bytesOut: Int) async throws {
    var counts: ServerCounts?
    try await eventually(
      within: .seconds(15),
      "re1 has snooped \(messages) messages, \(bytesIn) bytes in, \(bytesOut) out: \(counts?.description ?? "no counts")"
    ) {
      counts = ServerCounts(of: try re1.server)
      return counts?.role == "secondary" && counts?.matches == messages && counts?.mismatches == 0
        && counts?.bytesIn == bytesIn && counts?.bytesOut == bytesOut
    }
  }

  /// The same for all of a traffic that is over: every byte that the peer sent, and every byte that it got.
  func waitUntilAllMatched(_ summary: PeerTraffic.Summary) async throws {
    try await waitUntilMatched(
      messages: summary.sent, bytesIn: summary.bytesSent, bytesOut: summary.bytesReceived)
  }
}

import Foundation
import Glibc
import Testing

extension LabSuite {
  /// Connections that end around a switchover end as the peer expects: with FINs, in order, after the last
  /// byte.
  @Suite("closing around a switchover")
  struct Closing {
    /// When the closing happens, as seen from the loss of the primary.
    enum Moment: String, CaseIterable, Sendable { case before, during, after }

    /// The peer sends its second message and at once its FIN; it expects the echo, and then the server's FIN.
    ///
    /// - Parameter pause: Milliseconds between the first message and the second.
    private func halfClosing(_ pair: EnginePair, pause: Int) async throws -> WatchedTraffic {
      let traffic = try await WatchedTraffic(
        // Short enough that message and FIN leave in the initial window, which an idle connection is back at
        // (RFC 5681, section 4.1): the FIN does not wait for an acknowledgement.
        pair, connections: 3, ["-m", "2", "-l", "10000", "-w", "\(pause)", "--half-close"])
      try await eventually(within: .seconds(5), "the first messages come back") {
        traffic.peer.echoLines.count >= 3
      }
      return traffic
    }

    @Test("half-close by the peer", .timeLimit(.minutes(1)), arguments: Moment.allCases)
    func byPeer(_ moment: Moment) async throws {
      try await Lab.run("half-close-\(moment)") { lab in
        let pair = try await EnginePair(in: lab)
        let traffic: WatchedTraffic
        switch moment {
        case .before:
          traffic = try await halfClosing(pair, pause: 1500)
          // The server sleeps while message and FIN arrive: both are re1's to answer.
          try pair.re0.server.send(SIGSTOP)
          try await eventually(within: .seconds(5), "the peer has closed its direction") {
            traffic.events.filter { $0.isFin && $0.isFromPeer }.count >= 3
          }
          try await eventually(within: .seconds(5), "re0 has taken the FINs in") {
            try await pair.re0.kernelSockets().filter { $0.state == "CLOSE-WAIT" }.count == 3
          }
          try await pair.re0.lose()
        case .during:
          let fromRE1 = try await ClaimWatch(of: .re1, in: lab)
          traffic = try await halfClosing(pair, pause: 1000)
          // Stopped until its pause is over, the peer sends message and FIN as soon as it may.
          traffic.peer.program.send(SIGSTOP)
          try await Task.sleep(for: .milliseconds(1200))
          #expect(traffic.events.allSatisfy { !$0.isFin }, "the peer was to close later")
          let death = Date().timeIntervalSince1970
          try pair.re0.killPrograms()
          traffic.peer.program.send(SIGCONT)
          try await pair.re0.lose()
          try await pair.re1.waitUntilPrimary()
          // Message and FIN have found nobody: re0 was gone, re1 had not found out yet.
          let takeover = try #require(try await fromRE1.finish().first).time
          let fins = traffic.events.filter { $0.isFin && $0.isFromPeer }
          for peer in Set(fins.map(\.peer)) {
            let first = try #require(fins.first { $0.peer == peer })
            #expect(first.time > death && first.time < takeover, "\(first), re1 spoke at \(takeover)")
          }
          #expect(Set(fins.map(\.peer)).count == 3)
        case .after:
          traffic = try await halfClosing(pair, pause: 5000)
          try await pair.re0.lose()
          try await pair.re1.waitUntilPrimary(merged: 3)
          #expect(traffic.events.allSatisfy { !$0.isFin }, "the peer was to close later")
        }
        let summary = try await traffic.finish(within: .seconds(20), living: [pair.re1])
        #expect(summary.sent == 6)
        #expect(summary.echoedByRe1 >= 3)
      }
    }

    @Test("half-close by the peer around a planned switchover", .timeLimit(.minutes(1)))
    func byPeerPlanned() async throws {
      try await Lab.run("half-close-planned") { lab in
        let pair = try await EnginePair(in: lab)
        let traffic = try await halfClosing(pair, pause: 1500)
        try pair.re0.server.send(SIGSTOP)
        try await eventually(within: .seconds(5), "re0 has taken the FINs in") {
          try await pair.re0.kernelSockets().filter { $0.state == "CLOSE-WAIT" }.count == 3
        }
        try await pair.re1.requestMaster("acquire")
        try await pair.waitUntilInStep(primary: pair.re1)
        try pair.re0.server.send(SIGCONT)
        let summary = try await traffic.finish(within: .seconds(20), living: [pair.re0, pair.re1])
        #expect(summary.echoedByRe1 >= 3)
      }
    }

    @Test("close by the server", .timeLimit(.minutes(1)), arguments: Moment.allCases)
    func byServer(_ moment: Moment) async throws {
      try await Lab.run("server-close-\(moment)") { lab in
        let pair = try await EnginePair(in: lab)
        let watch = try await ConnectionWatch(in: lab)
        let peer = try PeerTraffic(in: lab, ["-n", "3", "-m", "0", "-w", "20", "--quiet"])
        try await pair.waitUntilReplicated(3, primary: pair.re0)
        try await Task.sleep(for: .milliseconds(300))

        func serverFins() -> Int { Set(watch.events.filter { $0.isFin && !$0.isFromPeer }.map(\.peer)).count }
        switch moment {
        case .before:
          // The peer's kernel takes the FINs in, the peer itself sees them only after the switchover.
          peer.program.send(SIGSTOP)
          try pair.re0.server.send(SIGTERM)
          try await eventually(within: .seconds(5), "re0 has closed all connections") { serverFins() == 3 }
          try await pair.re0.lose()
          try await pair.re1.waitUntilPrimary()
          try await eventually(within: .seconds(5), "re1 has taken over connections that are closed") {
            let sockets = try await pair.re1.kernelSockets()
            return sockets.filter { $0.state.hasPrefix("FIN-WAIT") }.count == 3
          }
          peer.program.send(SIGCONT)
        case .during:
          try pair.re0.server.send(SIGTERM)
          try await pair.re0.lose()
          try await pair.re1.waitUntilPrimary()
          try await Task.sleep(for: .seconds(1))
          // Whether the FINs got out before re0 died is chance. What did not, re1 closes.
          try pair.re1.server.send(SIGTERM)
        case .after:
          try await pair.re0.lose()
          try await pair.re1.waitUntilPrimary(merged: 3)
          try await Task.sleep(for: .milliseconds(500))
          #expect(serverFins() == 0)
          try pair.re1.server.send(SIGTERM)
        }
        // A server that closes first is an unexpected end to jsrpeer, but neither loss nor reset.
        let (summary, end) = try await peer.finish(within: .seconds(20))
        #expect(end == .exited(1))
        #expect(summary.mismatched == 0 && summary.repeated == 0, "\(summary)")
        try await eventually(within: .seconds(5), "both sides have closed all connections") {
          let fins = watch.events.filter(\.isFin)
          return Set(fins.filter(\.isFromPeer).map(\.peer)).count == 3 && serverFins() == 3
        }
        let events = try await watch.finish()
        #expect(events.connectionCount == 3)
        #expect(events.resets.isEmpty, "\(events.resets)")
      }
    }
  }
}

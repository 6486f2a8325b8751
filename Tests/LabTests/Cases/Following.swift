import Glibc
import Testing

extension LabSuite {
  /// TESTPLAN 5.1.4 and 5.2.4: the secondary keeps up with the primary, byte for byte and field for field.
  @Suite("the secondary follows")
  struct Following {
    /// How far behind the secondary may be: two busy cores are slow to run four programs.
    private static let longestLag = Duration.milliseconds(300)

    @Test("5.1.4 PRL replication", .timeLimit(.minutes(1)))
    func incoming() async throws {
      try await Lab.run("5.1.4") { lab in
        let pair = try await EnginePair(in: lab, servers: [])
        let traffic = try await WatchedTraffic(pair, connections: 3, ["-m", "0", "-w", "5", "--quiet"])
        let sockets = try await pair.re0.sockets()
        for _ in 0..<10 {
          let there = try await pair.re0.connections()
          try await Task.sleep(for: Self.longestLag)
          let here = try await pair.re1.connections()
          #expect(there.count == 3 && here.count == 3)
          for connection in there {
            let snooped = try #require(here.first { $0.foreign == connection.foreign })
            #expect(snooped.rcvNxt.isNotBefore(connection.rcvNxt), "\(snooped.handle) is too late")
          }
        }
        try await traffic.stop(living: [pair.re0, pair.re1])

        // What the server read from its sockets, and what the other instance read from `rcv`.
        for socket in sockets {
          let read = try Self.messages(in: pair.re0.server.output, "handle \(socket.handle) message ")
          let snooped = try Self.messages(
            in: pair.re1.server.output, "handle \(try #require(socket.peerHandle)) rcv fd ")
          #expect(read.count > 100)
          // A message that was there before replication is on rcv if it had not been read.
          #expect(snooped.count - read.count <= 1)
          #expect(snooped.suffix(read.count).elementsEqual(read), "\(socket.handle)")
        }
        let snooped = try pair.re1.server.output.filter {
          $0.contains(" rcv fd ") && $0.contains(" message ")
        }
        #expect(snooped.allSatisfy { $0.hasSuffix(": 112 bytes, verified") })
        #expect(try !pair.re1.server.output.contains { $0.contains("MISMATCH") })
      }
    }

    /// The numbers of messages in lines that contain `text`.
    private static func messages(in lines: [String], _ text: String) throws -> [Int] {
      try lines.filter { $0.contains(text) && $0.contains(" message ") }.map { line in
        try #require(line.firstMatch(of: /message (\d+):/).flatMap { Int($0.1) }, "\(line)")
      }
    }

    /// Fields of a control block that only ever rise.
    private static let rising: [(String, any KeyPath<ConnectionReport, UInt32> & Sendable)] = [
      ("snd_una", \.sndUna), ("snd_nxt", \.sndNxt), ("rcv_nxt", \.rcvNxt), ("right edge", \.rcvRightEdge),
    ]

    @Test("5.2.4 PSRM replication during traffic, before and after a merge", .timeLimit(.minutes(1)))
    func controlBlock() async throws {
      try await Lab.run("5.2.4") { lab in
        let pair = try await EnginePair(in: lab)
        let traffic = try await WatchedTraffic(
          pair, connections: 3, ["-m", "0", "-l", "3000", "-w", "2", "--quiet"])
        for _ in 0..<10 {
          let early = try await pair.re1.connections()
          let there = try await pair.re0.connections()
          try await Task.sleep(for: Self.longestLag)
          let late = try await pair.re1.connections()
          for connection in there {
            let before = try #require(early.first { $0.foreign == connection.foreign })
            let after = try #require(late.first { $0.foreign == connection.foreign })
            for (name, field) in Self.rising {
              #expect(connection[keyPath: field].isNotBefore(before[keyPath: field]), "\(name) ahead of re0")
              #expect(after[keyPath: field].isNotBefore(connection[keyPath: field]), "\(name) is too late")
            }
            #expect(after.agreement == connection.agreement)
          }
        }

        // At rest, just before the merge. The peer's kernel goes on acknowledging.
        traffic.peer.program.send(SIGSTOP)
        try await Task.sleep(for: .milliseconds(500))
        let before = try await pair.re0.connections()
        let snooped = try await pair.re1.connections()
        for connection in before {
          let other = try #require(snooped.first { $0.foreign == connection.foreign })
          #expect(other.atRest == connection.atRest)
          #expect(connection.sndUna == connection.sndNxt)
        }

        try await pair.re1.requestMaster("acquire")
        try await pair.waitUntilInStep(primary: pair.re1)
        let merged = try await pair.re1.kernelSockets().filter { $0.state == "ESTAB" }
        #expect(merged.count == 3)
        for connection in before {
          let own = try #require(merged.first { $0.foreign == connection.foreign })
          #expect(own.options == ["ts", "sack", "wscale"])
          #expect(own.values["wscale"] == "\(connection.sndWscale ?? 255),\(connection.rcvWscale ?? 255)")
          #expect(own.values["mss"] == "\(connection.mss - 12)")
          #expect(own.values["snd_wnd"] == "\(connection.sndWnd)")
          // What is measured is measured anew: as on a connection that has just begun (RFC 6928, RFC 5681).
          #expect(own.values["cwnd"] == "10")
          #expect(own.values["ssthresh"] == nil)
          #expect(own.values["retrans"] == nil && own.values["unacked"] == nil)
          #expect(own.values["bytes_retrans"] == nil)
        }
        // Replicated back, the kernel of re1 is asked for everything: it is what it was on re0.
        try await pair.waitUntilReplicated(3, primary: pair.re1)
        let after = try await pair.re1.connections()
        for connection in before {
          let other = try #require(after.first { $0.foreign == connection.foreign })
          #expect(other.sndUna == connection.sndUna && other.sndNxt == connection.sndNxt)
          #expect(other.rcvNxt == connection.rcvNxt)
          #expect(other.rcvRightEdge.isNotBefore(connection.rcvRightEdge))
          #expect(other.agreement == connection.agreement)
        }
        traffic.peer.program.send(SIGCONT)
        try await traffic.waitUntilFlowing()
        let summary = try await traffic.stop(living: [pair.re0, pair.re1])
        #expect(summary.echoedByRe1 > 0)
      }
    }

    @Test("5.2.4 PSRM replication at a close", .timeLimit(.minutes(1)))
    func controlBlockAtClose() async throws {
      try await Lab.run("5.2.4-close") { lab in
        let pair = try await EnginePair(in: lab)
        let traffic = try await WatchedTraffic(
          pair, connections: 3, ["-m", "2", "-l", "100", "-w", "2000", "--half-close"])
        try await eventually(within: .seconds(5), "the first messages come back") {
          traffic.peer.echoLines.count == 3
        }
        let before = try await pair.re0.connections()
        // The server sleeps while the second message and the FIN arrive.
        try pair.re0.server.send(SIGSTOP)
        try await eventually(within: .seconds(10), "re0 has taken the FINs in") {
          try await pair.re0.kernelSockets().filter { $0.state == "CLOSE-WAIT" }.count == 3
        }
        try await Task.sleep(for: Self.longestLag)
        let after = (try await pair.re0.connections(), try await pair.re1.connections())
        for connection in before {
          // The message with its header, and the FIN, which takes a sequence number too.
          let end = connection.rcvNxt &+ 112 &+ 1
          for reports in [after.0, after.1] {
            let report = try #require(reports.first { $0.foreign == connection.foreign })
            #expect(report.rcvNxt == end)
            #expect(report.sndUna == connection.sndNxt && report.sndNxt == connection.sndNxt)
          }
        }
        try pair.re0.server.send(SIGCONT)
        try await traffic.finish(within: .seconds(20), living: [pair.re0, pair.re1])
      }
    }
  }
}

extension UInt32 {
  /// In sequence space (RFC 9293, section 3.4).
  fileprivate func isNotBefore(_ other: UInt32) -> Bool { Int32(bitPattern: self &- other) >= 0 }
}

extension ConnectionReport {
  /// What both ends agreed on when the connection began.
  fileprivate var agreement: [String] {
    [
      "\(mss)", "\(String(describing: sndWscale))", "\(String(describing: rcvWscale))", "\(sack)",
      "\(timestamps)",
    ]
  }

  /// What must be the same on both REs when nothing moves.
  fileprivate var atRest: [String] {
    agreement + [sndUna, sndNxt, rcvNxt, sndWnd, rcvRightEdge, tsRecent ?? 0].map { "\($0)" }
  }
}

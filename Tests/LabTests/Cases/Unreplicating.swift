import Foundation
import Glibc
import JSR
import Testing

extension LabSuite {
  /// TESTPLAN 3.10: replication ends, and the connection goes on.
  @Suite("unreplicate")
  struct Unreplicating {
    private static let messages = 10
    private static let replicated = 6
    private static let payload = 300
    /// With its header.
    private static let messageByteCount = payload + 12
    /// Milliseconds between an answer and the next message: the secondary must get nothing of a message that is sent
    /// as soon as the sixth is answered.
    private static let pause = 200
    /// Milliseconds: the pause, and what two busy cores need for an answer.
    private static let longestGap = 1200.0

    @Test("3.10 unreplicate after 6 of 10 messages", .timeLimit(.minutes(1)), arguments: [1, 3])
    func afterSix(_ connections: Int) async throws {
      try await Lab.run("3.10-\(connections)") { lab in
        let pair = try await EnginePair(in: lab, servers: ["--unreplicate-after", "\(Self.replicated)"])
        let traffic = try await WatchedTraffic(
          pair, connections: connections,
          ["-m", "\(Self.messages)", "-l", "\(Self.payload)", "-w", "\(Self.pause)"])
        let sockets = try await pair.re0.sockets()
        #expect(sockets.count == connections)
        let summary = try await traffic.finish(within: .seconds(20), living: [pair.re0, pair.re1])
        #expect(summary.sent == connections * Self.messages)
        #expect(summary.echoedByRe0 == summary.sent)
        #expect(summary.longestGapMs < Self.longestGap)

        let snooped = try pair.re1.server.output
        for socket in sockets {
          let handle = try #require(socket.peerHandle)
          let ended = try await pair.re1.server.waitForLine(
            containing: "SNOOP ENDED handle \(handle) ", within: .seconds(5))
          let byteCount = Self.replicated * Self.messageByteCount
          #expect(ended.hasSuffix(" rcv \(byteCount) bytes snd \(byteCount) bytes: requested"), "\(ended)")

          let lines = snooped.filter { $0.contains("handle \(handle) ") }
          func firstIndex(_ text: String) throws -> Int {
            try #require(lines.firstIndex { $0.contains(text) }, "\(text) in \(lines)")
          }
          for stream in ["rcv", "snd"] {
            let own = lines.filter { $0.contains("handle \(handle) \(stream) fd ") }
            let numbers = own.compactMap { $0.firstMatch(of: /message (\d+):/).flatMap { Int($0.1) } }
            #expect(numbers == Array(0..<Self.replicated), "\(stream) of \(handle)")
            #expect(own.last?.hasSuffix(" END after \(byteCount) bytes") == true, "\(own)")
          }
          #expect(
            lines.count { $0.contains(" rcv ") && $0.hasSuffix(": \(Self.messageByteCount) bytes, verified") }
              == Self.replicated)
          #expect(
            lines.count { $0.contains(" MATCH for \(Self.payload) bytes, verified") } == Self.replicated)
          #expect(
            try pair.re0.server.output.contains {
              $0.hasPrefix("UNREPLICATED") && $0.contains("handle \(socket.handle) ")
                && $0.hasSuffix("after \(Self.replicated) messages: requested")
            })
        }
        #expect(snooped.allSatisfy { !$0.contains("MISMATCH") })
      }
    }

    /// Who ends replication, or what.
    enum Cause: String, CaseIterable, Sendable {
      case application, secondaryApplication, operatorOfPrimary, operatorOfSecondary, timeout, link

      /// What the connection is of: each kind of cause is seen over both.
      var family: Family {
        switch self {
        case .application, .operatorOfPrimary, .timeout: .v4
        case .secondaryApplication, .operatorOfSecondary, .link: .v6
        }
      }

      /// As both applications are told.
      var reason: String {
        switch self {
        case .application, .secondaryApplication: "requested"
        case .operatorOfPrimary, .operatorOfSecondary: "requested by an operator"
        case .timeout: "PRL timeout"
        case .link: "link lost"
        }
      }
    }

    @Test(
      "3.10 replication ended by application, operator or engine, each with its reason",
      .timeLimit(.minutes(1)), arguments: Cause.allCases)
    func reasons(_ cause: Cause) async throws {
      try await Lab.run("3.10-\(cause)") { lab in
        var configuration = EngineConfiguration()
        configuration.debug = true
        let application = try await OwnApplication(
          in: lab, configuration: configuration, families: [cause.family])
        let pair = application.pair
        let re0 = EventLog("the application on re0", of: application.primary)
        let re1 = EventLog("the application on re1", of: application.secondary)
        let connection = try await application.connect()
        let (fromPeer, fromServer) = (BytePattern(seed: 1), BytePattern(seed: 2))
        var count = 1800
        try await connection.peer.write(fromPeer.bytes(from: 0, count: count))
        try await connection.server.write(fromServer.bytes(from: 0, count: count))
        #expect(fromPeer.firstDifference(try await connection.server.read(count), from: 0) == nil)
        #expect(fromServer.firstDifference(try await connection.peer.read(count), from: 0) == nil)
        try await eventually(within: .seconds(5), "everything is acknowledged and snooped") {
          connection.server.unacknowledged == 0 && connection.rcv.unread == count
            && connection.snd.unread == count
        }

        // What of the peer's bytes the secondary gets beyond that.
        var more = 0
        switch cause {
        case .application: try await application.primary.unreplicate(connection.primary)
        case .secondaryApplication: try await application.secondary.unreplicate(connection.secondary)
        case .operatorOfPrimary: try await pair.re0.order(["unreplicate", "\(connection.primary)"])
        case .operatorOfSecondary: try await pair.re1.order(["unreplicate", "\(connection.secondary)"])
        case .link: try await lab.cut(.link, of: .re1)
        case .timeout:
          try await LayerWatch(layer: "PRL").holdAcknowledgements(true, on: pair.re1)
          more = 100
          try await connection.peer.write(fromPeer.bytes(from: count, count: more))
        }
        try await re0.wait(for: .unreplicated(connection.primary, reason: cause.reason))
        try await re1.wait(for: .unreplicated(connection.secondary, reason: cause.reason))
        #expect(re0.events.count { if case .unreplicated = $0 { true } else { false } } == 1)
        #expect(re1.events.count { if case .unreplicated = $0 { true } else { false } } == 1)
        #expect(try await application.primary.status(of: connection.primary).state == .unreplicated)

        // The pair shows what was replicated, and ends there.
        let rcv = try await connection.rcv.read(count + more)
        #expect(fromPeer.firstDifference(rcv, from: 0) == nil)
        #expect(fromServer.firstDifference(try await connection.snd.read(count), from: 0) == nil)
        try await connection.rcv.readEnd()
        try await connection.snd.readEnd()

        // The connection goes on both ways.
        if more > 0 {
          #expect(fromPeer.firstDifference(try await connection.server.read(more), from: count) == nil)
        }
        try await connection.peer.write(fromPeer.bytes(from: count + more, count: 50_000))
        try await connection.server.write(fromServer.bytes(from: count, count: 50_000))
        count += more
        #expect(fromPeer.firstDifference(try await connection.server.read(50_000), from: count) == nil)
        #expect(fromServer.firstDifference(try await connection.peer.read(50_000), from: count - more) == nil)

        switch cause {
        case .link: try await lab.mend(.link, of: .re1)
        case .timeout: try await LayerWatch(layer: "PRL").holdAcknowledgements(false, on: pair.re1)
        default: break
        }
        try await pair.waitUntilInStep(primary: pair.re0)
        // The handle is freed with the close.
        try await application.primary.close(connection.server.release(), handle: connection.primary)
        try await connection.peer.readEnd()
        #expect(try await pair.re0.sockets().isEmpty)
        try await application.end()
      }
    }
  }
}

import Glibc
import JSR
import Testing

extension LabSuite {
  /// TESTPLAN 3.11: connections and applications end, in order and otherwise, and nothing is left of them.
  @Suite("close and teardown")
  struct Teardown {
    /// How a connection ends.
    enum Ending: String, CaseIterable, Sendable {
      case peerFirst, serverFirst
      /// One side ends its direction, and the other one sends on.
      case peerHalf, serverHalf
      case resetByPeer
      /// The server closes although the peer has sent what it has not read, and never reads.
      case unreadByServer
      /// The peer sends to a server that has closed.
      case sentToClosedServer

      var isReset: Bool {
        switch self {
        case .peerFirst, .serverFirst, .peerHalf, .serverHalf: false
        case .resetByPeer, .unreadByServer, .sentToClosedServer: true
        }
      }
    }

    @Test(
      "3.11 every close reaches the snoop pair and leaves nothing", .timeLimit(.minutes(1)),
      arguments: Ending.allCases, EngineConfiguration.Mode.allCases)
    func endings(_ ending: Ending, _ mode: EngineConfiguration.Mode) async throws {
      try await Lab.run("3.11-\(ending)-\(mode)") { lab in
        var configuration = EngineConfiguration()
        configuration.mode = mode
        // Every ending over both families, and in both modes over each.
        let isEven = (Ending.allCases.firstIndex(of: ending)! % 2 == 0) == (mode == .overlap)
        let application = try await OwnApplication(
          in: lab, configuration: configuration, families: [isEven ? .v4 : .v6])
        let session = application.primary
        let re0 = EventLog("the application on re0", of: session)
        let re1 = EventLog("the application on re1", of: application.secondary)
        let watch = try await ConnectionWatch(in: lab)
        let connection = try await application.connect()
        let (fromPeer, fromServer) = (BytePattern(seed: 1), BytePattern(seed: 2))
        // Behind which byte each direction stands.
        var peerEnd = 1000
        var serverEnd = 2000
        try await connection.peer.write(fromPeer.bytes(from: 0, count: peerEnd))
        try await connection.server.write(fromServer.bytes(from: 0, count: serverEnd))
        _ = try await connection.server.read(peerEnd)
        _ = try await connection.peer.read(serverEnd)

        switch ending {
        case .peerFirst:
          try connection.peer.endWriting()
          try await connection.server.readEnd()
          try await session.close(connection.server.release(), handle: connection.primary)
          try await connection.peer.readEnd()
        case .serverFirst:
          try await session.close(connection.server.release(), handle: connection.primary)
          try await connection.peer.readEnd()
          _ = connection.peer.release()
        case .peerHalf:
          try connection.peer.endWriting()
          try await connection.server.readEnd()
          try await re1.wait(for: .peerClosed(connection.secondary))
          try await connection.server.write(fromServer.bytes(from: serverEnd, count: 50_000))
          let rest = try await connection.peer.read(50_000)
          #expect(fromServer.firstDifference(rest, from: serverEnd) == nil)
          serverEnd += 50_000
          #expect(connection.snd.unread == serverEnd)
          try await session.close(connection.server.release(), handle: connection.primary)
          try await connection.peer.readEnd()
        case .serverHalf:
          try connection.server.endWriting()
          try await connection.peer.readEnd()
          let shown = try await connection.snd.read(serverEnd)
          #expect(fromServer.firstDifference(shown, from: 0) == nil)
          try await connection.snd.readEnd()
          try await connection.peer.write(fromPeer.bytes(from: peerEnd, count: 50_000))
          let rest = try await connection.server.read(50_000)
          #expect(fromPeer.firstDifference(rest, from: peerEnd) == nil)
          peerEnd += 50_000
          _ = connection.peer.release()
          try await connection.server.readEnd()
          try await session.close(connection.server.release(), handle: connection.primary)
        case .resetByPeer:
          try connection.peer.reset()
          try await re0.wait(for: .unreplicated(connection.primary, reason: "reset"))
          #expect(connection.server.writeError() == ECONNRESET)
          try await session.close(connection.server.release(), handle: connection.primary)
        case .unreadByServer:
          try await connection.peer.write(fromPeer.bytes(from: peerEnd, count: 500))
          peerEnd += 500
          try await eventually(within: .seconds(5), "the server has what it does not read") {
            connection.server.unread == 500 && connection.rcv.unread == peerEnd
          }
          try await session.close(connection.server.release(), handle: connection.primary)
          try await connection.peer.wait(forError: ECONNRESET)
        case .sentToClosedServer:
          try await session.close(connection.server.release(), handle: connection.primary)
          try await connection.peer.readEnd()
          try await connection.peer.write(fromPeer.bytes(from: peerEnd, count: 500))
          peerEnd += 500
        }

        let reason = ending.isReset ? "reset" : "closed"
        try await re0.wait(for: .unreplicated(connection.primary, reason: reason), within: .seconds(5))
        try await re1.wait(for: .unreplicated(connection.secondary, reason: reason), within: .seconds(5))
        let received = try await connection.rcv.read(peerEnd)
        #expect(fromPeer.firstDifference(received, from: 0) == nil)
        try await connection.rcv.readEnd()
        if ending != .serverHalf {
          let sent = try await connection.snd.read(serverEnd)
          #expect(fromServer.firstDifference(sent, from: 0) == nil)
          try await connection.snd.readEnd()
        }
        try await application.end()
        let events = try await watch.finish()
        #expect(events.connectionCount == 1)
        #expect(events.resets.isEmpty != ending.isReset, "\(events)")
        if !ending.isReset { #expect(events.count { $0.isFin } >= 2) }
      }
    }

    @Test(
      "3.11 the secondary application is killed, then the primary one, with traffic running",
      .timeLimit(.minutes(1)), arguments: EngineConfiguration.ApplicationFailurePolicy.allCases)
    func bothApplications(_ policy: EngineConfiguration.ApplicationFailurePolicy) async throws {
      try await Lab.run("3.11-both-applications-\(policy)") { lab in
        var configuration = EngineConfiguration()
        configuration.onApplicationFailure = policy
        let pair = try await EnginePair(in: lab, configuration: configuration)
        let levels = (try await pair.re0.levels(), try await pair.re1.levels())
        let traffic = try await WatchedTraffic(pair, ["-m", "0", "-w", "5", "--quiet"])
        let handles = try await pair.re0.sockets().map(\.handle)
        try await traffic.waitUntilFlowing()

        try pair.re1.server.send(SIGKILL)
        for handle in handles {
          try await pair.re0.engine.waitForLine(
            containing: "socket \(handle) unreplicated: secondary application gone", within: .seconds(5))
        }
        try await traffic.waitUntilFlowing()
        #expect(traffic.events.allSatisfy { $0.isSyn })
        #expect(try await pair.re1.sockets().isEmpty)

        // Nobody is there who could go on with them: they end as those of any other process.
        try pair.re0.server.send(SIGKILL)
        let (summary, end) = try await traffic.peer.finish(within: .seconds(10))
        #expect(end == .exited(1))
        #expect(summary.unexpectedEnds == 5)
        #expect(summary.mismatched == 0 && summary.repeated == 0, "\(summary)")
        await pair.re0.checkNothingIsLeft(since: levels.0)
        await pair.re1.checkNothingIsLeft(since: levels.1)
        #expect(try await pair.re0.status().role == "primary", "nothing was to be moved")
        #expect(try await pair.re0.status().peer.inStep)
      }
    }

    @Test(
      "3.11 the primary application is killed: switchover, and the peer sees no end",
      .timeLimit(.minutes(1)))
    func switchover() async throws {
      try await Lab.run("3.11-switchover") { lab in
        var configuration = EngineConfiguration()
        configuration.onApplicationFailure = .switchover
        let pair = try await EnginePair(in: lab, configuration: configuration)
        let traffic = try await WatchedTraffic(pair, Self.busy)
        try await traffic.waitUntilFlowing(1 << 20)
        try pair.re0.server.send(SIGKILL)
        try await pair.re1.waitUntilPrimary(merged: 5)
        try await traffic.waitUntilFlowing(1 << 20)
        let summary = try await traffic.stop(living: [pair.re0, pair.re1])
        #expect(summary.echoedByRe0 > 0 && summary.echoedByRe1 > 0)
        print("3.11 (switchover): the longest gap a peer saw was \(summary.longestGapMs) ms")
      }
    }

    /// Traffic that always has bytes in every buffer.
    private static let busy = ["-m", "0", "-l", "100000", "--pipeline", "4", "--quiet"]

    @Test("3.11 the primary application is killed: close, in order", .timeLimit(.minutes(1)))
    func close() async throws {
      try await Lab.run("3.11-close") { lab in
        var configuration = EngineConfiguration()
        configuration.onApplicationFailure = .close
        let pair = try await EnginePair(in: lab, configuration: configuration, servers: [])
        let levels = (try await pair.re0.levels(), try await pair.re1.levels())
        let traffic = try await WatchedTraffic(pair, Self.busy)
        let handles = try await pair.re1.sockets().map(\.handle)
        try await traffic.waitUntilFlowing(1 << 20)
        try pair.re0.server.send(SIGKILL)

        let (summary, end) = try await traffic.peer.finish(within: .seconds(10))
        #expect(end == .exited(1))
        #expect(summary.unexpectedEnds == 5)
        #expect(summary.mismatched == 0 && summary.repeated == 0, "\(summary)")
        #expect(summary.echoedByRe1 == 0)
        for handle in handles {
          let ended = try await pair.re1.server.waitForLine(
            containing: "SNOOP ENDED handle \(handle) ", within: .seconds(5))
          #expect(ended.hasSuffix(": closed"), "\(ended)")
          let lines = try pair.re1.server.output.filter { $0.hasPrefix("handle \(handle) ") }
          for stream in ["rcv", "snd"] {
            #expect(lines.contains { $0.contains(" \(stream) fd ") && $0.contains(" END after ") })
          }
        }
        await pair.re0.checkNothingIsLeft(since: levels.0)
        await pair.re1.checkNothingIsLeft(since: levels.1)
        #expect(try await pair.re0.status().role == "primary")
        #expect(
          Set(traffic.events.filter { $0.isFin && !$0.isFromPeer }.map(\.peer)).count == 5,
          "\(traffic.events)")
        #expect(traffic.events.resets.isEmpty, "\(traffic.events.resets)")
      }
    }

    @Test(
      "3.11 the primary application ends in the middle of a handshake", .timeLimit(.minutes(1)),
      arguments: EngineConfiguration.ApplicationFailurePolicy.allCases)
    func duringHandshake(_ policy: EngineConfiguration.ApplicationFailurePolicy) async throws {
      try await Lab.run("3.11-handshake-\(policy)") { lab in
        var configuration = EngineConfiguration()
        configuration.debug = true
        configuration.onApplicationFailure = policy
        let application = try await OwnApplication(
          in: lab, configuration: configuration, families: [policy == .switchover ? .v6 : .v4])
        let pair = application.pair
        let (fromPeer, fromServer) = (BytePattern(seed: 1), BytePattern(seed: 2))
        let peer = try await application.connectPeer()
        let server = try await application.accept()
        try await peer.write(fromPeer.bytes(from: 0, count: 500))
        try await server.write(fromServer.bytes(from: 0, count: 1000))
        #expect(fromServer.firstDifference(try await peer.read(1000), from: 0) == nil)

        // The handshake does not end as long as its records are not acknowledged.
        let layer = LayerWatch(layer: "PSRM")
        try await layer.setTimeout("60s", on: pair.re0)
        try await layer.holdAcknowledgements(true, on: pair.re1)
        let name = try await application.primary.allocate()
        let snoop = try await application.secondary.attach(primary: name)
        let handle = snoop.handle
        let rcv = try StreamEnd(snoop.rcv)
        let snd = try StreamEnd(snoop.snd)
        let number = server.release().release()
        let handshake = Task {
          switch await application.primary.replicate(
            Socket(owning: number), primary: name, secondary: handle)
          {
          case .replicating: JSRError?.none
          case .refused(_, let error): error
          }
        }
        try await eventually(within: .seconds(5), "the handshake is under way") {
          let states = (try await pair.re0.sockets().map(\.state), try await pair.re1.sockets().map(\.state))
          return states == (["starting"], ["snooping"])
        }
        application.primary.close()
        #expect(await handshake.value == .engineGone)
        try await Task.sleep(for: .milliseconds(300))
        #expect(try await pair.re0.sockets().map(\.state) == ["starting"])
        try await layer.holdAcknowledgements(false, on: pair.re1)

        switch policy {
        case .close:
          try await peer.readEnd()
          try await peer.write(fromPeer.bytes(from: 500, count: 500))
          try peer.endWriting()
          #expect(fromPeer.firstDifference(try await rcv.read(1000), from: 0) == nil)
          try await rcv.readEnd()
          try await snd.readEnd()
        case .switchover:
          try await pair.re1.waitUntilPrimary()
          let merged = try StreamEnd(try await application.secondary.merge(handle))
          try await peer.write(fromPeer.bytes(from: 500, count: 500))
          #expect(fromPeer.firstDifference(try await merged.read(1000), from: 0) == nil)
          try await merged.write(fromServer.bytes(from: 1000, count: 1000))
          #expect(fromServer.firstDifference(try await peer.read(1000), from: 1000) == nil)
          _ = merged.release()
          try await peer.readEnd()
          _ = peer.release()
        }
        try await application.end()
      }
    }

    @Test(
      "3.11 the primary application ends, and nobody can take over: left alone, and closed in order at last",
      .timeLimit(.minutes(1)))
    func nobodyTakesOver() async throws {
      try await Lab.run("3.11-nobody") { lab in
        let application = try await OwnApplication(in: lab, families: [.v6])
        let pair = application.pair
        let watch = try await ConnectionWatch(in: lab)
        let connection = try await application.connect()
        let fromServer = BytePattern(seed: 2)
        try await connection.server.write(fromServer.bytes(from: 0, count: 1000))
        // With bytes that nobody has read, the kernel alone would end the connection by a reset.
        try await connection.peer.write([1, 2, 3])
        try await eventually(within: .seconds(5), "both sides have what was sent") {
          connection.server.unread == 3 && connection.peer.unread == 1000
        }
        // A secondary that is silent may have taken over until its license has run out: the socket is replicated
        // still, and no secondary is there that it could move to.
        try pair.re1.engine.send(SIGSTOP)
        try await pair.re0.engine.waitForLine(containing: "KKCM link lost", within: .seconds(5))
        _ = connection.server.release()
        application.primary.close()
        #expect(watch.events.allSatisfy { $0.isSyn })

        let name = connection.primary
        try await pair.re0.engine.waitForLine(
          containing: "socket \(name) unreplicated: link lost", within: .seconds(5))
        #expect(fromServer.firstDifference(try await connection.peer.read(1000), from: 0) == nil)
        try await connection.peer.readEnd(within: .seconds(5))
        // The peer may go on sending.
        try await connection.peer.write(BytePattern(seed: 1).bytes(from: 0, count: 4 << 20))
        try connection.peer.endWriting()
        try await eventually(within: .seconds(5), "re0 has no connection any more") {
          try await pair.re0.kernelSockets().isEmpty
        }
        try pair.re1.engine.send(SIGCONT)
        try await pair.waitUntilInStep(primary: pair.re0)
        try await application.end()
        let events = try await watch.finish()
        #expect(events.resets.isEmpty, "\(events)")
        #expect(events.contains { $0.isFin && !$0.isFromPeer })
      }
    }
  }
}

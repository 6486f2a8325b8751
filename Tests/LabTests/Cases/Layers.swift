import Foundation
import Testing

extension LabSuite {
  /// TESTPLAN 5.1 (PRL) and 5.2 (PSRM), where the same must be true of both layers.
  @Suite("PRL and PSRM")
  struct Layers {
    private static let prl = LayerWatch(layer: "PRL")
    private static let psrm = LayerWatch(layer: "PSRM")

    // MARK: .1 global start

    private func globalStart(_ watch: LayerWatch, first: Node) async throws {
      try await Lab.run("5-global-start-\(watch.layer)-\(first)") { lab in
        let pair = EnginePair(unstarted: lab)
        let alone = first == .re0 ? pair.re0 : pair.re1
        try await alone.startEngine()
        try await alone.engine.waitForLine(
          containing: "\(watch.layer) global state initialized", within: .seconds(5))
        try await pair.other(alone).startEngine()
        try await eventually(within: .seconds(15), "one is primary, the other in step") {
          try await [pair.re0.status(), pair.re1.status()].contains { $0.role == "primary" && $0.peer.inStep }
        }
        // Nor does another link make it start again.
        try await lab.cut(.link, of: .re1)
        try await eventually(within: .seconds(10), "the link is down") {
          try await !pair.re0.status().peer.linkUp
        }
        try await lab.mend(.link, of: .re1)
        try await eventually(within: .seconds(15), "the link is up again") {
          try await pair.re0.status().peer.linkUp
        }
        for engine in [pair.re0, pair.re1] {
          let lines = try watch.globalLines(of: engine)
          #expect(lines.count == 1, "\(engine.node): \(lines)")
        }
      }
    }

    @Test("5.1.1 PRL global start, on either RE alone", .timeLimit(.minutes(1)), arguments: [Node.re0, .re1])
    func prlGlobalStart(_ first: Node) async throws { try await globalStart(Self.prl, first: first) }

    @Test(
      "5.2.1 PSRM global start, on either RE alone", .timeLimit(.minutes(1)), arguments: [Node.re0, .re1])
    func psrmGlobalStart(_ first: Node) async throws { try await globalStart(Self.psrm, first: first) }

    // MARK: .2 per socket start

    private func socketStart(_ watch: LayerWatch, _ state: KeyPath<SocketReport, SocketReport.Layer>)
      async throws
    {
      try await Lab.run("5-socket-start-\(watch.layer)") { lab in
        let pair = try await EnginePair(in: lab)
        let traffic = try await WatchedTraffic(pair, connections: 3, ["-m", "0", "-w", "3600000", "--quiet"])
        // Delayed acknowledgements, and what is told of them, are over by then.
        try await Task.sleep(for: .milliseconds(500))
        let (primary, secondary) = (try await pair.re0.sockets(), try await pair.re1.sockets())
        #expect(primary.count == 3 && secondary.count == 3)
        try await watch.waitUntilInitialized(primary.map(\.handle), on: pair.re0)
        try await watch.waitUntilInitialized(secondary.map(\.handle), on: pair.re1)
        for socket in primary {
          let snooped = try #require(secondary.first { $0.handle == socket.peerHandle })
          #expect(snooped.peerHandle == socket.handle)
          #expect(socket.role == "primary" && snooped.role == "secondary")
          #expect(socket.state == "replicating" && snooped.state == "snooping")
          for report in [socket, snooped] {
            #expect(report.proto == "tcp")
            let family = Family(ofEnd: try #require(report.local))
            #expect(report.local == family.localEnd)
            let ofPeer = family.end(family.peer, 0).dropLast()
            #expect(report.foreign?.hasPrefix(ofPeer) == true)
            #expect(report.application == "jsrutil")
            #expect(report[keyPath: state].initialized)
            #expect(report[keyPath: state].logPosition > 0)
          }
          #expect(snooped.foreign == socket.foreign)
          #expect(snooped[keyPath: state].logPosition == socket[keyPath: state].logPosition)
        }
        try await traffic.stop(living: [pair.re0, pair.re1])
      }
    }

    @Test("5.1.2 PRL per socket start", .timeLimit(.minutes(1)))
    func prlSocketStart() async throws { try await socketStart(Self.prl, \.prl) }

    @Test("5.2.2 PSRM per socket start", .timeLimit(.minutes(1)))
    func psrmSocketStart() async throws { try await socketStart(Self.psrm, \.psrm) }

    // MARK: .3 per socket end

    enum End: String, CaseIterable, Sendable { case close, merge }

    private func socketEnd(_ watch: LayerWatch, _ end: End) async throws {
      try await Lab.run("5-socket-end-\(watch.layer)-\(end)") { lab in
        let pair = try await EnginePair(in: lab)
        let traffic = try await WatchedTraffic(pair, connections: 3, ["-m", "0", "-w", "5", "--quiet"])
        let handles = (try await pair.re0.sockets().map(\.handle), try await pair.re1.sockets().map(\.handle))
        #expect(handles.0.count == 3 && handles.1.count == 3)
        try await traffic.waitUntilFlowing()
        if end == .merge {
          try await pair.re1.requestMaster("acquire")
          try await watch.waitUntilCleanedUp(handles.0, on: pair.re0)
          try await watch.waitUntilCleanedUp(handles.1, on: pair.re1)
          // Merged sockets have new names when they are replicated the other way.
          try await pair.waitUntilReplicated(3, primary: pair.re1)
          for engine in [pair.re0, pair.re1] {
            let living = try await engine.sockets().map(\.handle)
            #expect(Set(living).isDisjoint(with: handles.0 + handles.1), "nothing of the old ones is left")
          }
          try await traffic.waitUntilFlowing()
        }
        // Levels back at what they were is checked for both here.
        try await traffic.stop(living: [pair.re0, pair.re1])
        if end == .close {
          try await watch.waitUntilCleanedUp(handles.0, on: pair.re0)
          try await watch.waitUntilCleanedUp(handles.1, on: pair.re1)
        }
        for engine in [pair.re0, pair.re1] { #expect(try await engine.sockets().isEmpty) }
      }
    }

    @Test("5.1.3 PRL per socket end", .timeLimit(.minutes(1)), arguments: End.allCases)
    func prlSocketEnd(_ end: End) async throws { try await socketEnd(Self.prl, end) }

    @Test("5.2.3 PSRM per socket end", .timeLimit(.minutes(1)), arguments: End.allCases)
    func psrmSocketEnd(_ end: End) async throws { try await socketEnd(Self.psrm, end) }

    // MARK: .5 timeout

    /// With one connection: packets of others would wait for its record too, but for as long as the layers of
    /// their own records may take.
    private func timeout(_ watch: LayerWatch) async throws {
      try await Lab.run("5-timeout-\(watch.layer)") { lab in
        var configuration = EngineConfiguration()
        configuration.debug = true
        let pair = try await EnginePair(in: lab, configuration: configuration)
        // Large enough that the window moves on by what has to be announced (PSRM) with every few of them.
        let traffic = try await WatchedTraffic(
          pair, connections: 1, ["-m", "0", "-w", "5", "-l", "30000", "--quiet"])
        let handles = (try await pair.re0.sockets().map(\.handle), try await pair.re1.sockets().map(\.handle))
        try await traffic.waitUntilFlowing()
        // The timeout is one second at the start. No other layer may be the first.
        for layer in ["PRL", "SDRL", "PSRM"] {
          try await LayerWatch(layer: layer).setTimeout(layer == watch.layer ? "2500ms" : "60s", on: pair.re0)
        }
        try await watch.holdAcknowledgements(true, on: pair.re1)
        try await eventually(within: .seconds(2), "something waits") {
          try await pair.re0.levels()["held_packets"] ?? 0 > 0
        }
        try await Task.sleep(for: .milliseconds(1500))
        #expect(try await pair.re0.sockets().map(\.state) == ["replicating"], "given up too early")
        for (engine, own) in [(pair.re0, handles.0), (pair.re1, handles.1)] {
          for handle in own {
            try await engine.engine.waitForLine(
              containing: "socket \(handle) unreplicated: \(watch.layer) timeout", within: .seconds(5))
          }
        }
        // Nothing is acknowledged still, and the traffic goes on.
        try await traffic.waitUntilFlowing()
        #expect(try await pair.re0.figures()["sdrl.reinjected_timeout"] ?? 0 > 0)
        try await watch.holdAcknowledgements(false, on: pair.re1)
        let summary = try await traffic.stop(living: [pair.re0, pair.re1])
        #expect(summary.echoedByRe1 == 0)
        #expect(summary.longestGapMs > 2000)
      }
    }

    @Test("5.1.5 PRL timeout", .timeLimit(.minutes(1)))
    func prlTimeout() async throws { try await timeout(Self.prl) }

    @Test("5.2.5 PSRM timeout", .timeLimit(.minutes(1)))
    func psrmTimeout() async throws { try await timeout(Self.psrm) }

    // MARK: .6 quiet logs

    /// 100,000 messages, small and many on their way at once, so that they take seconds.
    ///
    /// - Parameter count: Records that the layer has at least, so that there would be something to log.
    private func quiet(_ watch: LayerWatch, atLeast count: Int) async throws {
      try await Lab.run("5-quiet-\(watch.layer)") { lab in
        let pair = try await EnginePair(in: lab)
        let before = (try pair.re0.engine.errors.count, try pair.re1.engine.errors.count)
        let records = try await watch.figure("records", of: pair.re0)
        let traffic = try await WatchedTraffic(
          pair, ["-m", "20000", "-l", "20", "--pipeline", "32", "--quiet"])
        let summary = try await traffic.finish(within: .seconds(90), living: [pair.re0, pair.re1])
        #expect(summary.sent == 100_000)
        #expect(try await watch.figure("records", of: pair.re0) >= records + count)
        // The beginning and the end of a socket have a dozen lines each.
        for (engine, count) in [(pair.re0, before.0), (pair.re1, before.1)] {
          let lines = try engine.engine.errors.dropFirst(count)
          #expect(lines.count <= 5 * 30, "\(engine.node) logged \(lines.count) lines: \(lines.suffix(3))")
          #expect(!lines.contains { $0.contains("\(watch.layer) record") })
        }
      }
    }

    @Test("5.1.6 PRL adds no line per message at the default level", .timeLimit(.minutes(2)))
    func prlQuiet() async throws { try await quiet(Self.prl, atLeast: 1_000) }

    @Test("5.2.6 PSRM adds no line per message at the default level", .timeLimit(.minutes(2)))
    func psrmQuiet() async throws { try await quiet(Self.psrm, atLeast: 10) }

    private func everyRecord(_ watch: LayerWatch) async throws {
      try await Lab.run("5-debug-\(watch.layer)") { lab in
        var configuration = EngineConfiguration()
        configuration.logLevel = "debug"
        let pair = try await EnginePair(in: lab, configuration: configuration)
        let traffic = try await WatchedTraffic(pair, ["-m", "0", "-w", "5", "--quiet"])
        try await traffic.waitUntilFlowing(5_000)
        try await traffic.stop(living: [pair.re0, pair.re1])
        let records = try await watch.figure("records", of: pair.re0)
        #expect(records > 5)
        for (engine, verb) in [(pair.re0, "sent"), (pair.re1, "received")] {
          var count = 0
          try await eventually(
            within: .seconds(5), "\(engine.node) logs \(records) records as \(verb), not \(count)"
          ) {
            count = try watch.recordLines(of: engine, verb).count
            return count == records
          }
        }
        for engine in [pair.re0, pair.re1] {
          #expect(try !engine.engine.errors.contains { $0.contains("log lines") }, "lost or suppressed")
        }
      }
    }

    @Test("5.1.6 at debug PRL logs every record", .timeLimit(.minutes(1)))
    func prlEveryRecord() async throws { try await everyRecord(Self.prl) }

    @Test("5.2.6 at debug PSRM logs every record", .timeLimit(.minutes(1)))
    func psrmEveryRecord() async throws { try await everyRecord(Self.psrm) }
  }
}

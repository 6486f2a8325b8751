import Glibc
import Testing

extension LabSuite {
  /// TESTPLAN 4.3 and 4.4: what is held goes on, whatever happens, and is bounded by what is not acknowledged
  /// yet.
  @Suite("packets that are held")
  struct HeldPackets {
    @Test(
      "4.3 reinjection after an acknowledgement, a rejection and a timeout", .timeLimit(.minutes(1)),
      arguments: EngineConfiguration.Mode.allCases)
    func reinjection(_ mode: EngineConfiguration.Mode) async throws {
      try await Lab.run("4.3-\(mode)") { lab in
        var configuration = EngineConfiguration()
        configuration.mode = mode
        configuration.debug = true
        let pair = try await EnginePair(in: lab, configuration: configuration)
        // What is held by overlap is what goes out; by strict also what comes in, which is held first.
        let watch = LayerWatch(layer: mode == .strict ? "PRL" : "SDRL")
        func waitForMore(_ path: String, than before: Int) async throws {
          try await eventually(within: .seconds(10), "\(watch.layer) counts more than \(before) \(path)") {
            try await watch.figure("reinjected_\(path)", of: pair.re0) > before
          }
        }
        /// Lets no record of the layer be acknowledged, and returns when packets wait for it.
        func hold() async throws {
          try await watch.holdAcknowledgements(true, on: pair.re1)
          try await eventually(within: .seconds(5), "something waits") {
            try await pair.re0.levels()["held_packets"] ?? 0 > 0
          }
        }
        let traffic = try await WatchedTraffic(pair, ["-m", "0", "-w", "5", "--quiet"])

        let before = try await watch.figure("reinjected_acknowledged", of: pair.re0)
        try await traffic.waitUntilFlowing()
        try await waitForMore("acknowledged", than: before)
        #expect(try await watch.figure("reinjected_rejected", of: pair.re0) == 0)
        #expect(try await watch.figure("reinjected_timeout", of: pair.re0) == 0)

        for layer in ["PRL", "SDRL", "PSRM"] {
          try await LayerWatch(layer: layer).setTimeout("60s", on: pair.re0)
        }
        try await hold()
        try pair.re1.server.send(SIGKILL)
        try await waitForMore("rejected", than: 0)
        try await traffic.waitUntilFlowing()
        #expect(try await watch.figure("reinjected_timeout", of: pair.re0) == 0)

        try await watch.holdAcknowledgements(false, on: pair.re1)
        try pair.re1.startServer()
        try await pair.waitUntilReplicated(5, primary: pair.re0)
        let rejected = try await watch.figure("reinjected_rejected", of: pair.re0)
        try await hold()
        // A socket whose last word was of another layer has a record behind the ones that are held.
        for layer in ["PRL", "SDRL", "PSRM"] {
          try await LayerWatch(layer: layer).setTimeout(layer == watch.layer ? "500ms" : "2s", on: pair.re0)
        }
        try await waitForMore("timeout", than: 0)
        try await traffic.waitUntilFlowing()
        #expect(try await watch.figure("reinjected_rejected", of: pair.re0) == rejected)

        try await watch.holdAcknowledgements(false, on: pair.re1)
        let summary = try await traffic.stop(living: [pair.re0, pair.re1])
        #expect(summary.echoedByRe1 == 0)
      }
    }

    /// `limits.hold-buffer`, which the lab leaves as it is by default.
    private static let holdLimit = 64 << 20
    /// Bytes of a held frame that are no payload: virtio-net header, Ethernet, the longest IP and TCP headers.
    private static let headerByteCount = 10 + 14 + 60 + 60
    /// The most that the peer ever lets be unacknowledged on a connection: its receive buffer.
    private static let peerBuffer = 256 << 10

    @Test(
      "4.4 replication buffer: with traffic for minutes, within what is unacknowledged",
      .timeLimit(.minutes(3)), arguments: [(EngineConfiguration.Mode.overlap, 60), (.strict, 20)])
    func bounds(_ mode: EngineConfiguration.Mode, seconds: Int) async throws {
      try await Lab.run("4.4-\(mode)") { lab in
        try await lab.run(["sysctl", "-qw", "net.ipv4.tcp_rmem=4096 131072 \(Self.peerBuffer)"], on: .peer)
        var configuration = EngineConfiguration()
        configuration.mode = mode
        let pair = try await EnginePair(in: lab, configuration: configuration)
        let traffic = try await WatchedTraffic(
          pair, ["-m", "0", "-l", "60000", "--pipeline", "16", "--duration", "\(seconds)", "--quiet"])
        var samples = 0
        var samplesWithHeld = 0
        let end = ContinuousClock.now + .seconds(seconds - 2)
        while ContinuousClock.now < end {
          let primary = try await pair.re0.figures()
          let secondary = try await pair.re1.figures()
          samples += 1
          if primary["engine.held_packets"] != 0 { samplesWithHeld += 1 }
          Self.check(primary)
          let buffered = try #require(secondary["sdrl.replication_buffer_bytes"])
          #expect(buffered <= 5 * Self.peerBuffer)
          #expect(secondary["engine.held_packets"] == 0, "a secondary holds nothing")
          try await Task.sleep(for: .milliseconds(250))
        }
        #expect(samples >= seconds, "too few samples to say anything")
        let peaks = try await pair.re0.figures()
        print(
          "4.4 (\(mode)): \(samples) samples, \(samplesWithHeld) with packets held; at the most"
            + " \(peaks["engine.held_bytes_max"] ?? 0) bytes held,"
            + " \(peaks["kkcm.bytes_unacknowledged_max"] ?? 0) unacknowledged")
        try await traffic.finish(within: .seconds(30), living: [pair.re0, pair.re1])
        for engine in [pair.re0, pair.re1] {
          let figures = try await engine.figures()
          for name in [
            "engine.held_packets", "engine.held_bytes", "engine.buffered_bytes",
            "kkcm.records_unacknowledged",
            "kkcm.bytes_unacknowledged", "sdrl.replication_buffer_bytes",
          ] {
            #expect(figures[name] == 0, "\(name) on \(engine.node)")
          }
        }
      }
    }

    /// One moment of the primary.
    private static func check(_ figures: [String: Int]) {
      func figure(_ name: String) -> Int { figures[name] ?? -1 }
      let held = (packets: figure("engine.held_packets"), bytes: figure("engine.held_bytes"))
      // What waits for a slow snooper is there because of that, whatever is acknowledged.
      let waiting = (packets: figure("engine.waiting_packets"), bytes: figure("engine.waiting_bytes"))
      let delayed = (packets: held.packets - waiting.packets, bytes: held.bytes - waiting.bytes)
      #expect(waiting.packets >= 0 && delayed.packets >= 0 && delayed.bytes >= 0, "\(waiting) of \(held)")
      let unacknowledged = (
        records: figure("kkcm.records_unacknowledged"), bytes: figure("kkcm.bytes_unacknowledged")
      )
      #expect(held.packets >= 0 && unacknowledged.records >= 0)
      #expect(
        delayed.packets == 0 || unacknowledged.records > 0, "\(delayed) held, and nothing to wait for")
      // Of a segment that TCP sends again, a copy may wait beside it.
      #expect(
        delayed.bytes <= 2 * unacknowledged.bytes + delayed.packets * headerByteCount,
        "\(delayed), \(unacknowledged)")
      #expect(
        figure("engine.held_packets_max") >= held.packets && figure("engine.held_bytes_max") >= held.bytes)
      #expect(figure("engine.held_bytes_max") > 0)
      #expect(figure("kkcm.records_unacknowledged_max") >= unacknowledged.records)
      #expect(figure("kkcm.bytes_unacknowledged_max") >= unacknowledged.bytes)
      #expect(figure("engine.held_bytes_max") <= holdLimit)
      // The record that reaches the limit is the last one.
      #expect(figure("kkcm.bytes_unacknowledged_max") <= holdLimit + (128 << 10))
    }
  }
}

import Testing

extension LabSuite {
  /// TESTPLAN 3.1 to 3.5: what both routing engines know of five connections on which one message of 100
  /// bytes went to and fro.
  @Suite("five replicated connections")
  struct Handles {
    /// Lays out the lab with five connections that have exchanged one message each and then pause.
    private func withPausedConnections(
      _ title: String, _ body: (EnginePair, WatchedTraffic) async throws -> Void
    ) async throws {
      try await Lab.run(title) { lab in
        let pair = try await EnginePair(in: lab, servers: [])
        let traffic = try await WatchedTraffic(pair, ["-m", "0", "-l", "100", "-w", "3600000"])
        try await eventually(within: .seconds(10), "five messages come back") {
          traffic.peer.echoLines.count == 5
        }
        try await body(pair, traffic)
        let summary = try await traffic.stop(living: [pair.re0, pair.re1])
        #expect(summary.sent == 5)
      }
    }

    @Test("3.1 handles and snoop pairs", .timeLimit(.minutes(1)))
    func handlesAndSnoopPairs() async throws {
      try await withPausedConnections("3.1") { pair, _ in
        let primary = try await pair.re0.sockets()
        let secondary = try await pair.re1.sockets()
        #expect(primary.count == 5)
        #expect(secondary.count == 5)

        // 8 bits of slot, 24 of generation, 32 of index.
        let handles = try primary.map { try #require(UInt64($0.handle.dropFirst(2), radix: 16)) }
        #expect(handles.allSatisfy { $0 >> 56 == 0 })
        #expect(Set(handles.map { $0 >> 32 & 0xff_ffff }).count == 5, "every generation is new")
        let others = try secondary.map { try #require(UInt64($0.handle.dropFirst(2), radix: 16)) }
        #expect(others.allSatisfy { $0 >> 56 == 1 })
        #expect(Set(primary.compactMap(\.foreign)).count == 5)
        let ends = primary.compactMap(\.local)
        #expect(ends.count { $0 == Family.v4.localEnd } == 3)
        #expect(ends.count { $0 == Family.v6.localEnd } == 2)

        for socket in primary {
          let snooped = try #require(secondary.first { $0.handle == socket.peerHandle })
          #expect(snooped.peerHandle == socket.handle)
          #expect(snooped.local == socket.local)
          #expect(snooped.foreign == socket.foreign)
          #expect(socket.role == "primary")
          #expect(snooped.role == "secondary")
          #expect(Family.allCases.map(\.localEnd).contains(try #require(socket.local)))
          for report in [socket, snooped] {
            #expect(report.sdrl.initialized)
            #expect(report.prl.initialized)
            #expect(report.psrm.initialized)
          }
          let printed = try pair.re0.server.output + pair.re0.server.errors
          #expect(printed.contains { $0.contains(socket.handle) })
          let snoopLines = try (pair.re1.server.output + pair.re1.server.errors).filter {
            $0.contains(snooped.handle)
          }
          #expect(snoopLines.contains { $0.contains("rcv") })
          #expect(snoopLines.contains { $0.contains("snd") })
        }
      }
    }

    @Test("3.1 generations of handles rise with every connection", .timeLimit(.minutes(1)))
    func generationsRise() async throws {
      try await Lab.run("3.1-generations") { lab in
        let pair = try await EnginePair(in: lab)
        var generations: [UInt64] = []
        for _ in 0..<3 {
          let traffic = try await WatchedTraffic(pair, connections: 1, ["-m", "0", "-w", "50"])
          let handle = try #require(try await pair.re0.sockets().first).handle
          generations.append(try #require(UInt64(handle.dropFirst(2), radix: 16)) >> 32 & 0xff_ffff)
          try await traffic.stop(living: [pair.re0, pair.re1])
        }
        #expect(generations == generations.sorted())
        #expect(Set(generations).count == 3)
      }
    }

    @Test("3.2 handshake", .timeLimit(.minutes(1)))
    func handshake() async throws {
      try await withPausedConnections("3.2") { pair, traffic in
        for socket in try await pair.re0.sockets() {
          let layers = try pair.re0.engine.errors.compactMap { line in
            ["SDRL", "PSRM", "PRL", "IHA"].first {
              line.contains("\($0) handshake for socket \(socket.handle)")
            }
          }
          #expect(layers == ["SDRL", "PSRM", "PRL", "IHA"], "handshake of \(socket.handle)")
          for (handle, log) in [
            (socket.handle, try pair.re0.engine.errors),
            (try #require(socket.peerHandle), try pair.re1.engine.errors),
          ] {
            for layer in ["SDRL", "PSRM", "PRL"] {
              #expect(
                log.contains { $0.contains("\(layer) per-socket state initialized for socket \(handle)") })
            }
          }
        }
        // Readable and writable: the messages that came back went through the server after the handshake.
        #expect(traffic.peer.echoLines.count == 5)
      }
    }

    @Test("3.3 receive side", .timeLimit(.minutes(1)))
    func receiveSide() async throws {
      try await withPausedConnections("3.3") { pair, _ in
        for socket in try await pair.re1.sockets() {
          try await eventually(within: .seconds(10), "rcv of \(socket.handle) shows message 0, verified") {
            try pair.re1.server.output.contains {
              $0.contains(socket.handle) && $0.contains("rcv") && $0.contains("112 bytes")
                && $0.contains("verified") && !$0.contains("not verified")
            }
          }
        }
      }
    }

    @Test("3.4 send side", .timeLimit(.minutes(1)))
    func sendSide() async throws {
      try await withPausedConnections("3.4") { pair, _ in
        for socket in try await pair.re1.sockets() {
          try await eventually(within: .seconds(10), "snd of \(socket.handle) shows the echo of message 0") {
            try pair.re1.server.output.contains {
              $0.contains(socket.handle) && $0.contains("snd") && $0.contains(" MATCH ")
                && $0.contains("100 bytes")
            }
          }
        }
        #expect(try !pair.re1.server.output.contains { $0.contains("MISMATCH") })
      }
    }

    @Test("3.5 TCP state", .timeLimit(.minutes(1)))
    func state() async throws {
      try await Lab.run("3.5") { lab in
        let pair = try await EnginePair(in: lab)
        // Absolute numbers of the last segments each way, to compare with what the engines say.
        let capture = try await Capture(
          "capture-data", in: lab, port: .peer, filter: "tcp port 16000",
          options: ["-S"])
        let traffic = try await WatchedTraffic(
          pair, connections: 3, ["-m", "0", "-l", "3000", "-w", "3600000"])
        try await eventually(within: .seconds(10), "three messages come back") {
          traffic.peer.echoLines.count == 3
        }
        // Delayed acknowledgements come within 40 ms and are part of the state.
        try await Task.sleep(for: .milliseconds(500))

        let primary = try await pair.re0.connections()
        let secondary = try await pair.re1.connections()
        let kernel = try await pair.re0.kernelSockets()
        #expect(primary.count == 3)
        #expect(secondary.count == 3)
        for connection in primary {
          let snooped = try #require(secondary.first { $0.foreign == connection.foreign })
          let own = try #require(kernel.first { $0.foreign == connection.foreign })
          connection.expectSameState(snooped: snooped, kernel: own)
          #expect(own.options == ["ts", "sack", "wscale"])
          #expect(connection.sack && connection.timestamps)

          let last = try capture.packets.lastNumbers(between: connection.local, and: connection.foreign)
          #expect(connection.rcvNxt == last.acknowledgedByLocal)
          #expect(connection.rcvNxt == last.endOfForeign)
          #expect(connection.sndUna == last.acknowledgedByForeign)
          #expect(connection.sndNxt == last.endOfLocal)
        }
        try await traffic.stop(living: [pair.re0, pair.re1])
      }
    }
  }
}

import Foundation
import Testing

extension LabSuite {
  @Suite("bulk")
  struct Bulk {
    /// Bytes by which an engine's memory may grow in the second half of the transfer: less than one object lost with
    /// every packet. Smaller losses are the stresses' to find, where no buffer is ever as full as it may be.
    private static let growthLimit = 16.0 * 1_048_576
    private static let messageLength = 1 << 20

    /// TESTPLAN 3.12. Echoed, every byte goes both ways; beside the traffic a program on each RE takes all of the
    /// processor that it gets.
    @Test(
      "3.12 bulk: 5 connections, both directions, under load on both REs",
      .timeLimit(.minutes(2 + Scale.bulkGigabytes)))
    func gigabytes() async throws {
      try await Lab.run("3.12") { lab in
        let pair = try await EnginePair(in: lab)
        let byteCount = Scale.bulkGigabytes * 1_000_000_000
        let messages = (byteCount + 10 * Self.messageLength - 1) / (10 * Self.messageLength)
        for node in [Node.re0, .re1] {
          _ = try lab.start("load-\(node)", on: node, ["sh", "-c", "while :; do :; done"])
        }
        let traffic = try await WatchedTraffic(
          pair, ["-m", "\(messages)", "-l", "\(Self.messageLength)", "--pipeline", "4", "--quiet"])
        let watch = ResourceWatch(["re0": try pair.re0.engine, "re1": try pair.re1.engine])
        try await traffic.peer.program.waitForEnd(within: .seconds(60 + 60 * Scale.bulkGigabytes))
        let samples = await watch.finish()
        let summary = try await traffic.finish(within: .seconds(5), living: [pair.re0, pair.re1])
        #expect(summary.bytesSent + summary.bytesReceived >= byteCount)
        // The peer has checked every byte; re1 has on both descriptors.
        try await pair.waitUntilAllMatched(summary)
        print(
          "3.12: \(summary.bytesSent) bytes there and \(summary.bytesReceived) back in"
            + " \(Int(summary.durationMs / 1000)) s, \(Int(summary.mbitPerSecond)) Mbit/s each way")
        for (name, series) in samples {
          print("3.12, jsrd on \(name): \(series.summary)")
          // A shorter transfer is over before its buffers have reached their size.
          if Scale.bulkGigabytes >= 10 {
            #expect(try series.growth() < Self.growthLimit, "memory of jsrd on \(name)")
          }
        }
        #expect(samples.count == 2)
        for engine in [pair.re0, pair.re1] {
          let figures = try await engine.figures()
          #expect(figures["kkcm.link_sessions"] == 1, "the link of \(engine.node) was lost")
        }
      }
    }

    /// Which way the bytes go.
    enum Direction: String, CaseIterable, Sendable {
      /// From the peer to the server.
      case sink
      /// From the server to the peer.
      case source
    }

    /// Bytes that the peer's kernel has got, or has got acknowledged, on its one connection.
    private func progress(_ direction: Direction, in lab: Lab) async throws -> (bytes: Double, at: Double) {
      let socket = try #require(try await KernelSocket.all(on: .peer, in: lab).first)
      let name = direction == .sink ? "bytes_acked" : "bytes_received"
      return (Double(socket.values[name] ?? "") ?? 0, Date().timeIntervalSince1970)
    }

    /// Bytes per second over two seconds.
    private func speed(_ direction: Direction, in lab: Lab) async throws -> Double {
      let start = try await progress(direction, in: lab)
      try await Task.sleep(for: .seconds(2))
      let end = try await progress(direction, in: lab)
      return (end.bytes - start.bytes) / (end.at - start.at)
    }

    @Test(
      "a merged connection has the options and the speed it had before", .timeLimit(.minutes(1)),
      arguments: Direction.allCases)
    func fullSpeed(_ direction: Direction) async throws {
      try await Lab.run("bulk-\(direction)") { lab in
        let pair = try await EnginePair(in: lab)
        let traffic = try await WatchedTraffic(
          pair, connections: 1,
          ["-m", "0", "-l", "\(8 << 20)", "--pipeline", "4", "--kind", direction.rawValue, "--quiet"])
        try await Task.sleep(for: .seconds(1))
        let before = try await speed(direction, in: lab)
        let agreedByPeer = try #require(try await KernelSocket.all(on: .peer, in: lab).first).agreement
        let agreedByRE0 = try #require(try await pair.re0.kernelSockets().first { $0.state == "ESTAB" })
          .agreement

        try await pair.re0.lose()
        try await pair.re1.waitUntilPrimary(merged: 1)
        try await Task.sleep(for: .seconds(2))
        let after = try await speed(direction, in: lab)
        #expect(try #require(try await KernelSocket.all(on: .peer, in: lab).first).agreement == agreedByPeer)
        #expect(
          try #require(try await pair.re1.kernelSockets().first { $0.state == "ESTAB" }).agreement
            == agreedByRE0)
        print("bulk, \(direction): \(Int(before / 125_000)) Mbit/s before, \(Int(after / 125_000)) after")
        // After the merge nothing is replicated, so it should be faster; half is what is left for the noise
        // of a machine with two busy cores.
        #expect(after > before / 2)
        try await traffic.stop(living: [pair.re1])
      }
    }
  }
}

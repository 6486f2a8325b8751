import Foundation
import Testing

extension LabSuite {
  @Suite("bulk after a merge")
  struct Bulk {
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

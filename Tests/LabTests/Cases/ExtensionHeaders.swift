import Glibc
import JSR
import Testing

extension LabSuite {
  /// RFC 8200, section 4: what may stand between the IPv6 header and the TCP header.
  @Suite("IPv6 extension headers")
  struct ExtensionHeaders {
    /// A header of destination options that holds nothing but padding (PadN of four bytes). The kernel fills in what
    /// comes next.
    private static let header: [UInt8] = [0, 0, 1, 4, 0, 0, 0, 0]
    private static let fromPeer = BytePattern(seed: 1)
    private static let fromServer = BytePattern(seed: 2)
    /// Both ways, before and after the switchover.
    private static let byteCount = 300_000

    @Test(
      "a connection whose peer sends destination options with every packet survives", .timeLimit(.minutes(1)))
    func destinationOptions() async throws {
      try await Lab.run("destination-options") { lab in
        let application = try await OwnApplication(in: lab, families: [.v6])
        let pair = application.pair
        let withOptions = try await Capture(
          "with-options", in: lab, port: .peer, filter: "ip6 src host \(Family.v6.peer) and ip6[6] = 60")
        let plain = try await Capture(
          "without-options", in: lab, port: .peer, filter: "ip6 src host \(Family.v6.peer) and ip6[6] = 6")
        let peer = try await application.connectPeer()
        let server = try await application.accept()
        let opening = try await plain.finish().count
        #expect(opening > 0, "the handshake of TCP is without options")
        try peer.set(Int32(IPPROTO_IPV6), IPV6_DSTOPTS, Self.header)

        let connection = try await application.replicate(peer, server)
        try await Self.exchange(connection.peer, connection.server, from: 0)
        #expect(
          Self.fromPeer.firstDifference(try await connection.rcv.read(Self.byteCount), from: 0) == nil)
        #expect(
          Self.fromServer.firstDifference(try await connection.snd.read(Self.byteCount), from: 0) == nil)
        #expect(try await pair.re0.figures()["prl.bytes"] ?? 0 >= Self.byteCount)

        try await pair.re1.requestMaster("acquire")
        try await pair.re1.waitUntilPrimary()
        let merged = try StreamEnd(try await application.secondary.merge(connection.secondary))
        try await Self.exchange(connection.peer, merged, from: Self.byteCount)
        _ = connection.server.release()
        _ = merged.release()
        try await connection.peer.readEnd()
        _ = connection.peer.release()
        try await application.end()
        #expect(try await withOptions.finish().count > 20)
      }
    }

    /// Sends as much each way, at the same time.
    private static func exchange(
      _ peer: borrowing StreamEnd, _ server: borrowing StreamEnd, from position: Int
    ) async throws {
      try await peer.write(fromPeer.bytes(from: position, count: byteCount))
      try await server.write(fromServer.bytes(from: position, count: byteCount))
      #expect(fromPeer.firstDifference(try await server.read(byteCount), from: position) == nil)
      #expect(fromServer.firstDifference(try await peer.read(byteCount), from: position) == nil)
    }
  }
}

import Descriptors
import Glibc
import LinuxNetworking
import Packet
import Testing

@Suite("A half-closed connection", .serialized)
struct HalfClosedTests {
  /// Two engines; the second has a TAP device, through which the real engine plays segments to its sockets.
  private final class Takeover: Sendable {
    let network: TestNetwork
    let tap: TapDevice

    private final class Kept: @unchecked Sendable {
      var tap: TapDevice?
      init() throws { tap = try TapDevice(named: "jsr0", mtu: 1500) }
    }

    init() throws {
      network = try TestNetwork(engines: 2)
      try network.giveReplicatedAddress(.v4, to: 0)
      guard let tap = try network.engines[1].run({ try Kept() }).tap.take() else {
        preconditionFailure("made a moment ago")
      }
      self.tap = tap
    }

    /// Moves the connection to the second engine, as it was, and leaves its packets there to flow.
    func move(_ server: StreamSocket) throws -> (moved: StreamSocket, snapshot: TCPSnapshot) {
      try network.isolate(0)
      try network.isolate(1)
      let snapshot = try TCPRepair.snapshot(of: server.descriptor)
      try TCPRepair.disconnectSilently(server.descriptor)
      try network.takeReplicatedAddress(.v4, from: 0)
      try network.giveReplicatedAddress(.v4, to: 1)
      let descriptor = try network.engines[1].run { () throws -> Int32 in
        let socket = try TCPRepair.restore(snapshot)
        try TCPRepair.activate(socket.rawValue, snapshot)
        return socket.release()
      }
      try network.endIsolation(1)
      return (StreamSocket(owning: OwnedDescriptor(owning: descriptor)), snapshot)
    }

    /// Plays the FIN of the peer that the first engine had already received.
    func replayFIN(_ snapshot: TCPSnapshot) -> Int32 {
      let frame = TCPFrameBuilder(
        sourceMAC: MACAddress(rawValue: 0x0200_0000_0001), destinationMAC: tap.hardwareAddress,
        source: snapshot.remote, destination: snapshot.local
      ).frame(
        sequence: snapshot.receiveNext, acknowledgment: snapshot.sendUnacknowledged, flags: [.fin, .ack],
        window: UInt16(clamping: Int(snapshot.sendWindow) >> Int(snapshot.sendWindowScale ?? 0)),
        timestamps: nil, payload: UnsafeRawBufferPointer(start: nil, count: 0))
      let whole = [UInt8](repeating: 0, count: VirtioNetHeader.byteCount) + frame
      return whole.withUnsafeBytes { tap.write($0) }
    }
  }

  @Test("whose peer has ended goes on sending after the peer's FIN is played again")
  func peerEnded() throws {
    let takeover = try Takeover()
    let (server, client) = try StreamSocket.pair(on: takeover.network)
    try client.write([1, 2, 3])
    client.shutdownWrite()
    #expect(eventually { (try? TCPRepair.info(of: server.descriptor).state) == 8 })

    let capture = try Capture(on: "br0", in: takeover.network.peer)
    let (moved, snapshot) = try takeover.move(server)
    #expect(snapshot.finReceived)
    #expect(try TCPRepair.info(of: moved.descriptor).state == 1)
    #expect(takeover.replayFIN(snapshot) == 0)
    #expect(try moved.read(3) == [1, 2, 3])
    #expect(try moved.isAtEnd())
    #expect(try TCPRepair.info(of: moved.descriptor).state == 8)

    let data = pattern(31, 100_000)
    try moved.write(data)
    moved.shutdownWrite()
    #expect(same(try client.read(data.count), data))
    #expect(try client.isAtEnd())
    #expect(capture.segments().allSatisfy { !$0.segment.flags.contains(.rst) })
  }

  @Test(
    "that has ended its own direction goes on receiving after ending it again",
    arguments: [false, true])
  func ownEnd(acknowledged: Bool) throws {
    let takeover = try Takeover()
    let (server, client) = try StreamSocket.pair(on: takeover.network)
    let data = pattern(32, 3000)
    if !acknowledged {
      try takeover.network.peer.nft(
        "add table netdev t; add chain netdev t c { type filter hook ingress device port0 priority 0; policy drop; }"
      )
    }
    try server.write(data)
    server.shutdownWrite()
    let state: UInt8 = acknowledged ? 5 : 4
    #expect(eventually { (try? TCPRepair.info(of: server.descriptor).state) == state })

    let capture = try Capture(on: "br0", in: takeover.network.peer)
    let (moved, snapshot) = try takeover.move(server)
    #expect(snapshot.finSent && snapshot.finAcknowledged == acknowledged)
    #expect(snapshot.sendQueue.count == (acknowledged ? 0 : 3000))
    moved.shutdownWrite()
    #expect(same(try client.read(data.count), data))
    #expect(try client.isAtEnd())
    try client.write([4, 5, 6])
    #expect(try moved.read(3) == [4, 5, 6])
    client.shutdownWrite()
    #expect(try moved.isAtEnd())
    #expect(capture.segments().allSatisfy { !$0.segment.flags.contains(.rst) })
  }
}

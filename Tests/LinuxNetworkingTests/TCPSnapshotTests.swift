import CLinux
import Descriptors
import Glibc
import LinuxNetworking
import Packet
import Testing

@Suite("A TCP socket's state", .serialized)
struct TCPSnapshotTests {
  @Test(
    "can be read from a live connection with data in both queues, which goes on undisturbed",
    arguments: [IPAddress.Family.v4, .v6])
  func undisturbed(family: IPAddress.Family) throws {
    let network = try TestNetwork()
    try network.giveReplicatedAddress(family, to: 0)
    let (server, client) = try StreamSocket.pair(on: network, family: family)
    let toServer = pattern(1, 40_000)
    let toClient = pattern(2, 4_000_000)
    try client.write(toServer)
    let written = server.writeWhatFits(toClient)
    pause(milliseconds: 200)

    let capture = try Capture(on: "port0", in: network.peer)
    let snapshot = try TCPRepair.snapshot(of: server.descriptor)
    pause(milliseconds: 50)
    #expect(capture.segments().allSatisfy { $0.segment.flags.isDisjoint(with: [.rst, .fin]) })

    #expect(snapshot.state == .established)
    #expect(snapshot.local == Endpoint(TestNetwork.replicated(family), 179))
    #expect(snapshot.remote.address == TestNetwork.peerAddress(family))
    #expect(same(snapshot.receiveQueue, toServer))
    let acknowledged = written - snapshot.sendQueue.count
    #expect(acknowledged > 0 && !snapshot.sendQueue.isEmpty)
    #expect(same(snapshot.sendQueue, toClient[acknowledged..<written]))
    #expect(snapshot.sackPermitted && snapshot.timestampsEnabled)
    #expect(snapshot.sendWindowScale != nil && snapshot.receiveWindowScale != nil)
    #expect(snapshot.maximumSegmentSize == (family == .v4 ? 1460 : 1440))
    #expect(snapshot.options[.reuseAddress] == 1)

    // Not in repair mode any more, and SO_REUSEADDR as it was.
    #expect(option(server, Int32(IPPROTO_TCP), TCP_REPAIR) == 0)
    #expect(option(server, SOL_SOCKET, SO_REUSEADDR) == 1)

    #expect(same(try server.read(toServer.count), toServer))
    #expect(same(try client.read(written), toClient[..<written]))
    try server.write(toClient[written..<written + 1000])
    #expect(same(try client.read(1000), toClient[written..<written + 1000]))
  }

  @Test("holds only what the peer has not acknowledged, also of a segment that it has in part")
  func partlyAcknowledged() throws {
    let engine = try RoutingEngine()
    try engine.filter.grantLease(RoutingEngine.replicated, for: nil)
    let (server, client) = try StreamSocket.pair(on: engine.network)
    let before = try TCPRepair.snapshot(of: server.descriptor)
    try engine.filter.steer(adding: [Flow(.tcp, local: before.local, remote: before.remote)])
    let data = pattern(6, 1000)
    try server.write(data)
    #expect(eventually { !engine.steeredFrames().isEmpty })

    let acknowledgment = TCPFrameBuilder(
      sourceMAC: MACAddress(rawValue: 0x0200_0000_0001), destinationMAC: engine.tap.hardwareAddress,
      source: before.remote, destination: before.local
    ).frame(
      sequence: before.receiveNext, acknowledgment: before.writeSequence + 400, flags: .ack, window: 100,
      timestamps: nil, payload: UnsafeRawBufferPointer(start: nil, count: 0))
    let frame = [UInt8](repeating: 0, count: VirtioNetHeader.byteCount) + acknowledgment
    #expect(frame.withUnsafeBytes { engine.tap.write($0) } == 0)
    #expect(eventually { (try? TCPRepair.info(of: server.descriptor).unacknowledged) == 600 })

    let after = try TCPRepair.snapshot(of: server.descriptor)
    #expect(after.sendUnacknowledged == before.writeSequence + 400)
    #expect(after.sendNext == before.writeSequence + 1000)
    #expect(same(after.sendQueue, data[400...]))
    _ = client
  }

  @Test("does not count a FIN that was received, and says that it was")
  func finReceived() throws {
    let network = try TestNetwork()
    try network.giveReplicatedAddress(.v4, to: 0)
    let (server, client) = try StreamSocket.pair(on: network)
    try client.write([1, 2, 3])
    #expect(eventually { (try? TCPRepair.info(of: server.descriptor).unread) == 3 })
    let before = try TCPRepair.snapshot(of: server.descriptor)
    client.shutdownWrite()
    #expect(eventually { (try? TCPRepair.info(of: server.descriptor).state) == 8 })
    let after = try TCPRepair.snapshot(of: server.descriptor)

    #expect(after.state == .closeWait && after.finReceived && !after.finSent)
    #expect(after.receiveNext == before.receiveNext)
    #expect(after.receiveQueue == [1, 2, 3])
    #expect(after.receiveEdge >= before.receiveEdge)
    #expect(after.receiveAcknowledged <= after.receiveNext)
    #expect(try server.read(3) == [1, 2, 3])
    #expect(try server.isAtEnd())
    #expect(try TCPRepair.snapshot(of: server.descriptor).receiveQueue == [])
  }

  @Test("does not count a FIN that was sent, acknowledged or not, and says that it was")
  func finSent() throws {
    let network = try TestNetwork()
    try network.giveReplicatedAddress(.v4, to: 0)
    let (server, client) = try StreamSocket.pair(on: network)
    let before = try TCPRepair.snapshot(of: server.descriptor)

    // Nothing reaches the peer, so the FIN stays unacknowledged behind the data.
    try network.engines[0].nft(
      "add table netdev t; add chain netdev t c { type filter hook egress device eth0 priority 0; policy drop; }"
    )
    try server.write(pattern(3, 5000))
    server.shutdownWrite()
    let waiting = try TCPRepair.snapshot(of: server.descriptor)
    #expect(waiting.state == .finWait1 && waiting.finSent && !waiting.finReceived)
    #expect(waiting.sendUnacknowledged == before.writeSequence)
    #expect(waiting.writeSequence == before.writeSequence + 5000)
    #expect(same(waiting.sendQueue, pattern(3, 5000)))

    try network.engines[0].nft("delete table netdev t")
    #expect(eventually { (try? TCPRepair.info(of: server.descriptor).state) == 5 })
    let acknowledged = try TCPRepair.snapshot(of: server.descriptor)
    #expect(acknowledged.state == .finWait2 && acknowledged.finSent && acknowledged.finAcknowledged)
    #expect(acknowledged.writeSequence == before.writeSequence + 5000)
    #expect(acknowledged.sendUnacknowledged == acknowledged.writeSequence)
    #expect(acknowledged.sendNext == acknowledged.writeSequence)
    #expect(acknowledged.sendQueue == [])
    _ = client
  }

  @Test("survives its encoding, and nothing else is taken for it")
  func encoding() throws {
    let network = try TestNetwork()
    try network.giveReplicatedAddress(.v6, to: 0)
    let (server, client) = try StreamSocket.pair(on: network, family: .v6)
    try client.write([9, 8, 7])
    #expect(eventually { (try? TCPRepair.info(of: server.descriptor).unread) == 3 })
    let snapshot = try TCPRepair.snapshot(of: server.descriptor)
    let bytes = snapshot.encode()

    #expect(try TCPSnapshot(decoding: bytes) == snapshot)
    for count in 0..<bytes.count {
      #expect(throws: SnapshotDecodingError.self) { try TCPSnapshot(decoding: bytes.prefix(count)) }
    }
    #expect(throws: SnapshotDecodingError.trailingBytes(1)) { try TCPSnapshot(decoding: bytes + [0]) }
    #expect(throws: SnapshotDecodingError.unknownVersion(99)) {
      try TCPSnapshot(decoding: [99] + bytes.dropFirst())
    }
    #expect(try SocketOptions(decoding: snapshot.options.encode()) == snapshot.options)
  }

  @Test("gives sequence numbers without repair mode, once its origin is known")
  func origin() throws {
    let network = try TestNetwork()
    try network.giveReplicatedAddress(.v4, to: 0)
    let (server, client) = try StreamSocket.pair(on: network)
    let origin = try TCPRepair.origin(of: server.descriptor)
    try client.write(pattern(4, 70_000))
    try server.write(pattern(5, 90_000))
    _ = try client.read(90_000)
    #expect(eventually { (try? TCPRepair.info(of: server.descriptor).unread) == 70_000 })
    pause(milliseconds: 100)

    let numbers = try TCPRepair.info(of: server.descriptor).sequenceNumbers(from: origin)
    let snapshot = try TCPRepair.snapshot(of: server.descriptor)
    #expect(numbers.sendUnacknowledged == snapshot.sendUnacknowledged)
    #expect(numbers.sendNext == snapshot.sendNext)
    #expect(numbers.writeSequence == snapshot.writeSequence)
    #expect(numbers.receiveNext == snapshot.receiveNext)
  }

  @Test("is refused, with the reason, where there is none to protect")
  func refusals() throws {
    func created(_ family: Int32, _ type: Int32, _ number: Int32 = 0) -> Int32 {
      socket(family, type | Int32(SOCK_CLOEXEC.rawValue), number)
    }
    func refusal(_ descriptor: Int32) -> ReplicationRefusal? {
      defer { close(descriptor) }
      do throws(ReplicationRefusal) {
        try TCPRepair.validate(descriptor)
        return nil
      } catch {
        return error
      }
    }
    let stream = Int32(SOCK_STREAM.rawValue)
    #expect(refusal(1_000_000) == .notOpen)
    #expect(refusal(open("/dev/null", O_RDONLY)) == .notASocket)
    #expect(refusal(created(AF_UNIX, stream)) == .unsupportedFamily(AF_UNIX))
    #expect(refusal(created(AF_INET, Int32(SOCK_DGRAM.rawValue))) == .unsupportedProtocol(17))
    #expect(refusal(created(AF_INET, stream, JSR_IPPROTO_MPTCP)) == .multipath)
    #expect(refusal(created(AF_INET6, stream)) == .notConnected)

    let network = try TestNetwork()
    try network.giveReplicatedAddress(.v4, to: 0)
    let endpoint = Endpoint(TestNetwork.replicated(.v4), 179)
    let listener = try network.engines[0].run { try StreamSocket.listening(at: endpoint) }
    #expect(throws: ReplicationRefusal.listening) { try TCPRepair.validate(listener.descriptor) }

    let client = try network.peer.run { try StreamSocket.connected(to: endpoint) }
    let server = try listener.accepted()
    client.shutdownWrite()
    #expect(eventually { (try? TCPRepair.info(of: server.descriptor).state) == 8 })
    try TCPRepair.validate(server.descriptor)
    server.shutdownWrite()
    #expect(eventually { (try? TCPRepair.validate(server.descriptor)) == nil })
  }
}

func option(_ socket: StreamSocket, _ level: Int32, _ name: Int32) -> Int32 {
  var value: Int32 = -1
  var length: socklen_t = 4
  return getsockopt(socket.descriptor, level, name, &value, &length) == 0 ? value : -1
}

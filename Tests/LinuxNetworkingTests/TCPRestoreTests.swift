import CLinux
import Descriptors
import Glibc
import LinuxNetworking
import Packet
import Testing

@Suite("A TCP connection", .serialized)
struct TCPRestoreTests {
  /// Takes the connection away from the first engine and rebuilds it on the second.
  private func move(
    _ server: StreamSocket, on network: TestNetwork, _ family: IPAddress.Family, signingKey: [UInt8]? = nil,
    change: (inout TCPSnapshot) -> Void = { _ in }
  ) throws -> (moved: StreamSocket, snapshot: TCPSnapshot) {
    // What the engine's steering does: while the connection has no socket, nothing may answer for it.
    try network.isolate(0)
    try network.isolate(1)
    var snapshot = try TCPRepair.snapshot(of: server.descriptor)
    try TCPRepair.disconnectSilently(server.descriptor)
    try network.takeReplicatedAddress(family, from: 0)
    try network.giveReplicatedAddress(family, to: 1)
    change(&snapshot)
    let state = snapshot
    let descriptor = try network.engines[1].run { () throws -> Int32 in
      let socket = try TCPRepair.restore(state, signingKey: signingKey)
      try TCPRepair.activate(socket.rawValue, state)
      return socket.release()
    }
    try network.endIsolation(1)
    return (StreamSocket(owning: OwnedDescriptor(owning: descriptor)), snapshot)
  }

  @Test(
    "that is signed goes on signed, segment for segment, and tells its key to who may know it",
    arguments: [IPAddress.Family.v4, .v6])
  func signed(family: IPAddress.Family) throws {
    let network = try TestNetwork(engines: 2)
    try network.giveReplicatedAddress(family, to: 0)
    let key = Array("a shared secret".utf8)
    let endpoint = Endpoint(TestNetwork.replicated(family), 179)
    let listener = try network.engines[0].run {
      let socket = try StreamSocket.listening(at: endpoint)
      // The longest prefix that fits counts.
      try socket.sign(endpoint.address, prefixLength: 0, with: Array("for others".utf8))
      try socket.sign(TestNetwork.peerAddress(family), prefixLength: 16, with: key)
      return socket
    }
    let client = try network.peer.run { try StreamSocket.connected(to: endpoint, signingKey: key) }
    let server = try listener.accepted()
    let ends = try TCPRepair.snapshot(of: server.descriptor)
    let flow = Flow(.tcp, local: ends.local, remote: ends.remote)
    #expect(try network.engines[0].run { try LiveConnection.signingKey(of: flow) } == key)
    let absent = Flow(.tcp, local: ends.local, remote: Endpoint(ends.remote.address, ends.remote.port ^ 1))
    let found = try network.engines[1].run { try? LiveConnection.signingKey(of: absent) }
    #expect(found == nil)

    let capture = try Capture(on: "br0", in: network.peer)
    let toClient = pattern(21, 300_000)
    let fromServer = server.writeWhatFits(toClient)
    pause(milliseconds: 100)
    let (moved, _) = try move(server, on: network, family, signingKey: key)
    let sink = Background { try client.read(300_000) }
    try moved.write(toClient[fromServer...])
    #expect(same(try sink.join(), toClient))
    try client.write([1, 2, 3])
    #expect(try moved.read(3) == [1, 2, 3])
    let segments = capture.segments()
    #expect(segments.allSatisfy { !$0.segment.flags.contains(.rst) })
    // With the signature, and as the peer's maximum segment size says.
    #expect(segments.map(\.segment.payload.count).max() == (family == .v4 ? 1440 : 1420))
  }

  @Test(
    "goes on in another network stack with unread and unsent data, byte-exact, with all it had agreed on",
    arguments: [IPAddress.Family.v4, .v6])
  func continues(family: IPAddress.Family) throws {
    let network = try TestNetwork(engines: 2)
    try network.giveReplicatedAddress(family, to: 0)
    let (server, client) = try StreamSocket.pair(on: network, family: family)
    let toServer = pattern(11, 3_000_000)
    let toClient = pattern(12, 6_000_000)
    var on: Int32 = 1
    setsockopt(server.descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &on, 4)

    let capture = try Capture(on: "br0", in: network.peer)
    let fromClient = client.writeWhatFits(toServer)
    let fromServer = server.writeWhatFits(toClient)
    pause(milliseconds: 300)
    let before = try TCPRepair.info(of: server.descriptor)
    let (moved, snapshot) = try move(server, on: network, family)
    #expect(!snapshot.unsent.isEmpty && !snapshot.receiveQueue.isEmpty)

    let after = try TCPRepair.info(of: moved.descriptor)
    #expect(after.sendWindowScale == before.sendWindowScale && after.sendWindowScale != nil)
    #expect(after.receiveWindowScale == before.receiveWindowScale && after.receiveWindowScale != nil)
    #expect(after.sackPermitted && after.timestampsEnabled)
    #expect(after.sendMSS == before.sendMSS)
    #expect(option(moved, Int32(IPPROTO_TCP), TCP_NODELAY) == 1)
    #expect(option(moved, Int32(IPPROTO_TCP), TCP_REPAIR) == 0)
    #expect(option(moved, SOL_SOCKET, SO_REUSEADDR) == 1)
    #expect(option(moved, SOL_SOCKET, JSR_SO_BUF_LOCK) == 0)

    #expect(same(try moved.read(fromClient), toServer[..<fromClient]))
    #expect(same(try client.read(fromServer), toClient[..<fromServer]))
    // Both directions with fresh data, at the same time.
    let sink = Background { try client.read(6_000_000 - fromServer) }
    let source = Background { try moved.read(3_000_000 - fromClient) }
    let writer = Background { try client.write(toServer[fromClient...]) }
    try moved.write(toClient[fromServer...])
    try writer.join()
    #expect(same(try sink.join(), toClient[fromServer...]))
    #expect(same(try source.join(), toServer[fromClient...]))

    // Up to here the wire has seen neither reset nor end, and from here on a proper one.
    #expect(capture.segments().allSatisfy { $0.segment.flags.isDisjoint(with: [.rst, .fin]) })
    moved.shutdownWrite()
    #expect(try client.isAtEnd())
    client.shutdownWrite()
    #expect(try moved.isAtEnd())
    #expect(capture.segments().allSatisfy { !$0.segment.flags.contains(.rst) })
  }

  @Test("gets bytes resent that were sent before it moved and never arrived")
  func resends() throws {
    let network = try TestNetwork(engines: 2)
    try network.giveReplicatedAddress(.v4, to: 0)
    let (server, client) = try StreamSocket.pair(on: network)
    // Lost on the way, not on the engine: TCP does not count what its own machine drops as sent.
    try network.peer.nft(
      "add table netdev t; add chain netdev t c { type filter hook ingress device port0 priority 0; policy drop; }"
    )
    let lost = pattern(13, 9000)
    try server.write(lost)
    pause(milliseconds: 20)
    let (moved, snapshot) = try move(server, on: network, .v4)
    #expect(snapshot.sendNext - snapshot.sendUnacknowledged == 9000)
    #expect(same(snapshot.sendQueue, lost))
    #expect(same(try client.read(9000), lost))
    try client.write([1])
    #expect(try moved.read(1) == [1])
  }

  @Test("keeps the window that was promised to the peer, and its timestamps never go back")
  func promises() throws {
    let network = try TestNetwork(engines: 2)
    try network.giveReplicatedAddress(.v4, to: 0)
    let (server, client) = try StreamSocket.pair(on: network)
    // Makes the kernel promise far more than the 64 KiB of a new connection. How soon it does depends on how fast the
    // bytes are read.
    var rounds = 0
    repeat {
      let writer = Background { try client.write(pattern(14, 8_000_000)) }
      _ = try server.read(8_000_000)
      try writer.join()
      rounds += 1
    } while try TCPRepair.info(of: server.descriptor).receiveWindow <= 300_000 && rounds < 20
    pause(milliseconds: 100)
    let capture = try Capture(on: "port1", in: network.peer)
    let (moved, snapshot) = try move(server, on: network, .v4) { $0.timestamp &+= 5000 }
    #expect(snapshot.receiveEdge - snapshot.receiveNext > 200_000)
    #expect(
      Int32(bitPattern: try TCPRepair.timestamp(of: moved.descriptor) &- snapshot.timestamp) >= 0)
    try moved.write([1])
    let data = pattern(15, 10_000)
    try client.write(data)
    #expect(same(try moved.read(data.count), data))
    pause(milliseconds: 100)

    let segments = capture.segments().filter { $0.source == snapshot.local }
    #expect(!segments.isEmpty)
    var edge = snapshot.receiveEdge
    for segment in segments.map(\.segment) {
      let right = segment.acknowledgment + Int(segment.window) << Int(snapshot.receiveWindowScale ?? 0)
      #expect(right >= edge)
      edge = right
      let value = try #require(segment.timestamps?.value)
      #expect(Int32(bitPattern: value &- snapshot.timestamp) >= 0)
    }
  }

  @Test("has the socket options it had, and fixed buffers only where they were fixed")
  func options() throws {
    let network = try TestNetwork(engines: 2)
    try network.giveReplicatedAddress(.v4, to: 0)
    let (server, client) = try StreamSocket.pair(on: network)
    let settings: [(Int32, Int32, Int32)] = [
      (SOL_SOCKET, SO_KEEPALIVE, 1), (Int32(IPPROTO_TCP), TCP_KEEPIDLE, 77),
      (Int32(IPPROTO_TCP), TCP_KEEPINTVL, 11), (Int32(IPPROTO_TCP), TCP_KEEPCNT, 4),
      (Int32(IPPROTO_IP), IP_TTL, 255), (Int32(IPPROTO_IP), IP_TOS, 0xc0),
      (Int32(IPPROTO_TCP), TCP_USER_TIMEOUT, 12_345), (SOL_SOCKET, SO_PRIORITY, 5),
      (SOL_SOCKET, SO_OOBINLINE, 1), (Int32(IPPROTO_TCP), TCP_NOTSENT_LOWAT, 16_384),
      (Int32(IPPROTO_IP), IP_MINTTL, 64), (SOL_SOCKET, SO_SNDBUF, 50_000),
    ]
    for (level, name, setting) in settings {
      var value = setting
      #expect(setsockopt(server.descriptor, level, name, &value, 4) == 0)
    }
    var algorithm = Array("reno".utf8)
    setsockopt(server.descriptor, Int32(IPPROTO_TCP), TCP_CONGESTION, &algorithm, 4)
    let expected = settings.map { option(server, $0.0, $0.1) }

    let (moved, snapshot) = try move(server, on: network, .v4)
    #expect(settings.map { option(moved, $0.0, $0.1) } == expected)
    #expect(option(moved, SOL_SOCKET, JSR_SO_BUF_LOCK) == 1)
    #expect(try TCPRepair.snapshot(of: moved.descriptor).options.congestionControl == "reno")
    #expect(snapshot.options[.nonBlocking] == 0)
    #expect(fcntl(moved.descriptor, F_GETFL) & O_NONBLOCK == 0)
    try client.write([7])
    #expect(try moved.read(1) == [7])
  }

  @Test("without window scaling, SACK and timestamps is rebuilt without them")
  func plainConnection() throws {
    let network = try TestNetwork(engines: 2)
    try network.giveReplicatedAddress(.v4, to: 0)
    for name in ["tcp_window_scaling", "tcp_sack", "tcp_timestamps"] {
      try shell("ip netns exec \(network.peer.name) sysctl -q net.ipv4.\(name)=0")
    }
    let (server, client) = try StreamSocket.pair(on: network)
    let data = pattern(16, 400_000)
    let written = server.writeWhatFits(data)
    pause(milliseconds: 100)
    let (moved, snapshot) = try move(server, on: network, .v4)
    #expect(snapshot.sendWindowScale == nil && snapshot.receiveWindowScale == nil)
    #expect(!snapshot.sackPermitted && !snapshot.timestampsEnabled)
    let info = try TCPRepair.info(of: moved.descriptor)
    #expect(info.sendWindowScale == nil && !info.sackPermitted && !info.timestampsEnabled)
    #expect(same(try client.read(written), data[..<written]))
    try client.write([7])
    #expect(try moved.read(1) == [7])
  }

  @Test("of an IPv6 socket that speaks IPv4 is rebuilt as one")
  func mappedAddress() throws {
    let network = try TestNetwork(engines: 2)
    try network.giveReplicatedAddress(.v4, to: 0)
    let listener = try network.engines[0].run {
      try StreamSocket.listening(at: Endpoint(IPAddress(v6High: 0, low: 0), 179))
    }
    let client = try network.peer.run {
      try StreamSocket.connected(to: Endpoint(TestNetwork.replicated(.v4), 179))
    }
    let server = try listener.accepted()
    try client.write([5])
    #expect(server.isReadable(within: 2000))
    let (moved, snapshot) = try move(server, on: network, .v4)
    #expect(snapshot.isIPv6Socket && snapshot.local.address.family == .v4)
    #expect(option(moved, SOL_SOCKET, SO_DOMAIN) == AF_INET6)
    #expect(try moved.read(1) == [5])
  }

  @Test("is not rebuilt from numbers that contradict each other")
  func inconsistent() throws {
    let network = try TestNetwork()
    try network.giveReplicatedAddress(.v4, to: 0)
    let (server, client) = try StreamSocket.pair(on: network)
    let good = try TCPRepair.snapshot(of: server.descriptor)
    var changes: [TCPSnapshot] = Array(repeating: good, count: 4)
    changes[0].sendQueue = [1]
    changes[1].sendNext = good.writeSequence + 1
    changes[2].sendWindow = good.maximumSendWindow + 1
    changes[3].receiveAcknowledged = good.receiveNext + 1
    for snapshot in changes {
      do {
        _ = try TCPRepair.restore(snapshot)
        Issue.record("restored")
      } catch TCPRepairError.inconsistent {
      }
    }
    _ = client
  }

  @Test("can be ended without a word to the peer, and whoever waits on the socket is woken")
  func silentEnd() throws {
    let network = try TestNetwork()
    try network.giveReplicatedAddress(.v4, to: 0)
    let (server, client) = try StreamSocket.pair(on: network)
    try server.write([1])
    #expect(try client.read(1) == [1])
    pause(milliseconds: 100)
    let capture = try Capture(on: "port0", in: network.peer)
    let waiting = Background { try server.read(1) }
    pause(milliseconds: 100)

    try TCPRepair.disconnectSilently(server.descriptor)
    #expect(throws: SystemError("recv", code: EPIPE)) { try waiting.join() }
    #expect(throws: SystemError("recv", code: ECONNABORTED)) { try server.read(1) }
    pause(milliseconds: 200)
    #expect(capture.segments().isEmpty)
    #expect(!client.isReadable(within: 0))
    #expect(throws: ReplicationRefusal.notConnected) { try TCPRepair.validate(server.descriptor) }
  }
}

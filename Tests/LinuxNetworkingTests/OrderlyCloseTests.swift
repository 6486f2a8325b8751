import Descriptors
import Glibc
import LinuxNetworking
import Packet
import Testing

@Suite("A connection that nobody serves any more", .serialized)
struct OrderlyCloseTests {
  @Test("ends with a FIN behind all that was written, though its peer goes on sending")
  func inOrder() throws {
    let network = try TestNetwork()
    try network.giveReplicatedAddress(.v4, to: 0)
    let (server, client) = try StreamSocket.pair(on: network)
    let capture = try Capture(on: "port0", in: network.peer)
    // Unread bytes, with which a plain close would reset the connection.
    try client.write(pattern(1, 10_000))
    #expect(server.isReadable(within: 1000))
    let written = server.writeWhatFits(pattern(2, 8_000_000))
    #expect(written > 100_000)

    let ending = OrderlyClose(OwnedDescriptor(owning: dup(server.descriptor)))
    let isOverAtOnce = ending.discardInput()
    #expect(!isOverAtOnce)
    #expect(same(try client.read(written), pattern(2, written)))
    #expect(try client.isAtEnd())
    // More than all buffers hold: it is read.
    let rest = Background {
      try client.write(pattern(3, 16 << 20))
      client.shutdownWrite()
    }
    let isOver = eventually { ending.discardInput() }
    #expect(isOver)
    try rest.join()
    #expect(capture.segments().allSatisfy { !$0.segment.flags.contains(.rst) })
  }

  @Test("is over at once when the connection is no more")
  func alreadyGone() throws {
    let network = try TestNetwork()
    try network.giveReplicatedAddress(.v4, to: 0)
    let (server, _) = try StreamSocket.pair(on: network)
    try TCPRepair.disconnectSilently(server.descriptor)
    let ending = OrderlyClose(OwnedDescriptor(owning: dup(server.descriptor)))
    let isOver = ending.discardInput()
    #expect(isOver)
  }

  @Test(
    "is known to the kernel until its peer has taken leave or reset it, also beside a listener",
    arguments: [IPAddress.Family.v4, .v6])
  func lookup(family: IPAddress.Family) throws {
    let network = try TestNetwork()
    try network.giveReplicatedAddress(family, to: 0)
    let endpoint = Endpoint(TestNetwork.replicated(family), 179)
    let listener = try network.engines[0].run { try StreamSocket.listening(at: endpoint) }
    var client: StreamSocket? = try network.peer.run { try StreamSocket.connected(to: endpoint) }
    var server: StreamSocket? = try listener.accepted()
    let snapshot = try TCPRepair.snapshot(of: try #require(server).descriptor)
    let flow = Flow(.tcp, local: snapshot.local, remote: snapshot.remote)
    func exists() throws -> Bool { try network.engines[0].run { try LiveConnection.exists(flow) } }
    #expect(try exists())

    var other = flow
    other.remote.port ^= 1
    let stranger = other
    #expect(try !network.engines[0].run { try LiveConnection.exists(stranger) })

    // Closed by its last holder, and waiting for the peer's FIN.
    server = nil
    #expect(try #require(client).isAtEnd())
    #expect(try exists())
    // With a linger time of zero close(2) resets the connection (tcp(7)).
    var linger = Glibc.linger(l_onoff: 1, l_linger: 0)
    setsockopt(
      try #require(client).descriptor, SOL_SOCKET, SO_LINGER, &linger,
      socklen_t(MemoryLayout<Glibc.linger>.size))
    client = nil
    #expect(try eventually { try !exists() })
  }
}

import CLinux
import Descriptors
import Glibc
import LinuxNetworking
import Packet
import Testing

@Suite("What the kernel knows of a socket", .serialized)
struct LiveConnectionTests {
  @Test(
    "is whether its connection still exists, until its peer has taken leave or reset it, also beside a listener",
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

  @Test("is the network namespace that it was made in")
  func namespaces() throws {
    let (first, second) = (try NetworkNamespace("a"), try NetworkNamespace("b"))
    @Sendable func make() throws -> OwnedDescriptor {
      try OwnedDescriptor(
        returnedBy: "socket", socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0))
    }
    let (number, own) = try first.run { (try make().release(), try NetworkNamespaceCookie.own()) }
    let made = OwnedDescriptor(owning: number)
    let other = try second.run { try NetworkNamespaceCookie.own() }
    #expect(try NetworkNamespaceCookie(of: made.rawValue) == own)
    #expect(own != other)
    #expect(try NetworkNamespaceCookie.own() != own)
    let file = try OwnedDescriptor(returnedBy: "open", open("/dev/null", O_RDONLY | O_CLOEXEC))
    #expect(throws: SystemError("getsockopt(SO_NETNS_COOKIE)", code: ENOTSOCK)) {
      try NetworkNamespaceCookie(of: file.rawValue)
    }
  }
}

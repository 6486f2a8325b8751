import CLinux
import Descriptors
import Glibc
import LinuxNetworking
import Packet
import Testing

@Suite("What the kernel knows of a socket", .serialized)
struct LiveConnectionTests {
  @Test("is whether its connection still exists, also when nobody holds it, and not that somebody listens")
  func lookup() throws {
    let network = try TestNetwork()
    try network.giveReplicatedAddress(.v4, to: 0)
    let endpoint = Endpoint(TestNetwork.replicated(.v4), 179)
    let engine = network.engines[0]
    let listener = try engine.run { try StreamSocket.listening(at: endpoint) }
    var client: StreamSocket? = try network.peer.run { try StreamSocket.connected(to: endpoint) }
    var server: StreamSocket? = try listener.accepted()
    let snapshot = try TCPRepair.snapshot(of: try #require(server).descriptor)
    let flow = Flow(.tcp, local: snapshot.local, remote: snapshot.remote)
    func exists() throws -> Bool { try engine.run { try LiveConnection.exists(flow) } }
    #expect(try exists())
    #expect(
      try !engine.run {
        try LiveConnection.exists(Flow(.tcp, local: endpoint, remote: Endpoint(snapshot.remote.address, 9)))
      })
    #expect(try !network.peer.run { try LiveConnection.exists(flow) })

    // Closed in order, it waits for the peer's end.
    server = nil
    #expect(try exists())
    // The peer resets it.
    #expect(eventually { (try? TCPRepair.info(of: client?.descriptor ?? -1).state) == 8 })
    var linger = linger(l_onoff: 1, l_linger: 0)
    #expect(
      setsockopt(
        try #require(client).descriptor, SOL_SOCKET, SO_LINGER, &linger,
        socklen_t(MemoryLayout.size(ofValue: linger))) == 0)
    client = nil
    #expect(eventually { (try? exists()) == false })
    _ = listener.descriptor

    let sixth = Endpoint(try #require(IPAddress("fd00::1")), 1)
    #expect(throws: SystemError.self) {
      try LiveConnection.exists(Flow(.tcp, local: sixth, remote: sixth))
    }
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

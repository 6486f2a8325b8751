import CLinux
import Descriptors
import Glibc
import LinuxNetworking
import Packet
import Testing

@Suite("A UDP socket", .serialized)
struct UDPSocketTests {
  private static let families = [IPAddress.Family.v4, .v6]

  private static func loopback(_ family: IPAddress.Family, _ port: UInt16) -> Endpoint {
    Endpoint(family == .v4 ? IPAddress(v4: 0x7f00_0001) : IPAddress(v6High: 0, low: 1), port)
  }

  private struct Sockets: Sendable {
    let namespace: NetworkNamespace
    let socket: DatagramSocket
    let peer: DatagramSocket
    let local: Endpoint
    let remote: Endpoint

    init(_ family: IPAddress.Family, connected: Bool = false) throws {
      let namespace = try NetworkNamespace("udp")
      let (local, remote) = (UDPSocketTests.loopback(family, 5000), UDPSocketTests.loopback(family, 5001))
      (socket, peer) = try namespace.run {
        (try DatagramSocket(local, to: connected ? remote : nil), try DatagramSocket(remote))
      }
      self.namespace = namespace
      self.local = local
      self.remote = remote
    }
  }

  @Test(
    "shows its unread datagrams, whole and in order, empty ones too, and still has them", arguments: families)
  func unread(family: IPAddress.Family) throws {
    let sockets = try Sockets(family)
    let payloads: [[UInt8]] = [[1], [], [2, 3], [], [], pattern(1, 20_000), [9]]
    for payload in payloads { try sockets.peer.send(payload, to: sockets.local) }
    let unread = try #require(try UDPSocket.unread(of: sockets.socket.descriptor, limit: 1 << 20))
    #expect(unread.map(\.payload) == payloads)
    #expect(unread.allSatisfy { $0.source == sockets.remote })
    for payload in payloads { #expect(try sockets.socket.receive() == payload) }
    #expect(try UDPSocket.unread(of: sockets.socket.descriptor, limit: 1 << 20) == [])
  }

  @Test("that has more than may be read is not read")
  func tooMuch() throws {
    let sockets = try Sockets(.v4)
    for _ in 1...3 { try sockets.peer.send(pattern(1, 1000), to: sockets.local) }
    #expect(try UDPSocket.unread(of: sockets.socket.descriptor, limit: 2999) == nil)
    #expect(try UDPSocket.unread(of: sockets.socket.descriptor, limit: 3000)?.count == 3)
  }

  @Test("is made again with its ends and options", arguments: families, [true, false])
  func restore(family: IPAddress.Family, connected: Bool) throws {
    let sockets = try Sockets(family, connected: connected)
    let descriptor = sockets.socket.descriptor
    let isV4 = family == .v4
    let level = Int32(isV4 ? IPPROTO_IP : IPPROTO_IPV6)
    for (level, name, value) in [
      (level, isV4 ? IP_TTL : IPV6_UNICAST_HOPS, 77), (level, isV4 ? IP_TOS : IPV6_TCLASS, 0x28),
      (level, isV4 ? IP_PKTINFO : IPV6_RECVPKTINFO, 1), (SOL_SOCKET, SO_BROADCAST, 1),
      (SOL_SOCKET, SO_RCVBUF, 300_000), (SOL_SOCKET, SO_REUSEADDR, 1),
    ] as [(Int32, Int32, Int32)] {
      var value = value
      #expect(setsockopt(descriptor, level, name, &value, 4) == 0)
    }
    let ends = try UDPSocket.ends(of: descriptor)
    #expect(
      ends
        == UDPSocket.Ends(
          local: sockets.local, remote: connected ? sockets.remote : nil, isIPv6Socket: !isV4))
    let options = SocketOptions(of: descriptor, family: family)
    #expect(try SocketOptions(decoding: options.encode()) == options)

    let other = try NetworkNamespace("udp-other")
    let restored = try other.run {
      DatagramSocket(
        owning: try UDPSocket.restore(ends, options: options) { Issue.record("not restored: \($0)") })
    }
    #expect(try UDPSocket.ends(of: restored.descriptor) == ends)
    #expect(SocketOptions(of: restored.descriptor, family: family) == options)
    let peer = try other.run { try DatagramSocket(sockets.remote) }
    try peer.send([5], to: sockets.local)
    #expect(try restored.receive() == [5])
  }

  @Test("that is not bound, or none, is refused with the reason")
  func refused() throws {
    func refusal(_ descriptor: Int32) -> ReplicationRefusal? {
      do throws(ReplicationRefusal) {
        _ = try UDPSocket.ends(of: descriptor)
        return nil
      } catch { return error }
    }
    let fresh = try OwnedDescriptor(returnedBy: "socket", socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0))
    #expect(refusal(fresh.rawValue) == .notBound)
    let stream = try OwnedDescriptor(returnedBy: "socket", socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0))
    #expect(refusal(stream.rawValue) == .unsupportedProtocol(6))
    let local = try OwnedDescriptor(returnedBy: "socket", socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0))
    #expect(refusal(local.rawValue) == .unsupportedFamily(AF_UNIX))
    #expect(refusal(-1) == .notOpen)
  }

  @Test("that is silenced neither receives nor sends, and whoever waits is woken", arguments: [true, false])
  func silence(connected: Bool) throws {
    let sockets = try Sockets(.v4, connected: connected)
    let waiting = Background { try sockets.socket.receive() }
    usleep(50_000)
    try UDPSocket.silence(sockets.socket.descriptor)
    #expect(try waiting.join() == [])
    do {
      try sockets.socket.send([1], to: sockets.remote)
      Issue.record("a silenced socket sends")
    } catch let error as SystemError {
      #expect(error.code == EPIPE || error.code == EISCONN)
    }
  }
}

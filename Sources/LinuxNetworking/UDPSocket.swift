// Theory of operation
//
// A UDP socket is its addresses, its options, and the datagrams that nobody has read yet. Relied on, from
// net/core/datagram.c, net/ipv4/udp.c and net/ipv6/udp.c; what can be seen from outside is shown by the tests:
//
// - With SO_PEEK_OFF at 0, each recvfrom(MSG_PEEK) gives the next datagram of the queue, whole, and leaves it there
//   (__skb_try_recv_from_queue). An empty datagram counts as seen once it has been peeked at, and is skipped when
//   it is looked at again: the queue is read once, in one pass.
// - An error that an ICMP message has left at the socket is what the next call returns, instead of a datagram, and it is
//   gone then. The application would have learned of it by the same means; it is lost to it.
// - What was written has left: a frame is built within the call, and passes the egress hook there. Only UDP_CORK keeps
//   bytes back, which nobody can read.
// - shutdown(2) on a socket that is not connected fails with ENOTCONN, and shuts it down all the same (inet_shutdown):
//   whoever waits is woken, recv gives 0 and send EPIPE.
// - connect(2) on a UDP socket sends nothing.

import CLinux
import Descriptors
import Glibc
import Packet

/// Reads UDP sockets, and makes the same again.
public enum UDPSocket {
  /// The ends of a socket.
  public struct Ends: Sendable, Hashable {
    public var local: Endpoint
    /// `nil` if it is not connected.
    public var remote: Endpoint?
    /// Whether it is a socket of the family AF_INET6, even if it speaks IPv4.
    public var isIPv6Socket: Bool

    public init(local: Endpoint, remote: Endpoint?, isIPv6Socket: Bool) {
      self.local = local
      self.remote = remote
      self.isIPv6Socket = isIPv6Socket
    }
  }

  /// A datagram that has not been read, and where it came from.
  public struct Unread: Sendable, Hashable {
    public var source: Endpoint
    public var payload: [UInt8]

    public init(source: Endpoint, payload: [UInt8]) {
      self.source = source
      self.payload = payload
    }
  }

  /// The ends of a UDP socket that can be replicated.
  ///
  /// - Throws: what stands in the way.
  public static func ends(of descriptor: Int32) throws(ReplicationRefusal) -> Ends {
    guard try InternetSocket.transport(of: descriptor) == .udp else { throw .unsupportedProtocol(6) }
    do throws(SystemError) {
      let local = try SocketAddress.local(of: descriptor)
      let remote: SocketAddress?
      do throws(SystemError) {
        remote = try SocketAddress.remote(of: descriptor)
      } catch  where error.code == ENOTCONN {
        remote = nil
      }
      guard let end = local.endpoint, end.port != 0 else {
        throw SystemError("getsockname", code: EDESTADDRREQ)
      }
      return Ends(local: end, remote: remote?.endpoint, isIPv6Socket: local.isOfIPv6Socket)
    } catch {
      if error.code == EDESTADDRREQ { throw .notBound }
      throw .system(error)
    }
  }

  /// The datagrams that wait at a socket, oldest first; they stay there. `nil` if they have more than `limit` bytes.
  public static func unread(of descriptor: Int32, limit: Int) throws(SystemError) -> [Unread]? {
    let before = try socketOption(
      descriptor, SOL_SOCKET, SO_PEEK_OFF, into: Int32(0), "getsockopt(SO_PEEK_OFF)")
    try setSocketOption(descriptor, SOL_SOCKET, SO_PEEK_OFF, Int32(0), "setsockopt(SO_PEEK_OFF)")
    defer { try? setSocketOption(descriptor, SOL_SOCKET, SO_PEEK_OFF, before, "setsockopt(SO_PEEK_OFF)") }

    var datagrams: [Unread] = []
    var byteCount = 0
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let (count, source) = SocketAddress.receive(
        descriptor, &buffer, Int32(MSG_PEEK) | Int32(MSG_DONTWAIT))
      guard count >= 0 else {
        let code = errno
        if code == EAGAIN { return datagrams }
        // Of an ICMP message, or a signal.
        if code == ECONNREFUSED || code == EHOSTUNREACH || code == ENETUNREACH || code == EINTR { continue }
        throw SystemError("recvfrom(MSG_PEEK)", code: code)
      }
      guard let source = source.endpoint else { throw SystemError("recvfrom(MSG_PEEK)", code: EAFNOSUPPORT) }
      byteCount += count
      guard byteCount <= limit else { return nil }
      datagrams.append(Unread(source: source, payload: Array(buffer[..<count])))
    }
  }

  /// What waits at a socket, in the bytes that the kernel counts for it (SO_MEMINFO), its own overhead with them.
  public struct Queues: Sendable, Hashable {
    public var received = 0
    public var sent = 0

    public init() {}
  }

  public static func queues(of descriptor: Int32) throws(SystemError) -> Queues {
    // include/uapi/asm-generic/socket.h and include/uapi/linux/sock_diag.h: the first and the third of nine.
    let counts = try socketOption(
      descriptor, SOL_SOCKET, 55, into: InlineArray<9, UInt32>(repeating: 0), "getsockopt(SO_MEMINFO)")
    var queues = Queues()
    queues.received = Int(counts[0])
    queues.sent = Int(counts[2])
    return queues
  }

  /// Makes a socket with these ends and options. The local address must be there, and for a connected one a route to the
  /// peer.
  ///
  /// - Parameters:
  ///   - vrf: to which the socket is bound.
  ///   - refused: told of each socket option that could not be set; the socket is good without it.
  /// - Throws: `EADDRNOTAVAIL` if the local address is missing, `EADDRINUSE` if another socket has the port.
  public static func restore(
    _ ends: Ends, in vrf: VRF? = nil, options: SocketOptions, refused: (SystemError) -> Void = { _ in }
  ) throws(SystemError) -> OwnedDescriptor {
    let family = ends.local.address.family
    let blocking = options[.nonBlocking] == 0 ? 0 : Int32(SOCK_NONBLOCK.rawValue)
    let socket = try OwnedDescriptor(
      returnedBy: "socket",
      Glibc.socket(
        ends.isIPv6Socket ? AF_INET6 : AF_INET,
        Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | blocking, 0))
    let descriptor = socket.rawValue
    try vrf?.bind(descriptor)
    options.applyPlain(
      to: descriptor, family: family, present: SocketOptions(of: descriptor, family: family), refused: refused
    )
    try options.applyBuffers(to: descriptor)
    if let reuse = options[.reuseAddress], reuse != 0 {
      try setSocketOption(descriptor, SOL_SOCKET, SO_REUSEADDR, Int32(1), "setsockopt(SO_REUSEADDR)")
    }
    let local = SocketAddress(ends.local, mapped: ends.isIPv6Socket)
    guard local.withPointer({ bind(descriptor, $0, $1) }) == 0 else {
      throw SystemError("bind", on: "\(ends.local)")
    }
    if let end = ends.remote {
      let remote = SocketAddress(end, mapped: ends.isIPv6Socket)
      guard remote.withPointer({ connect(descriptor, $0, $1) }) == 0 else {
        throw SystemError("connect", on: "\(ends.local) - \(end)")
      }
    }
    return socket
  }

  /// Ends a socket for every holder: nothing is received any more, and sending fails with `EPIPE`.
  public static func silence(_ descriptor: Int32) throws(SystemError) {
    guard shutdown(descriptor, Int32(SHUT_RDWR)) == 0 || errno == ENOTCONN else {
      throw SystemError("shutdown")
    }
  }
}

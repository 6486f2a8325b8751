import CLinux
import Glibc
import Packet

/// A socket option that has to survive a merge. Raw values go over the link between the routing engines:
/// never use one again for something else.
public enum SocketOption: UInt8, Sendable, Hashable, CaseIterable {
  case noDelay = 1
  case keepAlive = 2
  /// Seconds.
  case keepAliveIdle = 3
  /// Seconds.
  case keepAliveInterval = 4
  case keepAliveCount = 5
  /// IP time to live, or hop limit.
  case timeToLive = 6
  /// IP type of service, or traffic class.
  case typeOfService = 7
  /// Milliseconds; 0 for the system's own limits.
  case userTimeout = 8
  case priority = 9
  case mark = 10
  case reuseAddress = 11
  case reusePort = 12
  case outOfBandInline = 13
  /// Bytes.
  case notSentLowWater = 14
  /// The smallest time to live, or hop limit, that a packet may arrive with (GTSM, RFC 5082).
  case minimumTimeToLive = 15
  /// Seconds, or -1.
  case finWaitTimeout = 16
  case pathMTUDiscovery = 17
  /// Bytes.
  case receiveLowWater = 18
  /// Bytes, as the kernel counts them: twice what was asked for.
  case sendBuffer = 19
  /// Bytes, as the kernel counts them: twice what was asked for.
  case receiveBuffer = 20
  /// SOCK_SNDBUF_LOCK (1) and SOCK_RCVBUF_LOCK (2): which of the buffers the application has fixed.
  case bufferLocks = 21
  case nonBlocking = 22
  /// Whether the connection is signed (RFC 2385), 0 or 1; its key is given with the merge.
  case isSigned = 23
  case broadcast = 24
  /// Whether the destination of a datagram is told with it (IP_PKTINFO, IPV6_RECVPKTINFO).
  case packetInformation = 25
  /// Whether the time to live, or hop limit, is told with a datagram.
  case receivedTimeToLive = 26
  /// Whether the type of service, or traffic class, is told with a datagram.
  case receivedTypeOfService = 27
  /// Whether ICMP errors are told in detail (IP_RECVERR, IPV6_RECVERR).
  case receivedErrors = 28
  /// Whether datagrams are sent without a checksum (IPv4).
  case noChecksum = 29
  /// Bytes of payload of each datagram that a longer write is cut into (UDP_SEGMENT).
  case datagramSize = 30
  /// Whether several datagrams may be read as one (UDP_GRO).
  case joinedDatagrams = 31

  /// Level and name for setsockopt(2); `nil` for what is not a socket option of its own.
  func name(_ family: IPAddress.Family) -> (level: Int32, name: Int32)? {
    let isV4 = family == .v4
    let ip = Int32(IPPROTO_IP)
    let ipv6 = Int32(IPPROTO_IPV6)
    let tcp = Int32(IPPROTO_TCP)
    switch self {
    case .noDelay: return (tcp, TCP_NODELAY)
    case .keepAlive: return (SOL_SOCKET, SO_KEEPALIVE)
    case .keepAliveIdle: return (tcp, TCP_KEEPIDLE)
    case .keepAliveInterval: return (tcp, TCP_KEEPINTVL)
    case .keepAliveCount: return (tcp, TCP_KEEPCNT)
    case .timeToLive: return isV4 ? (ip, IP_TTL) : (ipv6, IPV6_UNICAST_HOPS)
    case .typeOfService: return isV4 ? (ip, IP_TOS) : (ipv6, IPV6_TCLASS)
    case .userTimeout: return (tcp, TCP_USER_TIMEOUT)
    case .priority: return (SOL_SOCKET, SO_PRIORITY)
    case .mark: return (SOL_SOCKET, SO_MARK)
    case .reuseAddress: return (SOL_SOCKET, SO_REUSEADDR)
    case .reusePort: return (SOL_SOCKET, SO_REUSEPORT)
    case .outOfBandInline: return (SOL_SOCKET, SO_OOBINLINE)
    case .notSentLowWater: return (tcp, TCP_NOTSENT_LOWAT)
    case .minimumTimeToLive: return isV4 ? (ip, IP_MINTTL) : (ipv6, JSR_IPV6_MINHOPCOUNT)
    case .finWaitTimeout: return (tcp, TCP_LINGER2)
    case .pathMTUDiscovery: return isV4 ? (ip, IP_MTU_DISCOVER) : (ipv6, IPV6_MTU_DISCOVER)
    case .receiveLowWater: return (SOL_SOCKET, SO_RCVLOWAT)
    case .sendBuffer: return (SOL_SOCKET, SO_SNDBUF)
    case .receiveBuffer: return (SOL_SOCKET, SO_RCVBUF)
    case .bufferLocks: return (SOL_SOCKET, JSR_SO_BUF_LOCK)
    case .broadcast: return (SOL_SOCKET, SO_BROADCAST)
    case .packetInformation: return isV4 ? (ip, IP_PKTINFO) : (ipv6, IPV6_RECVPKTINFO)
    case .receivedTimeToLive: return isV4 ? (ip, IP_RECVTTL) : (ipv6, IPV6_RECVHOPLIMIT)
    case .receivedTypeOfService: return isV4 ? (ip, IP_RECVTOS) : (ipv6, IPV6_RECVTCLASS)
    case .receivedErrors: return isV4 ? (ip, IP_RECVERR) : (ipv6, IPV6_RECVERR)
    case .noChecksum: return (SOL_SOCKET, SO_NO_CHECK)
    // include/uapi/linux/udp.h
    case .datagramSize: return (Int32(IPPROTO_UDP), 103)
    case .joinedDatagrams: return (Int32(IPPROTO_UDP), 104)
    case .nonBlocking, .isSigned: return nil
    }
  }

  /// Whether setting it anew, from what was read, gives the same again. The buffer sizes are doubled by the
  /// kernel and interact with their locks; the reuse options are undone by TCP_REPAIR.
  var isPlain: Bool {
    switch self {
    case .sendBuffer, .receiveBuffer, .bufferLocks, .reuseAddress, .nonBlocking, .isSigned: false
    default: true
    }
  }
}

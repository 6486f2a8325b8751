// Theory of operation
//
// A raw socket with IP_HDRINCL takes a whole IPv4 packet; the kernel routes it and finds the neighbour's
// hardware address, but leaves header and payload alone except for an empty checksum or identification
// (raw(7), net/ipv4/raw.c). One of IPv6 that was made with IPPROTO_RAW takes a whole IPv6 packet, and changes
// nothing of it (rawv6_send_hdrinc, net/ipv6/raw.c). Neither fragments: a packet beyond the MTU is refused with
// EMSGSIZE. The mark goes with the packet, so that the packet filter lets it pass.

import CLinux
import Descriptors
import Glibc
import Packet

/// Sends whole packets of one IP version that some socket of another machine, or of another time, might have sent.
public final class RawIPSocket: Sendable {
  private let socket: OwnedDescriptor
  private let family: IPAddress.Family

  /// - Parameter vrf: whose routes the packets take.
  /// - Throws: `EPERM` without CAP_NET_RAW, `EAFNOSUPPORT` if the kernel does not know the version.
  public init(_ family: IPAddress.Family, mark: UInt32, in vrf: VRF? = nil) throws(SystemError) {
    self.family = family
    socket = try OwnedDescriptor(
      returnedBy: "socket(SOCK_RAW)",
      Glibc.socket(
        family == .v4 ? AF_INET : AF_INET6,
        Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue),
        Int32(IPPROTO_RAW)))
    try setSocketOption(socket.rawValue, SOL_SOCKET, SO_MARK, mark, "setsockopt(SO_MARK)")
    try vrf?.bind(socket.rawValue)
  }

  /// Sends a packet, which starts with its IP header. Returns 0, or `errno`.
  public func send(_ packet: UnsafeRawBufferPointer, to destination: IPAddress) -> Int32 {
    guard destination.family == family else { return EAFNOSUPPORT }
    // Of IPv6 the port would be a protocol number, which the socket has already.
    let sent = SocketAddress(Endpoint(destination, 0)).withPointer {
      sendto(socket.rawValue, packet.baseAddress, packet.count, 0, $0, $1)
    }
    return sent < 0 ? errno : 0
  }
}

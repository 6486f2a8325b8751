// Theory of operation
//
// A raw socket with IP_HDRINCL takes a whole IPv4 packet; the kernel routes it and finds the neighbour's
// hardware address, but leaves header and payload alone except for an empty checksum or identification
// (raw(7), net/ipv4/raw.c). It does not fragment: a packet beyond the MTU is refused with EMSGSIZE. The mark
// goes with the packet, so that the packet filter lets it pass.

import CLinux
import Descriptors
import Glibc
import Packet

/// Sends whole IPv4 packets that some socket of another machine, or of another time, might have sent.
public struct RawIPSocket: ~Copyable, Sendable {
  private let socket: OwnedDescriptor

  /// - Throws: `EPERM` without CAP_NET_RAW.
  public init(mark: UInt32) throws(SystemError) {
    let socket = try OwnedDescriptor(
      returnedBy: "socket(SOCK_RAW)",
      Glibc.socket(
        AF_INET, Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue),
        Int32(IPPROTO_RAW)))
    try setSocketOption(socket.rawValue, SOL_SOCKET, SO_MARK, mark, "setsockopt(SO_MARK)")
    self.socket = socket
  }

  /// Sends a packet, which starts with its IPv4 header. Returns 0, or `errno`.
  public borrowing func send(_ packet: UnsafeRawBufferPointer, to destination: IPAddress) -> Int32 {
    guard let address = destination.v4Value else { return EAFNOSUPPORT }
    var name = sockaddr_in()
    name.sin_family = sa_family_t(AF_INET)
    name.sin_addr.s_addr = address.bigEndian
    let sent = withUnsafeBytes(of: &name) { bytes in
      sendto(
        socket.rawValue, packet.baseAddress, packet.count, 0,
        bytes.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t(bytes.count))
    }
    return sent < 0 ? errno : 0
  }
}

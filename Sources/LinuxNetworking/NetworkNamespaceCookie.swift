import CLinux
import Descriptors
import Glibc

/// Which network namespace a socket belongs to: a number that the kernel gives to no other one as long as it runs
/// (SO_NETNS_COOKIE, Linux 5.14, net/core/sock.c).
public struct NetworkNamespaceCookie: Hashable, Sendable {
  private let rawValue: UInt64

  /// - Throws: `EBADF`, `ENOTSOCK`; `ENOPROTOOPT` before Linux 5.14.
  public init(of socket: Int32) throws(SystemError) {
    // include/uapi/asm-generic/socket.h
    let name: Int32 = 71
    rawValue = try socketOption(socket, SOL_SOCKET, name, into: UInt64(0), "getsockopt(SO_NETNS_COOKIE)")
  }

  /// Of the calling thread.
  public static func own() throws(SystemError) -> Self {
    let socket = try OwnedDescriptor(
      returnedBy: "socket(SOCK_DGRAM)",
      Glibc.socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0))
    return try Self(of: socket.rawValue)
  }
}

import CLinux
import Descriptors
import Glibc
import LinuxNetworking
import Packet

/// A UDP socket of a test, which never waits for more than ten seconds.
final class DatagramSocket: Sendable {
  private let owned: OwnedDescriptor
  var descriptor: Int32 { owned.rawValue }

  init(owning descriptor: consuming OwnedDescriptor) {
    owned = descriptor
    var limit = timeval(tv_sec: 10, tv_usec: 0)
    setsockopt(owned.rawValue, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
  }

  /// Bound to `local` in the namespace of the calling thread, and connected to `remote` if there is one.
  convenience init(_ local: Endpoint, to remote: Endpoint? = nil) throws {
    self.init(
      owning: try UDPSocket.restore(
        UDPSocket.Ends(local: local, remote: remote, isIPv6Socket: local.address.family == .v6),
        options: SocketOptions()))
    let flags = fcntl(descriptor, F_GETFL)
    _ = fcntl(descriptor, F_SETFL, flags & ~O_NONBLOCK)
  }

  func send(_ payload: [UInt8], to end: Endpoint) throws {
    let family = end.address.family
    let sent: Int
    if family == .v4 {
      var address = sockaddr_in()
      address.sin_family = sa_family_t(AF_INET)
      address.sin_port = end.port.bigEndian
      withUnsafeMutableBytes(of: &address.sin_addr) { end.address.store(in: $0, at: 0) }
      sent = withUnsafePointer(to: address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          sendto(descriptor, payload, payload.count, 0, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
        }
      }
    } else {
      var address = sockaddr_in6()
      address.sin6_family = sa_family_t(AF_INET6)
      address.sin6_port = end.port.bigEndian
      withUnsafeMutableBytes(of: &address.sin6_addr) { end.address.store(in: $0, at: 0) }
      sent = withUnsafePointer(to: address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          sendto(descriptor, payload, payload.count, 0, $0, socklen_t(MemoryLayout<sockaddr_in6>.size))
        }
      }
    }
    guard sent == payload.count else { throw SystemError("sendto", on: "\(end)") }
  }

  func receive() throws -> [UInt8] {
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    let count = recv(descriptor, &buffer, buffer.count, 0)
    guard count >= 0 else { throw SystemError("recv") }
    return Array(buffer[..<count])
  }
}

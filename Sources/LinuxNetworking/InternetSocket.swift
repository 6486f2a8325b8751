import CLinux
import Descriptors
import Glibc
import Packet

/// What can be said of a descriptor before it is known which kind of socket it is.
public enum InternetSocket {
  /// Which of the protocols that can be replicated a socket speaks.
  ///
  /// - Throws: that it is no socket, or speaks another one.
  public static func transport(of descriptor: Int32) throws(ReplicationRefusal) -> TransportProtocol {
    func integer(_ name: Int32, _ call: StaticString) throws(ReplicationRefusal) -> Int32 {
      do throws(SystemError) {
        return try socketOption(descriptor, SOL_SOCKET, name, into: Int32(0), call)
      } catch {
        switch error.code {
        case EBADF: throw .notOpen
        case ENOTSOCK: throw .notASocket
        default: throw .system(error)
        }
      }
    }
    let family = try integer(SO_DOMAIN, "getsockopt(SO_DOMAIN)")
    guard family == AF_INET || family == AF_INET6 else { throw .unsupportedFamily(family) }
    let number = try integer(SO_PROTOCOL, "getsockopt(SO_PROTOCOL)")
    if number == JSR_IPPROTO_MPTCP { throw .multipath }
    guard let transport = UInt8(exactly: number).flatMap(TransportProtocol.init(rawValue:)) else {
      throw .unsupportedProtocol(number)
    }
    return transport
  }
}

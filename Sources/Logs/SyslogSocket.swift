import Descriptors
import Glibc

/// The datagram socket on which the syslog daemon of this machine takes messages; connected when first needed.
final class SyslogSocket {
  /// Where syslog daemons, and systemd's journal, listen.
  static let defaultPath = "/dev/log"

  let path: String
  private var owned: OwnedDescriptor?
  /// The number of the open descriptor; `nil` while there is no daemon.
  private var descriptor: Int32?

  init(path: String) { self.path = path }

  /// Sends one message. Waits if the daemon does not keep up.
  ///
  /// - Throws: why there is no daemon. A daemon that was started again since the last message is found again.
  func send(_ message: [UInt8]) throws(SystemError) {
    if let descriptor {
      do throws(SystemError) {
        return try send(message, on: descriptor)
      } catch {
        self.descriptor = nil
        owned = nil
      }
    }
    let new = try connected()
    let number = new.rawValue
    owned = consume new
    descriptor = number
    try send(message, on: number)
  }

  private func send(_ message: [UInt8], on descriptor: Int32) throws(SystemError) {
    while Glibc.send(descriptor, message, message.count, Int32(MSG_NOSIGNAL)) < 0 {
      guard errno == EINTR else { throw SystemError("send", on: path) }
    }
  }

  private func connected() throws(SystemError) -> OwnedDescriptor {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else {
      throw SystemError("connect", code: ENAMETOOLONG, on: path)
    }
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    let new = try OwnedDescriptor(
      returnedBy: "socket",
      socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0))
    let result = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(new.rawValue, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    guard result == 0 else { throw SystemError("connect", on: path) }
    return new
  }
}

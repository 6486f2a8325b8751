import CLinux
import Descriptors
import Glibc

/// A connected pair of Unix stream sockets whose near end has nothing to read and no room to write.
struct ClosedPair: ~Copyable {
  let near: OwnedDescriptor
  private let far: OwnedDescriptor

  init() throws(SystemError) {
    var ends: [Int32] = [-1, -1]
    guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
      throw SystemError("socketpair")
    }
    let near = OwnedDescriptor(owning: ends[0])
    let far = OwnedDescriptor(owning: ends[1])
    try Self.fill(near.rawValue)
    self.near = near
    self.far = far
  }

  /// Writes until there is no room.
  private static func fill(_ socket: Int32) throws(SystemError) {
    // The kernel makes the least of it that is allowed.
    var size: Int32 = 1
    guard setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &size, socklen_t(MemoryLayout<Int32>.size)) == 0 else {
      throw SystemError("setsockopt(SO_SNDBUF)")
    }
    while send(socket, [0 as UInt8], 1, Int32(MSG_DONTWAIT | MSG_NOSIGNAL)) == 1 {}
    guard errno == EAGAIN else { throw SystemError("send") }
  }

  /// Gives out the far end, and closes the near one.
  consuming func takeFar() -> OwnedDescriptor { far }
}

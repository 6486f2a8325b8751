import CLinux
import Descriptors
import Glibc
import JSR

/// A listening socket on one node that the test itself holds.
struct ListeningSocket: ~Copyable, Sendable {
  /// The same as the echo server's, so that everything that looks at its connections sees these.
  static let port: UInt16 = 16000

  private let descriptor: OwnedDescriptor

  /// - Parameter sendBuffer: Bytes, as for SO_SNDBUF; accepted sockets inherit it.
  /// - Parameter signingKey: What all peers have to sign with (RFC 2385).
  init(
    on node: Node, in lab: Lab, sendBuffer: Int32, port: UInt16 = port, signingKey: [UInt8]? = nil
  ) async throws {
    descriptor = OwnedDescriptor(
      owning: try await lab.inside(node) {
        let socket = try OwnedDescriptor(
          returnedBy: "socket",
          Glibc.socket(
            AF_INET,
            Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0))
        var size = sendBuffer
        guard
          setsockopt(
            socket.rawValue, SOL_SOCKET, SO_SNDBUF, &size, socklen_t(MemoryLayout.size(ofValue: size))) == 0
        else { throw SystemError("setsockopt(SO_SNDBUF)") }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        if let signingKey {
          let result = withUnsafeBytes(of: &address) {
            jsr_set_signing_key(
              socket.rawValue, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t($0.count), 0,
              signingKey, signingKey.count)
          }
          guard result == 0 else { throw SystemError("setsockopt(TCP_MD5SIG)") }
        }
        let result = withUnsafeBytes(of: &address) {
          bind(socket.rawValue, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t($0.count))
        }
        guard result == 0 else { throw SystemError("bind") }
        guard listen(socket.rawValue, 8) == 0 else { throw SystemError("listen") }
        return socket.release()
      })
  }

  func accept() async throws -> StreamEnd {
    let number = try await eventually(within: .seconds(5), "a connection comes") { () -> Int32? in
      let number = Glibc.accept(descriptor.rawValue, nil, nil)
      guard number >= 0 else {
        guard errno == EAGAIN else { throw SystemError("accept") }
        return nil
      }
      // Glibc does not show accept4(2) to Swift. No child is born meanwhile: the case is here.
      _ = fcntl(number, F_SETFD, FD_CLOEXEC)
      return number
    }
    return try StreamEnd(Socket(owning: number))
  }
}

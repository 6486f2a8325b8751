import Descriptors
import Glibc

/// A TCP socket at which connections arrive.
final class ListeningSocket {
  private let socket: OwnedDescriptor

  /// Listens at `address`.
  ///
  /// - Parameter receiveBuffer: Bytes, as for SO_RCVBUF, of every connection that is accepted; `nil` leaves it to the
  ///   kernel.
  /// - Parameter signingKey: What all connections have to be signed with (RFC 2385); `nil` for none.
  init(at address: SocketAddress, receiveBuffer: Int32? = nil, signingKey: [UInt8]? = nil) throws(SystemError)
  {
    socket = try StreamSocket.make(address.family)
    try StreamSocket.set(socket.rawValue, SOL_SOCKET, SO_REUSEADDR, 1)
    // Before listen(2): the scale of the window is agreed on in the handshake (tcp(7)).
    if let receiveBuffer { try StreamSocket.set(socket.rawValue, SOL_SOCKET, SO_RCVBUF, receiveBuffer) }
    if let signingKey { try StreamSocket.sign(socket.rawValue, address, prefixLength: 0, with: signingKey) }
    let bound = address.withPointer { bind(socket.rawValue, $0, $1) }
    guard bound == 0 else { throw SystemError("bind", on: address.description) }
    guard listen(socket.rawValue, 4096) == 0 else { throw SystemError("listen", on: address.description) }
  }

  /// Readable while a connection waits.
  var descriptor: Int32 { socket.rawValue }

  /// The next connection that waits, non-blocking; `nil` if none does.
  func accept() throws(SystemError) -> OwnedDescriptor? {
    let accepted = Glibc.accept(descriptor, nil, nil)
    guard accepted >= 0 else {
      // A connection that was reset while it waited is nobody's trouble (accept(2)).
      if errno == EAGAIN || errno == EINTR || errno == ECONNABORTED { return nil }
      throw SystemError("accept")
    }
    let connection = OwnedDescriptor(owning: accepted)
    try StreamSocket.setNonBlocking(accepted)
    return connection
  }
}

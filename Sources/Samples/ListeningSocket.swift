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
  /// - Parameter vrf: The device of a VRF to listen in; `nil` for none.
  /// - Parameter takesOneFamily: Leave connections of IPv4 alone if `address` is one of IPv6, so that another socket can
  ///   listen to them (IPV6_V6ONLY); otherwise `::` takes both.
  init(
    at address: SocketAddress, receiveBuffer: Int32? = nil, signingKey: [UInt8]? = nil, vrf: String? = nil,
    takesOneFamily: Bool = false
  ) throws(SystemError) {
    socket = try StreamSocket.make(address.family)
    try StreamSocket.set(socket.rawValue, SOL_SOCKET, SO_REUSEADDR, 1)
    if address.family == AF_INET6 {
      try StreamSocket.set(socket.rawValue, Int32(IPPROTO_IPV6), IPV6_V6ONLY, takesOneFamily ? 1 : 0)
    }
    // Before listen(2): the scale of the window is agreed on in the handshake (tcp(7)).
    if let receiveBuffer { try StreamSocket.set(socket.rawValue, SOL_SOCKET, SO_RCVBUF, receiveBuffer) }
    if let signingKey { try StreamSocket.sign(socket.rawValue, address, prefixLength: 0, with: signingKey) }
    if let vrf { try StreamSocket.enter(vrf: vrf, socket.rawValue) }
    let bound = address.withPointer { bind(socket.rawValue, $0, $1) }
    guard bound == 0 else { throw SystemError("bind", on: address.description) }
    guard listen(socket.rawValue, 4096) == 0 else { throw SystemError("listen", on: address.description) }
  }

  /// Listens at every address of this machine, with a socket for each family that its kernel knows.
  static func everywhere(
    port: UInt16, receiveBuffer: Int32?, signingKey: [UInt8]?, vrf: String?
  ) throws -> [ListeningSocket] {
    var sockets = [
      try ListeningSocket(
        at: try SocketAddress(host: "0.0.0.0", port: port, isNumeric: true), receiveBuffer: receiveBuffer,
        signingKey: signingKey, vrf: vrf)
    ]
    do {
      sockets.append(
        try ListeningSocket(
          at: try SocketAddress(host: "::", port: port, isNumeric: true), receiveBuffer: receiveBuffer,
          signingKey: signingKey, vrf: vrf, takesOneFamily: true))
    } catch let error as SystemError where error.code == EAFNOSUPPORT {}
    return sockets
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

// Theory of operation
//
// close(2) of a TCP socket that has unread bytes throws away what was written and not sent yet, and tells the
// peer with a reset (__tcp_close, net/ipv4/tcp.c; RFC 2525, section 2.17); bytes that come after the close have
// the same effect. So a connection that nobody serves any more is ended as a server does it that takes leave of
// its peer: shutdown(2) sends the FIN behind all that was written, and the socket is read until the peer has
// ended its own direction.
//
// recv(2) with MSG_TRUNC takes bytes off the queue of a TCP socket without copying them (tcp(7)).

import CLinux
public import Descriptors
import Glibc

/// A TCP connection on its way to an end in order, with nobody left who would read from it or write to it.
public struct OrderlyClose: ~Copyable, Sendable {
  private let socket: OwnedDescriptor

  /// How much input is thrown away in one go, in bytes.
  private static let turn = 1 << 20

  /// Ends the outgoing direction of a connected socket behind what was written to it. The socket is closed when
  /// this value goes: before `discardInput` says that it is over, the peer may be reset.
  public init(_ socket: consuming OwnedDescriptor) {
    // A connection that is no more needs no FIN either (ENOTCONN).
    _ = shutdown(socket.rawValue, Int32(SHUT_WR))
    self.socket = socket
  }

  /// To be watched until it can be read.
  public var descriptor: Int32 { socket.rawValue }

  /// Throws away what the peer has sent, without waiting for more.
  ///
  /// - Returns: whether it is over: the peer has ended its direction too, or the connection is no more.
  public borrowing func discardInput() -> Bool {
    let count = recv(socket.rawValue, nil, Self.turn, Int32(MSG_TRUNC) | Int32(MSG_DONTWAIT))
    if count == 0 { return true }
    return count < 0 && errno != EAGAIN && errno != EINTR
  }
}

// Theory of operation
//
// While a socket is being replicated it is to be neither readable nor writable. `Session.replicate(_:)` takes
// the socket away, and the compiler sees to the rest. A program that goes on using the number of its descriptor,
// such as an event loop or code in C, needs the kernel to say so. What was tried on Linux 6.18 with a socket that
// has unread bytes and an empty send queue:
//
// - SO_RCVLOWAT at its highest: poll(2) reports it as not readable, but recv(2) returns the bytes all the same
//   (tcp_recvmsg_locked takes what there is), and the kernel raises the receive buffer to 32 MiB for good
//   (tcp_set_rcvlowat). Unread bytes beyond the cap, or a closed window, count as readable again.
// - SO_SNDBUF at its lowest (4608 bytes) and TCP_NOTSENT_LOWAT of 1: the socket stays writable as long as
//   nothing waits in its queue (sk_stream_memory_free), and 0 for the latter means the default.
// - Repair mode for the whole time: recv(2) fails with EPERM and send(2) with EINVAL, which programs take for
//   the end of the connection, and poll(2) reports both directions as ready.
// - Taking the unread bytes out, to put them back later: TCP_REPAIR appends to a receive queue, but the sequence
//   number to begin from can be set while the socket is closed only (do_tcp_setsockopt, TCP_QUEUE_SEQ).
//
// So nothing can be done to the socket itself, and another file takes its place behind the descriptor's number:
// one end of a Unix stream socket pair with nothing to read and a full send buffer. poll and select report
// nothing, calls fail with EAGAIN or wait, as the descriptor's flags and timeouts say. Registrations in epoll
// instances belong to the open file, not to the number: fdinfo of each instance lists them (epoll(7)), and they
// are moved to the stand-in and, as they are then, back.
//
// When the socket is back, calls that wait on the stand-in must go on with it; `StandInLeavers` sees to that.
//
// Not covered: duplicates under other numbers, and other processes that have the socket. They see it as it is:
// nothing is lost or comes twice for them, but a call that meets the moment in which the engine reads the socket
// fails with EPERM or EINVAL. getsockopt(2) and the like speak of the stand-in during the handshake. A call that
// waited on the socket itself when the handshake began goes on waiting there. io_uring is not covered.

import CLinux
import Descriptors
import Glibc

/// Takes the place of a connected socket under its descriptor's number, neither readable nor writable, until
/// `end()`.
struct StandIn: ~Copyable {
  private let number: Int32
  private let socket: OwnedDescriptor
  /// The other end of the stand-in, from which it could be made readable or writable.
  private let far: OwnedDescriptor
  private let identity: FileIdentity

  /// - Throws: `EBADF` if `number` is not open, `ENOTSOCK` if it is no socket; what open(2) says of
  ///   `/proc/self/fd` where /proc is missing.
  init(for number: Int32) throws(SystemError) {
    let socket = try OwnedDescriptor(
      returnedBy: "fcntl(F_DUPFD_CLOEXEC)", fcntl(number, F_DUPFD_CLOEXEC, 0))
    let pair = try ClosedPair()
    try Self.copyWays(of: socket.rawValue, to: pair.near.rawValue)
    let identity = try FileIdentity(of: pair.near.rawValue)
    var registrations = try EpollRegistrations(of: number, meaning: FileIdentity(of: socket.rawValue))
    registrations.remove()
    do throws(SystemError) {
      try Self.put(pair.near, at: number)
    } catch {
      registrations.add()
      throw error
    }
    registrations.add()
    self.number = number
    self.identity = identity
    self.socket = socket
    far = pair.takeFar()
  }

  /// A number under which the socket itself can be lent for a call.
  var descriptor: Int32 { socket.rawValue }

  /// Puts the socket back. Calls that wait on the stand-in go on with it.
  consuming func end() {
    let number = number
    // The caller has closed its descriptor, against the rules: the number may mean somebody else's file.
    guard (try? FileIdentity(of: number)) == identity else { return }
    var registrations = try? EpollRegistrations(of: number, meaning: identity)
    registrations?.remove()
    // Cannot fail: the number is in use, so no limit is in the way (dup(2)).
    try? Self.put(socket, at: number)
    registrations?.add()
    StandInLeavers.seeOut(number: number, socket: socket, far: far)
  }

  /// Whether calls wait, and for how long.
  private static func copyWays(of socket: Int32, to standIn: Int32) throws(SystemError) {
    let flags = fcntl(socket, F_GETFL)
    guard flags >= 0, fcntl(standIn, F_SETFL, flags) == 0 else { throw SystemError("fcntl(F_SETFL)") }
    for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
      var time = timeval()
      var length = socklen_t(MemoryLayout<timeval>.size)
      guard getsockopt(socket, SOL_SOCKET, option, &time, &length) == 0,
        setsockopt(standIn, SOL_SOCKET, option, &time, length) == 0
      else { throw SystemError("setsockopt(SO_RCVTIMEO)") }
    }
  }

  private static func put(_ file: borrowing OwnedDescriptor, at number: Int32) throws(SystemError) {
    let flags = fcntl(number, F_GETFD)
    guard flags >= 0 else { throw SystemError("fcntl(F_GETFD)") }
    guard jsr_put_descriptor(file.rawValue, number, flags & FD_CLOEXEC) >= 0 else {
      throw SystemError("dup3")
    }
  }
}

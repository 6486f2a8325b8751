// Theory of operation
//
// A Unix socket of type SOCK_SEQPACKET keeps messages whole and in order and passes descriptors. What is
// relied on, from net/unix/af_unix.c and tried:
//
// - A message is sent whole or not at all. A sender waits (or gets EAGAIN) while what it has under way is
//   more than the socket's send buffer; the queue length that limits datagram sockets does not count between
//   two sockets connected to each other.
// - SCM_RIGHTS makes new descriptors in the receiver when it receives, those that do not fit its buffer are
//   dropped by the kernel and the call says MSG_CTRUNC.
// - An end that closes with messages unread leaves ECONNRESET on the other side, reported once and before
//   messages that are still queued there. Those are a refusal's only way out, so the call is repeated.
// - 0 bytes received are the end of the connection. An empty message looks the same and is treated as such.

import CLinux
public import Descriptors
import Glibc

/// One end of a control connection: a `SOCK_SEQPACKET` socket.
///
/// Calls of several threads at once are as safe as the system calls they make: messages stay whole.
public struct ControlSocket: ~Copyable, Sendable {
  private let socket: OwnedDescriptor

  /// Takes over a connected socket of type `SOCK_SEQPACKET`.
  public init(owning socket: consuming OwnedDescriptor) { self.socket = socket }

  /// Connects to the engine that listens at `path`.
  ///
  /// - Parameter timeoutSeconds: how long a full backlog is waited for.
  /// - Throws: `ENOENT` if there is no socket, `ECONNREFUSED` if nobody listens, `EACCES` if the caller may not
  ///   use it, `ENAMETOOLONG` for a path that does not fit a socket address, `EAGAIN` after the timeout.
  public init(connectingTo path: String, timeoutSeconds: Int = 5) throws(SystemError) {
    let socket = try OwnedDescriptor(
      returnedBy: "socket(AF_UNIX)",
      Glibc.socket(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue), 0))
    var timeout = timeval(tv_sec: timeoutSeconds, tv_usec: 0)
    guard
      setsockopt(
        socket.rawValue, SOL_SOCKET, SO_SNDTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size)) == 0
    else { throw SystemError("setsockopt(SO_SNDTIMEO)") }
    var address = try ControlSocket.address(of: path)
    let result = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
        Glibc.connect(socket.rawValue, address, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    guard result == 0 else { throw SystemError("connect", on: path) }
    timeout.tv_sec = 0
    guard
      setsockopt(
        socket.rawValue, SOL_SOCKET, SO_SNDTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size)) == 0
    else { throw SystemError("setsockopt(SO_SNDTIMEO)") }
    self.socket = socket
  }

  /// The number of the open descriptor, for `poll` and `setsockopt`.
  public var descriptor: Int32 { socket.rawValue }

  /// The address of a Unix socket.
  ///
  /// - Throws: `ENAMETOOLONG` if the path is longer than 107 bytes, or empty.
  public static func address(of path: String) throws(SystemError) -> sockaddr_un {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    let fits = withUnsafeMutableBytes(of: &address.sun_path) { space in
      // One byte stays 0 for the end.
      guard !bytes.isEmpty, bytes.count < space.count, !bytes.contains(0) else { return false }
      space.copyBytes(from: bytes)
      return true
    }
    guard fits else { throw SystemError("connect", code: ENAMETOOLONG, on: path) }
    return address
  }

  /// Sends one message.
  ///
  /// - Parameters:
  ///   - message: at most `ControlProtocol.messageLimit` bytes.
  ///   - descriptors: numbers of open descriptors; the receiver gets its own, these stay as they are.
  ///   - waiting: whether to wait while the socket is full, or throw `.wouldBlock`.
  public borrowing func send(
    _ message: [UInt8], descriptors: [Int32] = [], waiting: Bool
  ) throws(ControlSocketError) {
    guard message.count <= ControlProtocol.messageLimit else { throw .oversized }
    guard descriptors.count <= ControlProtocol.descriptorLimit else {
      throw .tooManyDescriptors(message: message)
    }
    let flags = Int32(MSG_NOSIGNAL) | (waiting ? 0 : Int32(MSG_DONTWAIT))
    while true {
      let sent = message.withUnsafeBytes { bytes in
        jsr_send_with_descriptors(
          socket.rawValue, bytes.baseAddress, bytes.count, descriptors, Int32(descriptors.count), flags)
      }
      if sent >= 0 { return }
      switch errno {
      case EINTR: continue
      case EAGAIN: throw .wouldBlock
      case EPIPE, ECONNRESET, ECONNREFUSED, ENOTCONN: throw .ended
      default: throw .system(SystemError("sendmsg"))
      }
    }
  }

  /// Receives one message.
  ///
  /// - Parameter waiting: whether to wait for one, or throw `.wouldBlock`.
  public borrowing func receive(waiting: Bool) throws(ControlSocketError) -> ControlMessage {
    var numbers = [Int32](repeating: -1, count: ControlProtocol.descriptorLimit)
    var count: Int32 = 0
    var truncated: Int32 = 0
    // One byte more than allowed shows what is too long without another system call.
    var failure: ControlSocketError?
    var resets = 0
    let bytes = [UInt8](unsafeUninitializedCapacity: ControlProtocol.messageLimit + 1) { space, used in
      while true {
        let received = jsr_receive_with_descriptors(
          socket.rawValue, space.baseAddress, space.count, &numbers, Int32(numbers.count), &count, &truncated,
          waiting ? 0 : Int32(MSG_DONTWAIT))
        if received >= 0 {
          used = Int(received)
          return
        }
        count = 0
        switch errno {
        case EINTR: continue
        case ECONNRESET where resets == 0: resets += 1
        case EAGAIN: failure = .wouldBlock
        case EPIPE, ECONNRESET, ENOTCONN: failure = .ended
        default: failure = .system(SystemError("recvmsg"))
        }
        if failure != nil { return }
      }
    }
    if let failure { throw failure }
    let descriptors = DescriptorParcel(owning: Array(numbers.prefix(Int(count))))
    guard truncated == 0 else { throw .tooManyDescriptors(message: bytes) }
    guard !bytes.isEmpty else { throw .ended }
    guard bytes.count <= ControlProtocol.messageLimit else { throw .oversized }
    return ControlMessage(bytes: bytes, descriptors: descriptors)
  }

  /// Ends the connection for both ends and for every call that waits on it.
  public borrowing func shutdown() { _ = Glibc.shutdown(socket.rawValue, Int32(SHUT_RDWR)) }
}

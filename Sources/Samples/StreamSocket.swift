import CLinux
import Descriptors
import Glibc

/// What the sample programs do with TCP sockets, all of them non-blocking.
enum StreamSocket {
  /// What came of a read or a write.
  enum Outcome {
    case bytes(Int)
    /// The other side has closed its direction.
    case ended
    case notNow
    /// `errno`.
    case failed(Int32)
  }

  /// A socket on its way to `remote`: writable when it has arrived or failed, see `connectError`.
  static func connecting(
    to remote: SocketAddress, from local: SocketAddress?, signingKey: [UInt8]? = nil
  ) throws(SystemError) -> OwnedDescriptor {
    let descriptor = try make(remote.family)
    if let signingKey { try sign(descriptor.rawValue, remote, prefixLength: nil, with: signingKey) }
    if let local {
      let bound = local.withPointer { bind(descriptor.rawValue, $0, $1) }
      guard bound == 0 else { throw SystemError("bind", on: local.description) }
    }
    let result = remote.withPointer { connect(descriptor.rawValue, $0, $1) }
    guard result == 0 || errno == EINPROGRESS else {
      throw SystemError("connect", on: remote.description)
    }
    return descriptor
  }

  /// Signs what goes to, and demands it of what comes from, an address or a prefix (RFC 2385).
  static func sign(
    _ descriptor: Int32, _ address: SocketAddress, prefixLength: Int32?, with key: [UInt8]
  ) throws(SystemError) {
    let result = address.withPointer {
      jsr_set_signing_key(descriptor, $0, $1, prefixLength ?? -1, key, key.count)
    }
    guard result == 0 else { throw SystemError("setsockopt(TCP_MD5SIG)", on: address.description) }
  }

  /// Lets a socket, of UDP too, take part in what the interface of this name has: in a VRF, if it is the device of one.
  static func enter(vrf name: String, _ descriptor: Int32) throws(SystemError) {
    let result = name.withCString {
      setsockopt(descriptor, SOL_SOCKET, SO_BINDTODEVICE, $0, socklen_t(name.utf8.count + 1))
    }
    guard result == 0 else { throw SystemError("setsockopt(SO_BINDTODEVICE)", on: name) }
  }

  /// The address at the other end; `nil` if there is none any more.
  static func remoteAddress(of descriptor: Int32) -> SocketAddress? {
    SocketAddress { getpeername(descriptor, $0, $1) }
  }

  /// 0 once connected, otherwise why not, as an `errno`.
  static func connectError(_ descriptor: Int32) -> Int32 {
    var code: Int32 = 0
    var length = socklen_t(MemoryLayout<Int32>.size)
    return getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &code, &length) == 0 ? code : errno
  }

  static func read(_ descriptor: Int32, into buffer: UnsafeMutableRawBufferPointer) -> Outcome {
    let count = Glibc.read(descriptor, buffer.baseAddress, buffer.count)
    if count > 0 { return .bytes(count) }
    if count == 0 { return .ended }
    return errno == EAGAIN || errno == EINTR ? .notNow : .failed(errno)
  }

  static func write(_ descriptor: Int32, _ bytes: UnsafeRawBufferPointer) -> Outcome {
    let count = send(descriptor, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL))
    if count >= 0 { return .bytes(count) }
    return errno == EAGAIN || errno == EINTR ? .notNow : .failed(errno)
  }

  /// Bytes that were written and that the peer has not acknowledged (`SIOCOUTQ`, tcp(7)).
  static func unacknowledgedByteCount(_ descriptor: Int32) -> Int {
    var count: Int32 = 0
    guard ioctl(descriptor, UInt(TIOCOUTQ), &count) == 0 else { return 0 }
    return Int(count)
  }

  /// Small answers leave at once, as an echo server wants it.
  static func sendAtOnce(_ descriptor: Int32) throws(SystemError) {
    try set(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, 1)
  }

  /// Notices within seconds that the other end is gone without a word.
  static func noticeSilence(_ descriptor: Int32) throws(SystemError) {
    try set(descriptor, SOL_SOCKET, SO_KEEPALIVE, 1)
    try set(descriptor, Int32(IPPROTO_TCP), TCP_KEEPIDLE, 1)
    try set(descriptor, Int32(IPPROTO_TCP), TCP_KEEPINTVL, 1)
    try set(descriptor, Int32(IPPROTO_TCP), TCP_KEEPCNT, 3)
    try set(descriptor, Int32(IPPROTO_TCP), TCP_USER_TIMEOUT, 3000)
  }

  static func setNonBlocking(_ descriptor: Int32) throws(SystemError) {
    let flags = fcntl(descriptor, F_GETFL)
    guard flags >= 0, fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) == 0 else {
      throw SystemError("fcntl(F_SETFL)")
    }
  }

  /// Lets the process open as many descriptors as it is allowed to, instead of the customary 1,024.
  static func raiseDescriptorLimit() {
    var limit = rlimit()
    guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
    limit.rlim_cur = limit.rlim_max
    _ = setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
  }

  /// A new socket of an address family.
  static func make(_ family: Int32) throws(SystemError) -> OwnedDescriptor {
    let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    return try OwnedDescriptor(returnedBy: "socket", socket(family, type, 0))
  }

  /// Sets an option whose value is a number.
  static func set(
    _ descriptor: Int32, _ level: Int32, _ option: Int32, _ value: Int32
  ) throws(SystemError) {
    var value = value
    guard setsockopt(descriptor, level, option, &value, socklen_t(MemoryLayout<Int32>.size)) == 0 else {
      throw SystemError("setsockopt", on: "option \(option) of descriptor \(descriptor)")
    }
  }
}

import CLinux
import Descriptors
import Glibc

/// A conversation with one part of the kernel over netlink(7): a request, then the messages that answer it; or what it
/// tells a group of subscribers.
struct NetlinkSocket: ~Copyable {
  private let socket: OwnedDescriptor

  /// - Parameters:
  ///   - family: `NETLINK_ROUTE` and the like; acts on the network namespace of the calling thread.
  ///   - groups: What is subscribed to, as a mask.
  init(_ family: Int32, groups: UInt32 = 0) throws(SystemError) {
    let socket = try OwnedDescriptor(
      returnedBy: "socket(AF_NETLINK)",
      Glibc.socket(AF_NETLINK, Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue), family))
    if groups != 0 {
      var address = sockaddr_nl()
      address.nl_family = sa_family_t(AF_NETLINK)
      address.nl_groups = groups
      let descriptor = socket.rawValue
      let result = withUnsafeBytes(of: &address) {
        bind(descriptor, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t($0.count))
      }
      guard result == 0 else { throw SystemError("bind(AF_NETLINK)") }
    }
    self.socket = socket
  }

  /// Bytes that one send may hold: a batch may have thousands of messages.
  static let sendBuffer: Int32 = 32 << 20

  /// Makes room for ``transact(_:)``, and has errors answered without the messages that they are about.
  borrowing func prepareForBatches() throws(SystemError) {
    try setSocketOption(
      socket.rawValue, SOL_SOCKET, SO_SNDBUFFORCE, Self.sendBuffer, "setsockopt(SO_SNDBUFFORCE)")
    try setSocketOption(
      socket.rawValue, SOL_NETLINK, NETLINK_CAP_ACK, Int32(1), "setsockopt(NETLINK_CAP_ACK)")
  }

  /// Whether a batch of messages can be read without waiting.
  ///
  /// - Throws: `ENOBUFS` if messages were lost.
  borrowing func hasMessages() throws(SystemError) -> Bool {
    var byte: UInt8 = 0
    if recv(socket.rawValue, &byte, 1, Int32(MSG_PEEK) | Int32(MSG_DONTWAIT)) >= 0 {
      return true
    }
    guard errno == EAGAIN || errno == EINTR else { throw SystemError("recv(AF_NETLINK)") }
    return false
  }

  /// Sends one request: its type and flags, its fixed part, and its attributes.
  borrowing func send(
    _ type: UInt16, _ flags: UInt16, _ body: some BitwiseCopyable, _ attributes: [(UInt16, [UInt8])] = []
  ) throws(SystemError) {
    var bytes: [UInt8] = []
    func append<T: BitwiseCopyable>(_ value: T) { withUnsafeBytes(of: value) { bytes += $0 } }
    append(nlmsghdr(nlmsg_len: 0, nlmsg_type: type, nlmsg_flags: flags, nlmsg_seq: 1, nlmsg_pid: 0))
    append(body)
    for (kind, value) in attributes {
      append(UInt16(4 + value.count))
      append(kind)
      bytes += value
    }
    withUnsafeBytes(of: UInt32(bytes.count)) { bytes.replaceSubrange(0..<4, with: $0) }
    guard Glibc.send(socket.rawValue, bytes, bytes.count, 0) == bytes.count else {
      throw SystemError("send(AF_NETLINK)")
    }
  }

  /// Sends messages that the kernel carries out as a whole, or not at all, before this returns; the last one asks for an
  /// acknowledgement. Throws the first error that it answers with.
  borrowing func transact(_ batch: [UInt8]) throws(SystemError) {
    guard Glibc.send(socket.rawValue, batch, batch.count, 0) == batch.count else {
      throw SystemError("send(AF_NETLINK)")
    }
    var failure: SystemError?
    var wasAnswered = false
    while try hasMessages() {
      wasAnswered = true
      do throws(SystemError) {
        _ = try receive { _, _ in }
      } catch {
        failure = failure ?? error
      }
    }
    if let failure { throw failure }
    // Memory was short for an answer.
    guard wasAnswered else { throw SystemError("netlink", code: ENOBUFS) }
  }

  /// Waits for the answer to a request that asks for nothing but an acknowledgement.
  borrowing func awaitAcknowledgement() throws(SystemError) { while try receive({ _, _ in }) {} }

  /// Reads one batch of messages; false after the last of an answer. Throws the error that an answer holds.
  borrowing func receive(_ body: (UInt16, UnsafeRawBufferPointer) -> Void) throws(SystemError) -> Bool {
    // The kernel fills at most 32 KiB at a time (netlink_dump, net/netlink/af_netlink.c).
    var buffer = [UInt8](repeating: 0, count: 64 << 10)
    let count = recv(socket.rawValue, &buffer, buffer.count, 0)
    guard count > 0 else { throw SystemError("recv(AF_NETLINK)") }

    var more = true
    var failure: Int32 = 0
    buffer.withUnsafeBytes { bytes in
      let headerSize = MemoryLayout<nlmsghdr>.size
      var offset = 0
      while offset + headerSize <= count {
        let header = bytes.loadUnaligned(fromByteOffset: offset, as: nlmsghdr.self)
        let length = Int(header.nlmsg_len)
        guard length >= headerSize, offset + length <= count else { break }
        let content = UnsafeRawBufferPointer(rebasing: bytes[(offset + headerSize)..<(offset + length)])
        switch Int32(header.nlmsg_type) {
        case NLMSG_DONE: more = false
        case NLMSG_ERROR:
          more = false
          if content.count >= 4 { failure = -content.loadUnaligned(as: Int32.self) }
        default: body(header.nlmsg_type, content)
        }
        offset += (length + 3) & ~3
      }
    }
    if failure != 0 { throw SystemError("netlink", code: failure) }
    return more
  }
}

extension UnsafeRawBufferPointer {
  /// Calls `body` with the kind and the value of each of the attributes that these bytes are
  /// (`struct rtattr`).
  func forEachAttribute(_ body: (UInt16, UnsafeRawBufferPointer) -> Void) {
    var offset = 0
    while offset + 4 <= count {
      let length = Int(loadUnaligned(fromByteOffset: offset, as: UInt16.self))
      guard length >= 4, offset + length <= count else { return }
      body(
        loadUnaligned(fromByteOffset: offset + 2, as: UInt16.self),
        UnsafeRawBufferPointer(rebasing: self[(offset + 4)..<(offset + length)]))
      offset += (length + 3) & ~3
    }
  }
}

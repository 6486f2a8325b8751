import CLinux
import Descriptors
import Glibc
import Packet

/// The queues of a socket in repair mode, by the numbers of TCP_REPAIR_QUEUE; see the theory of operation
/// in `TCPRepair.swift`.
enum TCPQueue: Int32 {
  case receive = 1
  case send = 2

  /// What is put into a queue with one call. The kernel takes one allocation for each call on the receive
  /// queue, and may not find a larger one.
  private static let chunk = 32 << 10

  func select(on descriptor: Int32) throws(SystemError) {
    try setSocketOption(
      descriptor, Int32(IPPROTO_TCP), TCP_REPAIR_QUEUE, rawValue, "setsockopt(TCP_REPAIR_QUEUE)")
  }

  /// Where the queue ends.
  func sequence(of descriptor: Int32) throws(SystemError) -> SequenceNumber {
    try select(on: descriptor)
    return SequenceNumber(
      try socketOption(
        descriptor, Int32(IPPROTO_TCP), TCP_QUEUE_SEQ, into: UInt32(0), "getsockopt(TCP_QUEUE_SEQ)"))
  }

  /// Sets where the queue starts, while the socket is closed.
  func setSequence(_ descriptor: Int32, _ sequence: SequenceNumber) throws(SystemError) {
    try select(on: descriptor)
    try setSocketOption(
      descriptor, Int32(IPPROTO_TCP), TCP_QUEUE_SEQ, sequence.rawValue, "setsockopt(TCP_QUEUE_SEQ)")
  }

  /// The last `count` bytes of the queue, which stay in it; `nil` if they have changed meanwhile.
  func peek(_ descriptor: Int32, count: Int) throws(SystemError) -> [UInt8]? {
    guard count > 0 else { return [] }
    try select(on: descriptor)
    // The send queue may start before the first byte that is not acknowledged, by less than one segment; the
    // extra byte of the receive queue tells when more has come.
    let slack = self == .send ? 64 << 10 : 1
    var received = 0
    var bytes = [UInt8](unsafeUninitializedCapacity: count + slack) { buffer, initialized in
      received = recv(descriptor, buffer.baseAddress, buffer.count, Int32(MSG_PEEK) | Int32(MSG_DONTWAIT))
      initialized = max(0, received)
    }
    guard received >= 0 else {
      // The queue has grown by more than the slack, or has been read empty.
      if errno == EFAULT || errno == EAGAIN { return nil }
      throw SystemError("recv(MSG_PEEK)")
    }
    switch self {
    case .send:
      guard bytes.count >= count else { return nil }
      bytes.removeFirst(bytes.count - count)
    case .receive:
      guard bytes.count == count else { return nil }
    }
    return bytes
  }

  /// Puts bytes into the queue of a socket that is being restored.
  func append(_ bytes: ArraySlice<UInt8>, to descriptor: Int32) throws(SystemError) {
    guard !bytes.isEmpty else { return }
    try select(on: descriptor)
    try Self.write(bytes, to: descriptor)
  }

  /// Writes all of `bytes`, for which there must be room.
  static func write(_ bytes: ArraySlice<UInt8>, to descriptor: Int32) throws(SystemError) {
    var rest = bytes
    while !rest.isEmpty {
      let sent = rest.prefix(chunk).withUnsafeBytes {
        Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
      }
      if sent > 0 {
        rest = rest.dropFirst(sent)
      } else if sent < 0, errno != EINTR {
        throw SystemError("send")
      }
    }
  }
}

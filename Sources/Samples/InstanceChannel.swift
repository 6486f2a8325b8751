import Descriptors
import Glibc

/// The connection between the two instances of the echo server: offers one way, answers the other.
final class InstanceChannel {
  let descriptor: OwnedDescriptor
  /// Not established yet; only at the side that connects.
  var isConnecting: Bool
  private var inbox = ByteQueue()
  private var outbox = ByteQueue()

  init(_ descriptor: consuming OwnedDescriptor, isConnecting: Bool) {
    self.descriptor = descriptor
    self.isConnecting = isConnecting
  }

  /// Something waits to be written.
  var hasOutput: Bool { !outbox.isEmpty }

  /// Sends `message` now or, as far as there is no room, when the channel is writable.
  func send(_ message: [UInt8]) throws(SystemError) {
    message.withUnsafeBytes { outbox.append($0) }
    try flush()
  }

  func flush() throws(SystemError) {
    while !outbox.isEmpty {
      switch outbox.withBytes({ StreamSocket.write(descriptor.rawValue, $0) }) {
      case .bytes(let count): outbox.removeFirst(count)
      case .notNow, .ended: return
      case .failed(let code): throw SystemError("send", code: code)
      }
    }
  }

  /// Reads what is there.
  ///
  /// - Returns: `false` once the other side has closed.
  func receive(_ buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Bool {
    switch StreamSocket.read(descriptor.rawValue, into: buffer) {
    case .bytes(let count): inbox.append(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
    case .notNow: break
    case .ended: return false
    case .failed(let code): throw SystemError("read", code: code)
    }
    return true
  }

  /// The next whole offer that was received.
  func nextOffer() throws(ChannelMessageError) -> OfferMessage? {
    let parsed = try inbox.withBytes { (bytes) throws(ChannelMessageError) in try OfferMessage.parse(bytes) }
    guard let (message, byteCount) = parsed else { return nil }
    inbox.removeFirst(byteCount)
    return message
  }

  /// The next whole answer that was received.
  func nextAnswer() throws(ChannelMessageError) -> AnswerMessage? {
    let parsed = try inbox.withBytes { (bytes) throws(ChannelMessageError) in try AnswerMessage.parse(bytes) }
    guard let (message, byteCount) = parsed else { return nil }
    inbox.removeFirst(byteCount)
    return message
  }
}

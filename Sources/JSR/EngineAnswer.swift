import Control
import Descriptors
import Replication
import Synchronization

/// What the engine answered to one request, on its way from the reading thread to the task that asked.
///
/// A class, because a continuation can carry no value that must not be copied, and descriptors must not.
final class EngineAnswer: Sendable {
  let body: ControlReply.Body
  private let descriptors: Mutex<DescriptorParcel>

  init(_ body: ControlReply.Body, descriptors: consuming DescriptorParcel) {
    self.body = body
    self.descriptors = Mutex(descriptors)
  }

  /// Takes out the next descriptor as a socket.
  ///
  /// - Throws: `.misunderstood` if the engine sent fewer than the protocol says.
  func takeSocket() throws(JSRError) -> Socket {
    let number = descriptors.withLock { descriptors -> Int32? in
      guard let descriptor = descriptors.takeFirst() else { return nil }
      return descriptor.release()
    }
    guard let number else { throw .misunderstood("a descriptor is missing") }
    return Socket(owning: number)
  }

  /// Checks that the engine did what it was asked for and had nothing to say.
  func requireDone() throws(JSRError) {
    guard case .done = body else { throw Self.unexpected }
  }

  /// The handle that was asked for.
  func requireHandle() throws(JSRError) -> Handle {
    guard case .handle(let handle) = body else { throw Self.unexpected }
    return handle
  }

  /// The snoop pair that was asked for.
  func takePair() throws(JSRError) -> SnoopPair {
    let handle = try requireHandle()
    let rcv = try takeSocket()
    let snd = try takeSocket()
    return SnoopPair(handle: handle, rcv: rcv, snd: snd)
  }

  /// The channel for records of a socket that was asked for.
  func requireRecordSender(_ handle: Handle) throws(JSRError) -> RecordSender {
    guard case .recordChannel(let limit) = body else { throw Self.unexpected }
    return try RecordSender(handle, takeSocket(), limit: limit)
  }

  static var unexpected: JSRError { .misunderstood("another answer came than the one that was asked for") }
}

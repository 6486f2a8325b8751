import CLinux
import Descriptors
import Glibc
import Synchronization

/// Brings messages from tasks to the thread of a loop, which waits for `descriptor` to become readable.
final class Mailbox<Message: Sendable>: Sendable {
  private let messages = Mutex<[Message]>([])
  private let signal: OwnedDescriptor

  init() throws(SystemError) {
    signal = try OwnedDescriptor(
      returnedBy: "eventfd", eventfd(0, Int32(O_CLOEXEC) | Int32(O_NONBLOCK)))
  }

  /// Readable while there are messages.
  var descriptor: Int32 { signal.rawValue }

  func post(_ message: Message) {
    let isFirst = messages.withLock { messages in
      messages.append(message)
      return messages.count == 1
    }
    guard isFirst else { return }
    var one: UInt64 = 1
    _ = write(signal.rawValue, &one, MemoryLayout<UInt64>.size)
  }

  /// Everything posted since the last call, in order.
  func takeAll() -> [Message] {
    var count: UInt64 = 0
    _ = read(signal.rawValue, &count, MemoryLayout<UInt64>.size)
    return messages.withLock { messages in
      defer { messages = [] }
      return messages
    }
  }
}

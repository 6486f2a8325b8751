import Synchronization

/// An answer that one thread waits for and another one brings.
final class AwaitedAnswer: Sendable {
  private let value = Mutex<EngineConnection.Answer?>(nil)
  private let semaphore = ThreadSemaphore()

  /// Brings the answer; once.
  func put(_ answer: EngineConnection.Answer) {
    value.withLock { $0 = answer }
    semaphore.post()
  }

  /// Waits until the answer is there.
  func wait() { _ = semaphore.wait(until: nil) }

  /// - Returns: whether the answer came in time.
  func wait(for time: Duration) -> Bool { semaphore.wait(until: ThreadSemaphore.deadline(after: time)) }

  /// What came; only after a wait that ended with it.
  var answer: EngineConnection.Answer {
    guard let answer = value.withLock(\.self) else {
      preconditionFailure("the answer is taken before it is there")
    }
    return answer
  }
}

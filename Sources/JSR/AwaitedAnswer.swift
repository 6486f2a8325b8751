import CLinux
import Glibc
import Synchronization

/// An answer that one thread waits for and another one brings.
final class AwaitedAnswer: Sendable {
  private let value = Mutex<EngineConnection.Answer?>(nil)
  /// A semaphore has an address, which must stay the same.
  nonisolated(unsafe) private let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)

  init() { sem_init(semaphore, 0, 0) }

  deinit {
    sem_destroy(semaphore)
    semaphore.deallocate()
  }

  /// Brings the answer; once.
  func put(_ answer: EngineConnection.Answer) {
    value.withLock { $0 = answer }
    sem_post(semaphore)
  }

  /// Waits until the answer is there.
  func wait() {
    while sem_wait(semaphore) != 0 {
      precondition(errno == EINTR, "a semaphore of one's own can be waited for")
    }
  }

  /// - Returns: whether the answer came in time.
  func wait(for time: Duration) -> Bool {
    var deadline = timespec()
    clock_gettime(CLOCK_MONOTONIC, &deadline)
    let (seconds, attoseconds) = time.components
    deadline.tv_nsec += Int(attoseconds / 1_000_000_000)
    deadline.tv_sec += Int(seconds) + deadline.tv_nsec / 1_000_000_000
    deadline.tv_nsec %= 1_000_000_000
    while jsr_semaphore_wait(semaphore, &deadline) != 0 {
      if errno == ETIMEDOUT { return false }
      precondition(errno == EINTR, "a semaphore of one's own can be waited for")
    }
    return true
  }

  /// What came; only after a wait that ended with it.
  var answer: EngineConnection.Answer {
    guard let answer = value.withLock(\.self) else {
      preconditionFailure("the answer is taken before it is there")
    }
    return answer
  }
}

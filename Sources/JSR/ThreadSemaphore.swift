import CLinux
import Glibc

/// What a thread waits for until another one posts it.
final class ThreadSemaphore: Sendable {
  /// A semaphore has an address, which must stay the same.
  nonisolated(unsafe) private let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)

  init() { sem_init(semaphore, 0, 0) }

  deinit {
    sem_destroy(semaphore)
    semaphore.deallocate()
  }

  func post() { sem_post(semaphore) }

  /// The time of `CLOCK_MONOTONIC` that is `time` from now.
  static func deadline(after time: Duration) -> timespec {
    var deadline = timespec()
    clock_gettime(CLOCK_MONOTONIC, &deadline)
    let (seconds, attoseconds) = time.components
    deadline.tv_nsec += Int(attoseconds / 1_000_000_000)
    deadline.tv_sec += Int(seconds) + deadline.tv_nsec / 1_000_000_000
    deadline.tv_nsec %= 1_000_000_000
    return deadline
  }

  /// Waits until it is posted, for ever without a deadline.
  ///
  /// - Returns: whether that was in time.
  func wait(until deadline: timespec?) -> Bool {
    while true {
      if var deadline {
        if jsr_semaphore_wait(semaphore, &deadline) == 0 { return true }
        if errno == ETIMEDOUT { return false }
      } else if sem_wait(semaphore) == 0 {
        return true
      }
      precondition(errno == EINTR, "a semaphore of one's own can be waited for")
    }
  }
}

import Foundation
import Glibc
import Synchronization

/// A system call that may have to wait, on a thread of its own. The thread blocks no signal; those of Dispatch do,
/// and hand that down to threads that they start.
final class WaitingCall: Sendable {
  private let outcome = Mutex<(result: Int, code: Int32)?>(nil)

  /// - Parameter body: returns what the call returned; `errno` is taken right after it.
  init(_ body: @escaping @Sendable () -> Int) {
    Thread.detachNewThread { [self] in
      var none = sigset_t()
      sigemptyset(&none)
      pthread_sigmask(SIG_SETMASK, &none, nil)
      errno = 0
      let result = body()
      let code = errno
      outcome.withLock { $0 = (result, code) }
    }
  }

  var isOver: Bool { outcome.withLock { $0 != nil } }

  /// What it returned, and `errno`.
  func result(within time: Duration = .seconds(5)) async throws -> (result: Int, code: Int32) {
    try await eventually(within: time, "a call that waits returns") { outcome.withLock(\.self) }
  }
}

import Descriptors
import Glibc

/// SIGINT and SIGTERM as something that a loop asks for.
///
/// The signals are blocked for the thread that makes this, and for every thread that starts later: make it
/// before anything that starts threads, or the default action ends the process (sigtimedwait(2)).
struct TerminationSignals: Sendable {
  private let signals: sigset_t

  init() throws(SystemError) {
    var signals = sigset_t()
    sigemptyset(&signals)
    sigaddset(&signals, SIGINT)
    sigaddset(&signals, SIGTERM)
    let result = pthread_sigmask(SIG_BLOCK, &signals, nil)
    guard result == 0 else { throw SystemError("pthread_sigmask", code: result) }
    self.signals = signals
  }

  /// Takes a signal that has come; `false` if none has.
  func take() -> Bool {
    var signals = signals
    var atOnce = timespec()
    return sigtimedwait(&signals, nil, &atOnce) > 0
  }
}

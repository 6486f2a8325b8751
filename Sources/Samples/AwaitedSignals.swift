import Descriptors
import Glibc

/// Signals as something that a loop asks for.
///
/// They are blocked for the thread that makes this, and for every thread that starts later: make it before
/// anything that starts threads, or the default action ends the process (sigtimedwait(2)).
struct AwaitedSignals: Sendable {
  private let signals: sigset_t

  init(_ numbers: Int32...) throws(SystemError) {
    var signals = sigset_t()
    sigemptyset(&signals)
    for number in numbers { sigaddset(&signals, number) }
    let result = pthread_sigmask(SIG_BLOCK, &signals, nil)
    guard result == 0 else { throw SystemError("pthread_sigmask", code: result) }
    self.signals = signals
  }

  /// Takes a signal that has come; `nil` if none has.
  func take() -> Int32? {
    var signals = signals
    var atOnce = timespec()
    let number = sigtimedwait(&signals, nil, &atOnce)
    return number > 0 ? number : nil
  }
}

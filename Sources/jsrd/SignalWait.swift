import Glibc

/// Waits for one of some signals, which must be blocked in every thread, on a thread of its own.
final class SignalWait: Sendable {
  private let signals: sigset_t
  private let received: @Sendable (Int32) -> Void

  init(_ signals: sigset_t, _ received: @escaping @Sendable (Int32) -> Void) {
    self.signals = signals
    self.received = received
  }

  func start() {
    var thread = pthread_t()
    let argument = Unmanaged.passRetained(self).toOpaque()
    pthread_create(
      &thread, nil,
      { argument in
        guard let argument else { return nil }
        let wait = Unmanaged<SignalWait>.fromOpaque(argument).takeRetainedValue()
        var signals = wait.signals
        var number: Int32 = 0
        while sigwait(&signals, &number) != 0 {}
        wait.received(number)
        return nil
      }, argument)
    pthread_detach(thread)
  }
}

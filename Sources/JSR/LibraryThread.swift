import CLinux
import Descriptors
import Glibc

/// Threads of the library in the application's process.
enum LibraryThread {
  /// Starts a thread that leaves all signals to the threads of the application.
  ///
  /// - Parameter name: what debuggers show, in at most 15 bytes.
  /// - Returns: the thread, which the caller joins or detaches.
  static func start(
    named name: String, _ body: @escaping @Sendable () -> Void
  ) throws(SystemError) -> pthread_t {
    final class Body: Sendable {
      let name: String
      let run: @Sendable () -> Void
      init(_ name: String, _ run: @escaping @Sendable () -> Void) {
        self.name = name
        self.run = run
      }
    }
    let argument = Unmanaged.passRetained(Body(name, body))
    // Inherited by the thread: there is no moment in which it takes a signal.
    var all = sigset_t()
    var before = sigset_t()
    sigfillset(&all)
    pthread_sigmask(SIG_SETMASK, &all, &before)
    defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
    var thread = pthread_t()
    let code = pthread_create(
      &thread, nil,
      { argument in
        guard let argument else { return nil }
        let body = Unmanaged<Body>.fromOpaque(argument).takeRetainedValue()
        jsr_name_thread(body.name)
        body.run()
        return nil
      }, argument.toOpaque())
    guard code == 0 else {
      argument.release()
      throw SystemError("pthread_create", code: code)
    }
    return thread
  }
}

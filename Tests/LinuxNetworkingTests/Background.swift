import Descriptors
import Glibc
import Synchronization

/// Work on a thread of its own, whose outcome is collected later, once.
final class Background<Value: Sendable>: Sendable {
  private let outcome: Outcome<Value>
  private let thread: pthread_t

  init(_ body: @escaping @Sendable () throws -> Value) {
    let outcome = Outcome(body)
    var thread = pthread_t()
    let status = pthread_create(
      &thread, nil,
      { argument in
        guard let argument else { return nil }
        (Unmanaged<AnyObject>.fromOpaque(argument).takeRetainedValue() as? any Runnable)?.run()
        return nil
      }, Unmanaged.passRetained(outcome as AnyObject).toOpaque())
    precondition(status == 0, "pthread_create: \(SystemError("pthread_create", code: status))")
    self.outcome = outcome
    self.thread = thread
  }

  func join() throws -> Value {
    pthread_join(thread, nil)
    return try outcome.result()
  }
}

private protocol Runnable: AnyObject { func run() }

private final class Outcome<Value: Sendable>: Runnable, Sendable {
  private let body: @Sendable () throws -> Value
  private let value = Mutex<Result<Value, any Error>?>(nil)

  init(_ body: @escaping @Sendable () throws -> Value) { self.body = body }

  func run() {
    let result = Result { try body() }
    value.withLock { $0 = result }
  }

  func result() throws -> Value {
    guard let result = value.withLock({ $0 }) else { throw SystemError("pthread_join", code: ESRCH) }
    return try result.get()
  }
}

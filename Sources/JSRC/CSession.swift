import Descriptors
import Glibc
import JSR
import Synchronization

/// What a `jsr_session` of C points to.
final class CSession: Sendable {
  static let defaultTimeout = Duration.seconds(30)
  /// Milliseconds.
  static let timeoutRange: ClosedRange<Int64> = 1...86_400_000

  let session: BlockingSession
  /// Lives as long as the session, and so can be lent to C.
  let node: CString
  let engineVersion: CString
  private let process = getpid()
  private let timeoutMilliseconds: Atomic<Int64>
  /// -1 until somebody asks; a child process must not take the lock of the event buffer to find out.
  private let eventNumber = Atomic<Int32>(-1)

  init(_ session: BlockingSession) {
    self.session = session
    node = CString(session.node)
    engineVersion = CString(session.engineVersion)
    timeoutMilliseconds = Atomic(Int64(Self.defaultTimeout / .milliseconds(1)))
  }

  /// The session was opened by this process, and not by the one that it was forked from.
  var isOurs: Bool { getpid() == process }

  var timeout: Duration {
    get { .milliseconds(timeoutMilliseconds.load(ordering: .relaxed)) }
    set { timeoutMilliseconds.store(Int64(newValue / .milliseconds(1)), ordering: .relaxed) }
  }

  func eventDescriptor() throws(SystemError) -> Int32 {
    let number = try session.eventDescriptor()
    eventNumber.store(number, ordering: .relaxed)
    return number
  }

  /// In a child process: closes what would keep the session alive without its owner. No lock is taken: who
  /// held one in the parent is not there to give it back.
  func abandon() {
    for number in session.descriptors { _ = Glibc.close(number) }
    let number = eventNumber.load(ordering: .relaxed)
    if number >= 0 { _ = Glibc.close(number) }
  }
}

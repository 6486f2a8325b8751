import Descriptors
import Glibc
import Synchronization

/// Waits for the record channels of a process, on one thread for all of them.
final class RecordReactor: Sendable {
  private let monitor: ReadinessMonitor
  private let senders: Senders

  private final class Senders: Sendable {
    let all = Mutex<[ReadinessMonitor.Token: RecordSender]>([:])
  }

  /// Made when the first channel is opened, and kept for the life of the process.
  private static let shared = Mutex<RecordReactor?>(nil)

  /// A child process has the reactor of its parent, but not its thread.
  private let process = getpid()

  static func get() throws(SystemError) -> RecordReactor {
    try shared.withLock { shared throws(SystemError) in
      if let shared, shared.process == getpid() { return shared }
      let new = try RecordReactor()
      shared = new
      return new
    }
  }

  private init() throws(SystemError) {
    let senders = Senders()
    self.senders = senders
    monitor = try ReadinessMonitor { token, events in
      senders.all.withLock { $0[token] }?.becameReady(events)
    }
  }

  func add(_ sender: RecordSender) throws(SystemError) -> ReadinessMonitor.Token {
    try senders.all.withLock { all throws(SystemError) in
      let token = try monitor.add(sender.descriptor, .read)
      all[token] = sender
      return token
    }
  }

  func rearm(_ token: ReadinessMonitor.Token, _ events: ReadinessMonitor.Events) {
    // What can fail here is memory of the kernel's; the next call of the application goes on with the channel.
    try? monitor.rearm(token, events)
  }

  func remove(_ token: ReadinessMonitor.Token) {
    senders.all.withLock { $0[token] = nil }
    monitor.remove(token)
  }
}

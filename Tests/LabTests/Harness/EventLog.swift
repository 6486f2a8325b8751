import JSR
import Synchronization

/// What one session has been told, in order, from the first event on.
final class EventLog: Sendable {
  private let state = Mutex<[Event]>([])
  private let title: String

  /// Takes the session's events from now on; those that wait already come first.
  init(_ title: String, of session: Session) {
    self.title = title
    let stream = session.events
    Task { [weak self] in
      for await event in stream { self?.state.withLock { $0.append(event) } }
    }
  }

  var events: [Event] { state.withLock { $0 } }

  /// Waits until `event` has come.
  func wait(for event: Event, within time: Duration = .seconds(10)) async throws {
    try await eventually(within: time, "\(title) is told '\(event)'; was told \(events.suffix(8))") {
      events.contains(event)
    }
  }

  /// Waits until there are `count` events.
  func wait(forCount count: Int, within time: Duration = .seconds(10)) async throws {
    try await eventually(within: time, "\(title) is told \(count) events, not \(events.count)") {
      events.count >= count
    }
  }
}

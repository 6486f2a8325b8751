import CLinux
import Descriptors
import Glibc
import Synchronization

/// Events between the thread that reads them from the engine and the task, or thread, that takes them.
///
/// Holds at most `limit` events. Those that come when it is full are counted, and the count takes their
/// place in the order; the last event, `engineGone`, is never dropped.
package final class EventBuffer: Sendable {
  static let limit = 16_384

  /// What there is to be taken at one moment.
  package enum Taken: Hashable, Sendable {
    case event(Event)
    case nothingYet
    /// The last event was taken.
    case ended
  }

  private struct State: ~Copyable {
    /// Readable while there is something to take; made for the first who wants to poll it.
    var signal: OwnedDescriptor?
    var events: [Event] = []
    /// How many of `events` were taken already.
    var taken = 0
    var ended = false
    var readers: [(number: UInt64, continuation: CheckedContinuation<Event?, Never>)] = []
    var nextReader: UInt64 = 0

    var isEmpty: Bool { taken == events.count }

    var signalNumber: Int32? {
      switch signal {
      case .some(let descriptor): descriptor.rawValue
      case .none: nil
      }
    }

    /// Makes `signal` readable, or not, as there is something to take.
    func updateSignal() {
      guard let descriptor = signalNumber else { return }
      if !isEmpty || ended {
        eventfd_write(descriptor, 1)
      } else {
        var count = eventfd_t()
        eventfd_read(descriptor, &count)
      }
    }

    mutating func takeFirst() -> Event? {
      guard taken < events.count else { return nil }
      let event = events[taken]
      taken += 1
      // Moving the rest down once in a while costs less than doing so for each event.
      if taken == events.count || taken >= EventBuffer.limit {
        events.removeFirst(taken)
        taken = 0
      }
      return event
    }
  }

  private let state = Mutex(State())

  /// A descriptor that is readable as long as `take` has something to give, and for ever after the end. It
  /// belongs to the buffer.
  func descriptor() throws(SystemError) -> Int32 {
    try state.withLock { state throws(SystemError) in
      if let descriptor = state.signalNumber { return descriptor }
      let made = try OwnedDescriptor(
        returnedBy: "eventfd", eventfd(0, Int32(EFD_NONBLOCK | EFD_CLOEXEC)))
      let descriptor = made.rawValue
      state.signal = consume made
      state.updateSignal()
      return descriptor
    }
  }

  /// Takes the next event, without waiting.
  func take() -> Taken {
    state.withLock { state in
      if let event = state.takeFirst() {
        if state.isEmpty { state.updateSignal() }
        return .event(event)
      }
      return state.ended ? .ended : .nothingYet
    }
  }

  /// Puts an event behind the others.
  func append(_ event: Event) {
    let reader = state.withLock { state -> CheckedContinuation<Event?, Never>? in
      let wasEmpty = state.isEmpty
      defer { if wasEmpty, !state.isEmpty { state.updateSignal() } }
      guard !state.ended else { return nil }
      if !state.readers.isEmpty { return state.readers.removeFirst().continuation }
      if state.taken < state.events.count, case .missed(let before) = state.events[state.events.count - 1] {
        // Still full, or the engine missed some in the same place.
        if case .missed(let more) = event {
          state.events[state.events.count - 1] = .missed(count: before + more)
          return nil
        }
        if state.events.count - state.taken > Self.limit {
          state.events[state.events.count - 1] = .missed(count: before + 1)
          return nil
        }
      } else if state.events.count - state.taken >= Self.limit {
        if case .missed = event {
          state.events.append(event)
        } else {
          state.events.append(.missed(count: 1))
        }
        return nil
      }
      state.events.append(event)
      return nil
    }
    reader?.resume(returning: event)
  }

  /// Lets readers end after `engineGone`.
  func end() {
    let readers = state.withLock { state -> [CheckedContinuation<Event?, Never>] in
      guard !state.ended else { return [] }
      state.ended = true
      state.events.append(.engineGone)
      var waiting = state.readers.map(\.continuation)
      state.readers = []
      // Readers wait only while there is nothing: the first of them gets the last event.
      if !waiting.isEmpty {
        _ = state.takeFirst()
        waiting.removeFirst().resume(returning: .engineGone)
      }
      state.updateSignal()
      return waiting
    }
    for reader in readers { reader.resume(returning: nil) }
  }

  /// The next event; `nil` after the last, or when the task is cancelled.
  func next() async -> Event? {
    let number = state.withLock { state in
      state.nextReader += 1
      return state.nextReader
    }
    return await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let ready = state.withLock { state -> Event?? in
          if let event = state.takeFirst() { return .some(event) }
          if state.ended || Task.isCancelled { return .some(nil) }
          state.readers.append((number, continuation))
          return nil
        }
        if let ready { continuation.resume(returning: ready) }
      }
    } onCancel: {
      let reader = state.withLock { state -> CheckedContinuation<Event?, Never>? in
        guard let index = state.readers.firstIndex(where: { $0.number == number }) else { return nil }
        return state.readers.remove(at: index).continuation
      }
      reader?.resume(returning: nil)
    }
  }
}

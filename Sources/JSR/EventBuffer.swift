import Synchronization

/// Events between the thread that reads them from the engine and the task that takes them.
///
/// Holds at most `limit` events. Those that come when it is full are counted, and the count takes their
/// place in the order; the last event, `engineGone`, is never dropped.
final class EventBuffer: Sendable {
  static let limit = 16_384

  private struct State {
    var events: [Event] = []
    /// How many of `events` were taken already.
    var taken = 0
    var ended = false
    var readers: [(number: UInt64, continuation: CheckedContinuation<Event?, Never>)] = []
    var nextReader: UInt64 = 0

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

  /// Puts an event behind the others.
  func append(_ event: Event) {
    let reader = state.withLock { state -> CheckedContinuation<Event?, Never>? in
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

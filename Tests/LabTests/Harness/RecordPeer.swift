import JSR
import Synchronization
import Testing

/// A peer that reads records as long as it is told to, and checks them.
final class RecordPeer: Sendable {
  private struct State {
    var checker: RecordChecker
    var isPaused = false
    var isStopped = false
    var hasEnded = false
    var failure: String?
    var byteCount = 0
  }

  private let state: Mutex<State>
  private let stream: StreamEnd

  init(_ stream: consuming StreamEnd, expecting records: RecordStream) {
    self.stream = stream
    state = Mutex(State(checker: RecordChecker(records)))
  }

  /// Reads until `stop` is called or the stream ends.
  func run() async {
    while !Task.isCancelled, !state.withLock({ $0.isStopped || $0.hasEnded || $0.failure != nil }) {
      if state.withLock({ $0.isPaused }) {
        try? await Task.sleep(for: .milliseconds(2))
        continue
      }
      do {
        guard let bytes = try stream.readAvailable(1 << 20) else {
          state.withLock { $0.hasEnded = true }
          return
        }
        if bytes.isEmpty { try await Task.sleep(for: .milliseconds(1)) }
        state.withLock {
          $0.checker.take(bytes)
          $0.byteCount += bytes.count
        }
      } catch {
        state.withLock { $0.failure = "\(error)" }
      }
    }
  }

  func pause(_ isPaused: Bool) { state.withLock { $0.isPaused = isPaused } }
  func stop() { state.withLock { $0.isStopped = true } }

  /// Whole records that have come.
  var count: Int { state.withLock { $0.checker.count } }
  var byteCount: Int { state.withLock { $0.byteCount } }
  var isBetweenRecords: Bool { state.withLock { $0.checker.isBetweenRecords } }
  /// What is wrong with what has come.
  var problem: String? {
    state.withLock { $0.checker.problem ?? $0.failure ?? ($0.hasEnded ? "the stream ended" : nil) }
  }
}

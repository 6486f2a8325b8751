/// Why a call that a thread waits for came to nothing.
package enum CallFailure: Error, Hashable, Sendable {
  case failed(JSRError)
  /// The engine did not answer in time, and the session has been ended.
  case timedOut
}

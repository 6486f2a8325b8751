/// Asks `condition` every 20 ms until it holds.
///
/// - Parameters:
///   - time: How long to go on asking.
///   - wanted: Completes the sentence "within 5 seconds …" when it never holds.
/// - Throws: ``LabFailure`` when the time is over; whatever `condition` throws.
func eventually(
  within time: Duration, _ wanted: @autoclosure () -> String, _ condition: () async throws -> Bool
) async throws {
  let clock = ContinuousClock()
  let end = clock.now + time
  while true {
    if try await condition() { return }
    guard clock.now < end else { throw LabFailure("not within \(time): \(wanted())") }
    try await Task.sleep(for: .milliseconds(20))
  }
}

/// Like ``eventually(within:_:_:)``, for a condition that yields what was waited for.
func eventually<Value>(
  within time: Duration, _ wanted: @autoclosure () -> String, _ value: () async throws -> Value?
) async throws -> Value {
  var found: Value?
  try await eventually(within: time, wanted()) {
    found = try await value()
    return found != nil
  }
  guard let found else { throw LabFailure("not within \(time): \(wanted())") }
  return found
}

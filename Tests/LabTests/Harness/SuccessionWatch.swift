import Testing

/// The proof that there never were two masters: all that either routing engine put on the wire for the
/// replicated address while mastership went from one to the other, once.
struct SuccessionWatch: Sendable {
  private let old: ClaimWatch
  private let new: ClaimWatch

  init(from old: RoutingEngine, to new: RoutingEngine) async throws {
    self.old = try await ClaimWatch(of: old.node, in: old.lab)
    self.new = try await ClaimWatch(of: new.node, in: new.lab)
  }

  /// Ends the watch, and checks that the new master spoke only after the last word of the old one. Both must
  /// be plugged in.
  ///
  /// - Returns: The last word of the old master.
  @discardableResult
  func finish() async throws -> Capture.Packet {
    let last = try #require(try await old.finish().last, "the old master never spoke")
    let first = try #require(try await new.finish().first, "the new master never spoke")
    #expect(last.time < first.time, "two masters: \(last) came after \(first)")
    return last
  }
}

/// Fault injection: keeps back the acknowledgement of records of some layers, and so, since positions are
/// acknowledged cumulatively, of everything behind the first of them.
///
/// Either RE can do it. The secondary does not say how far it is; the primary does not hear it. To act on fewer
/// acknowledgements than there are breaks no promise: it is what a slow secondary looks like.
struct AcknowledgementHold {
  private struct HeldLayer {
    var layer: Layer
    /// Of the first record that is kept back; `nil` before there is one.
    var first: LogPosition?
  }

  /// Empty unless a fault is being injected.
  private var held: [HeldLayer] = []

  /// Holds the acknowledgement of records of `layer`.
  ///
  /// - Parameter first: of the oldest such record that is not acknowledged; `nil` if there is none.
  mutating func begin(_ layer: Layer, from first: LogPosition?) {
    guard !held.contains(where: { $0.layer == layer }) else { return }
    held.append(HeldLayer(layer: layer, first: first))
  }

  /// Lets go of what was held for `layer`.
  mutating func end(_ layer: Layer) { held.removeAll { $0.layer == layer } }

  /// There is a record of `layer` at `position`, behind all others.
  mutating func note(_ layer: Layer, at position: LogPosition) {
    guard let place = held.firstIndex(where: { $0.layer == layer && $0.first == nil }) else { return }
    held[place].first = position
  }

  /// The last position up to `position` that may be acknowledged.
  func permitted(_ position: LogPosition) -> LogPosition {
    held.reduce(position) { least, held in held.first.map { min(least, $0 - 1) } ?? least }
  }

  /// The positions begin anew; the layers stay held.
  mutating func restart() {
    for place in held.indices { held[place].first = nil }
  }

  /// Whether records of `layer` are kept back.
  func isHeld(_ layer: Layer) -> Bool { held.contains { $0.layer == layer } }
}

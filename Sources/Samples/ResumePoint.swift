/// Where a connection stands at a moment at which everything read has been answered as far as it can be,
/// and everything answered has been acknowledged: the little that another instance must know to go on.
struct ResumePoint: Hashable, Sendable {
  /// Bytes read from the peer.
  var inputPosition: UInt64
  /// Bytes sent to the peer.
  var outputPosition: UInt64
  /// The header at hand, as the peer sent it, perhaps not complete.
  var header: PartialHeader
  /// With a complete header: how many payload bytes are still to be read (or, for a source, to be sent).
  var remaining: UInt32

  static let start = ResumePoint(inputPosition: 0, outputPosition: 0, header: PartialHeader(), remaining: 0)

  /// No message is under way: the positions say everything.
  var isBetweenMessages: Bool { header.count == 0 }
}

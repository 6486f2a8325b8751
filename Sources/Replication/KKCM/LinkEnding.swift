/// How a link came to its end, as this RE sees it.
public enum LinkEnding: Sendable, Hashable, CaseIterable, CustomStringConvertible {
  /// The other side ended the stream, and all it said before was heard. If it did not say why, its engine is no
  /// more: the kernel has ended the connection for it.
  case endOfStream
  /// The connection was reset: by the other side, which may have said more, or on the way.
  case reset
  /// This side ended it, or gave it up.
  case closedHere
  /// The cable, or the other machine, is gone.
  case carrierLost

  /// It shows that something has happened to the other RE or to the path, where silence alone only lasts.
  var isEvident: Bool { self != .closedHere }

  public var description: String {
    switch self {
    case .endOfStream: "ended by the other RE"
    case .reset: "reset by the other RE"
    case .closedHere: "ended by this RE"
    case .carrierLost: "no carrier"
    }
  }
}

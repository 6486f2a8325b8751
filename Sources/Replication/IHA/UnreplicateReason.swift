/// Why a socket is no longer replicated.
public enum UnreplicateReason: UInt8, Error, Sendable, Hashable, CaseIterable, CustomStringConvertible {
  case requested = 1
  /// Both directions were closed in order.
  case closed
  /// The connection was reset, or the kernel gave it up.
  case reset
  case linkLost
  case prlTimeout
  case sdrlTimeout
  case psrmTimeout
  /// The secondary's application reads too slowly.
  case snoopBufferFull
  /// The secondary's application is gone.
  case applicationGone
  /// The secondary could not follow what the primary said.
  case diverged
  /// A limit of the secondary's configuration.
  case limitReached
  /// No snoop pair waits for this socket on the secondary.
  case notAttached
  /// This RE stopped being the primary.
  case mastershipLost
  case merged
  /// Mastership was handed over, and the other RE did not take it: the connection went on here.
  case handoverFailed
  /// An operator asked for it, not the application.
  case requestedByOperator
  /// In record mode the application wrote to its socket itself.
  case plainWrite
  /// In record mode the socket took no more, with records still to be written: the application has shut it down.
  case recordsCutShort
  /// The snoop pair that waits on the secondary is for a socket of another transport protocol.
  case wrongTransport
  /// The socket is of a routing instance that the secondary has not.
  case unknownInstance

  public var description: String {
    switch self {
    case .requested: "requested"
    case .closed: "closed"
    case .reset: "reset"
    case .linkLost: "link lost"
    case .prlTimeout: "PRL timeout"
    case .sdrlTimeout: "SDRL timeout"
    case .psrmTimeout: "PSRM timeout"
    case .snoopBufferFull: "snoop buffer full"
    case .applicationGone: "secondary application gone"
    case .diverged: "secondary out of step"
    case .limitReached: "limit reached on the secondary"
    case .notAttached: "no snoop pair attached on the secondary"
    case .mastershipLost: "mastership lost"
    case .merged: "merged"
    case .handoverFailed: "handover failed"
    case .requestedByOperator: "requested by an operator"
    case .plainWrite: "plain write in record mode"
    case .recordsCutShort: "output ended before all records were written"
    case .wrongTransport: "the snoop pair on the secondary is for another transport protocol"
    case .unknownInstance: "routing instance not configured on the secondary"
    }
  }

  static func timeout(of layer: Layer) -> Self {
    switch layer {
    case .prl: .prlTimeout
    case .sdrl: .sdrlTimeout
    case .psrm, .iha, .kkcm, .mastership: .psrmTimeout
    }
  }
}

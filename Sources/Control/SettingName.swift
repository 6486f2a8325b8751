/// What `set` and `get` know, by the names that people type. Values are written as in the configuration file.
public enum SettingName: String, Sendable, Hashable, CaseIterable {
  case prlTimeout = "prl.timeout"
  case sdrlTimeout = "sdrl.timeout"
  case psrmTimeout = "psrm.timeout"
  case mode
  case logLevel = "log.level"
  case onApplicationFailure = "on-application-failure"
  case debug
  /// The layers whose acknowledgements are held (`holdAcknowledgements`), with commas, or `none`.
  case heldAcknowledgements = "debug.hold-acks"
  case socketLimit = "limits.sockets"
  case snoopBufferLimit = "limits.snoop-buffer"
  case holdBufferLimit = "limits.hold-buffer"
  case recordLimit = "limits.record"

  /// Whether `set` changes it.
  public var isChangedBySet: Bool {
    switch self {
    case .prlTimeout, .sdrlTimeout, .psrmTimeout: true
    default: false
    }
  }

  /// How it is changed, as the end of a sentence that begins with the name.
  public var wayToChange: String {
    switch self {
    case .prlTimeout, .sdrlTimeout, .psrmTimeout: "is changed by `jsrctl set`"
    case .logLevel: "is changed by `jsrctl log level`"
    case .heldAcknowledgements: "is changed by `jsrctl debug hold-acks`"
    case .debug, .onApplicationFailure:
      "is not changed by set: change the configuration file and send jsrd SIGHUP"
    case .mode, .socketLimit, .snoopBufferLimit, .holdBufferLimit, .recordLimit:
      "is not changed while the engine runs: change the configuration file and restart jsrd"
    }
  }

  /// The refusal of a name that nobody knows.
  public static func unknown(_ name: String) -> ControlError {
    ControlError(
      .unknownSetting,
      "there is no setting \"\(name)\"; there are \(allCases.map(\.rawValue).joined(separator: ", "))")
  }
}

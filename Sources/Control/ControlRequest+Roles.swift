extension ControlRequest.Body {
  /// Whether a client of this role may ask for it.
  public func isAllowed(to role: ControlRequest.ClientRole) -> Bool {
    switch self {
    case .hello, .unreplicate, .status, .subscribe, .show, .master, .get: true
    case .allocate, .free, .attach, .replicate, .merge, .close, .beginRecords, .registerService,
      .unregisterService, .requestReplication, .acceptReplication, .declineReplication:
      role == .application
    case .set, .logLevel, .holdAcknowledgements: role == .operator
    }
  }
}

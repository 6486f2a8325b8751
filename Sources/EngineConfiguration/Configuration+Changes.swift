extension Configuration {
  /// Which keys of the file another configuration has otherwise.
  public struct Changes: Sendable, Hashable {
    /// Those that a running engine takes over.
    public var atOnce: [String] = []
    /// Those that need a new start.
    public var afterRestart: [String] = []

    public var isEmpty: Bool { atOnce.isEmpty && afterRestart.isEmpty }
  }

  /// What would change if `new` were in force.
  public func changes(to new: Configuration) -> Changes {
    let atOnce: [(String, Bool)] = [
      ("timeouts.prl", timeouts.prl == new.timeouts.prl),
      ("timeouts.sdrl", timeouts.sdrl == new.timeouts.sdrl),
      ("timeouts.psrm", timeouts.psrm == new.timeouts.psrm),
      ("log.level", log.level == new.log.level),
      ("on-application-failure", onApplicationFailure == new.onApplicationFailure),
      ("debug", debug == new.debug),
      ("link.tls", link.security.isTLS != new.link.security.isTLS || link.security == new.link.security),
    ]
    let afterRestart: [(String, Bool)] = [
      ("node", node == new.node), ("slot", slot == new.slot),
      ("link.listen", link.listen == new.link.listen),
      ("link.connect", link.connect == new.link.connect),
      ("link.min-version", link.versions.lowerBound == new.link.versions.lowerBound),
      ("link.max-version", link.versions.upperBound == new.link.versions.upperBound),
      ("link.insecure", link.security.isTLS == new.link.security.isTLS),
      ("addresses", addresses == new.addresses), ("uplinks", uplinks == new.uplinks),
      ("instances", instances == new.instances),
      ("mastership.arbiter", mastership.arbiter == new.mastership.arbiter),
      ("mastership.priority", mastership.priority == new.mastership.priority),
      ("mastership.keepalive.interval", mastership.keepalive.interval == new.mastership.keepalive.interval),
      ("mastership.keepalive.misses", mastership.keepalive.misses == new.mastership.keepalive.misses),
      ("control", control == new.control), ("mode", mode == new.mode),
      ("busy-poll", busyPoll == new.busyPoll),
      ("limits.sockets", limits.sockets == new.limits.sockets),
      ("limits.snoop-buffer", limits.snoopBuffer == new.limits.snoopBuffer),
      ("limits.hold-buffer", limits.holdBuffer == new.limits.holdBuffer),
      ("limits.record", limits.record == new.limits.record),
      ("log.destination", log.destination == new.log.destination),
    ]
    func different(_ keys: [(String, Bool)]) -> [String] { keys.filter { !$0.1 }.map(\.0) }
    return Changes(atOnce: different(atOnce), afterRestart: different(afterRestart))
  }
}

extension Configuration.LinkSecurity {
  fileprivate var isTLS: Bool { self != .insecure }
}

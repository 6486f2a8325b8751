extension StatusReport {
  /// For people: a line for each fact.
  public var text: String {
    let contact = peer.linkUp ? "link up" + (peer.linkVersion.map { " (version \($0))" } ?? "") : "link down"
    let step = peer.inStep ? "in step" : "not in step"
    let facts: [(String, String)] = [
      ("node", "\(node) (slot \(slot))"),
      ("role", role.rawValue),
      ("mastership", mastership),
      ("lease", lease.rawValue),
      ("term", "\(term)"),
      ("peer", "\(peer.node ?? "unknown") (slot \(peer.slot)), \(contact), \(peer.role.rawValue), \(step)"),
      ("arbiter", arbiter),
      ("mode", mode),
      ("addresses", addresses.joined(separator: ", ")),
      ("uplinks", uplinks.map { "\($0.name) (\($0.running ? "running" : "down"))" }.joined(separator: ", ")),
      ("version", version),
      ("uptime", "\(uptimeMilliseconds / 1000) s"),
    ]
    return facts.map { name, value in
      name + String(repeating: " ", count: 12 - name.count) + value
    }.joined(separator: "\n")
  }
}

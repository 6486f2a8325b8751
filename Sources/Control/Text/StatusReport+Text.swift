extension StatusReport {
  /// For people: a line for each fact.
  public var text: String {
    let contact = peer.linkUp ? "link up" + (peer.linkVersion.map { " (version \($0))" } ?? "") : "link down"
    let step = peer.inStep ? "in step" : "not in step"
    let security =
      switch linkSecurity {
      case .tls:
        "TLS, certificate until \(certificateExpires ?? "unknown"), CA until \(authorityExpires ?? "unknown")"
      case .insecure: "insecure: plain text"
      }
    let facts: [(String, String)] = [
      ("node", "\(node) (slot \(slot))"),
      ("role", role.rawValue),
      ("mastership", mastership),
      ("lease", lease.rawValue),
      ("term", "\(term)"),
      ("peer", "\(peer.node ?? "unknown") (slot \(peer.slot)), \(contact), \(peer.role.rawValue), \(step)"),
      ("link", security),
      ("arbiter", arbiter),
      ("mode", mode),
      ("addresses", addresses.joined(separator: ", ")),
      ("uplinks", Self.list(uplinks)),
      ("version", version),
      ("uptime", "\(uptimeMilliseconds / 1000) s"),
    ]
    let others = (instances ?? []).map { instance in
      let place = instance.vrf.map { "vrf \($0)" } ?? instance.namespace ?? "unknown"
      return (
        "instance",
        "\(instance.name) (\(place)): \(instance.addresses.joined(separator: ", ")) on \(Self.list(instance.uplinks))"
      )
    }
    return (facts + others).map { name, value in
      name + String(repeating: " ", count: 12 - name.count) + value
    }.joined(separator: "\n")
  }

  private static func list(_ uplinks: [Uplink]) -> String {
    uplinks.map { "\($0.name) (\($0.running ? "running" : "down"))" }.joined(separator: ", ")
  }
}

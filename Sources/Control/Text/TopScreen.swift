import Replication

/// What `jsrctl top` draws: a screen of text of a given size, made from two samples and the last events.
public struct TopScreen: Sendable {
  /// Columns and lines.
  public let width: Int
  public let height: Int

  /// - Parameters:
  ///   - width: at least 1.
  ///   - height: at least 1.
  public init(width: Int, height: Int) {
    precondition(width > 0 && height > 0, "a screen has room for a character")
    self.width = width
    self.height = height
  }

  /// Lines on which events are shown.
  private static let eventLines = 5

  /// The screen: at most `height` lines of at most `width` characters.
  ///
  /// - Parameters:
  ///   - before: the sample that rates are counted from; without it there are none.
  ///   - events: lines that tell what has happened, the oldest first.
  public func lines(_ now: TopSample, after before: TopSample?, events: [String]) -> [String] {
    let head = head(now) + [""] + rates(now, before) + [""]
    let shown = events.suffix(Self.eventLines)
    let tail = shown.isEmpty ? [] : [""] + shown
    var table = connections(now)
    let room = height - head.count - tail.count
    if table.count > max(room, 0) {
      let left = max(room - 1, 0)
      let hidden = table.count - left
      table = Array(table.prefix(left))
      if room > 0 { table.append("… \(hidden) more") }
    }
    return fitted(head + table + tail)
  }

  /// The screen while the engine cannot be asked.
  public func lines(unreachable reason: String, events: [String]) -> [String] {
    fitted([reason, "trying again every second", ""] + events.suffix(Self.eventLines))
  }

  private func fitted(_ lines: [String]) -> [String] {
    lines.prefix(height).map { String($0.prefix(width)) }
  }

  // MARK: The parts

  private func head(_ now: TopSample) -> [String] {
    let status = now.status
    let peer = status.peer
    let contact = peer.linkUp ? "link up" : "link DOWN"
    let step = peer.inStep ? "in step" : "NOT in step"
    let uplinks = status.uplinks.map { "\($0.name) \($0.running ? "running" : "DOWN")" }
    return [
      "\(status.node): \(status.role.rawValue), lease \(status.lease.rawValue), term \(status.term), "
        + "up \(status.uptimeMilliseconds / 1000) s",
      "peer \(peer.node ?? "unknown"): \(peer.role.rawValue), \(contact), \(step)   "
        + (status.addresses + uplinks).joined(separator: ", "),
    ]
  }

  private func rates(_ now: TopSample, _ before: TopSample?) -> [String] {
    /// Per second, between the samples; a count that has fallen is that of an engine which was started anew.
    func rate(_ layer: String, _ name: String) -> String {
      guard let before else { return "-" }
      let time = now.status.uptimeMilliseconds - before.status.uptimeMilliseconds
      let count = now.figure(layer, name) - before.figure(layer, name)
      guard time > 0, count >= 0 else { return "-" }
      return "\(count * 1000 / time)"
    }
    func level(_ name: String) -> String {
      guard let area = now.area(name) else { return "-" }
      return Self.bytes(area.used) + (area.limit.map { " of \(Self.bytes($0))" } ?? "")
    }
    let replicated = now.sockets.count { $0.state == .replicating || $0.state == .snooping }
    return [
      "sockets \(now.sockets.count), replicated \(replicated)   "
        + "packets/s in \(rate("prl", "packets")), out \(rate("sdrl", "packets"))   "
        + "records/s sent SDRL \(rate("sdrl", "records")), PRL \(rate("prl", "records")), "
        + "PSRM \(rate("psrm", "records")), received \(rate("kkcm", "records_received"))",
      "held \(level("hold_buffer"))   log \(level("replication_log"))   snoop \(level("snoop_buffers"))   "
        + "resident \(level("resident"))",
    ]
  }

  /// In the largest unit that leaves a whole number before the point, with one digit behind it.
  private static func bytes(_ count: Int64) -> String {
    let units: [(Int64, String)] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
    guard let (unit, name) = units.first(where: { count >= $0.0 }) else { return "\(count) B" }
    return "\(count / unit).\(count % unit * 10 / unit) \(name)"
  }

  private func connections(_ now: TopSample) -> [String] {
    var table = TextTable([
      ("Handle", .left), ("Role", .left), ("Foreign", .left), ("State", .left), ("Recv-Q", .right),
      ("Send-Q", .right), ("snd_una", .right), ("rcv_nxt", .right), ("snd_wnd", .right),
      ("Application", .left),
    ])
    let applications = Dictionary(now.sockets.map { ($0.handle, $0.application) }) { first, _ in first }
    // Those that have something under way first.
    let busiest = now.connections.sorted {
      ($0.sendQueue + $0.receiveQueue, $1.handle.rawValue) > (
        $1.sendQueue + $1.receiveQueue, $0.handle.rawValue
      )
    }
    func cell(_ value: UInt32?) -> String { value.map { "\($0)" } ?? "-" }
    for connection in busiest.prefix(height) {
      table.append([
        connection.handle.description, connection.role.rawValue, connection.foreign, connection.state,
        "\(connection.receiveQueue)", "\(connection.sendQueue)", cell(connection.sendUnacknowledged),
        cell(connection.receiveNext), cell(connection.sendWindow), applications[connection.handle] ?? "",
      ])
    }
    let lines = table.text.split(separator: "\n").map(String.init)
    // What no screen of this height shows is counted without being laid out.
    return lines + Array(repeating: "", count: busiest.count - min(busiest.count, height))
  }
}

extension StatusReport {
  /// The name of the routing instance that the engine itself is in.
  public static let mainInstance = "main"

  public func has(instance name: String) -> Bool {
    name == Self.mainInstance || instances?.contains { $0.name == name } ?? false
  }
}

extension ControlReply.Body {
  /// What of a report is about one routing instance.
  public func only(instance name: String) -> Self {
    func isMeant(_ instance: String?) -> Bool { (instance ?? StatusReport.mainInstance) == name }
    switch self {
    case .status(var report):
      if name == StatusReport.mainInstance {
        report.instances = nil
      } else if let instance = report.instances?.first(where: { $0.name == name }) {
        report.instances = [instance]
        report.addresses = []
        report.uplinks = []
      }
      return .status(report)
    case .sockets(let reports): return .sockets(reports.filter { isMeant($0.instance) })
    case .connections(let reports): return .connections(reports.filter { isMeant($0.instance) })
    // A figure without an instance is about all of them.
    case .statistics(let reports): return .statistics(reports.filter { $0.instance == name })
    case .done, .welcome, .handle, .socket, .memory, .setting, .recordChannel: return self
    }
  }
}

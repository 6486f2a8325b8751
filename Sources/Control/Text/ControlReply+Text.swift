import Replication

extension ControlReply.Body {
  /// For people; empty for an answer that says nothing but that it was done.
  public var text: String {
    switch self {
    case .done: ""
    case .welcome(let welcome): "\(welcome.node) (slot \(welcome.slot)), version \(welcome.engineVersion)"
    case .handle(let handle): handle.description
    case .status(let report): report.text
    case .socket(let report): SocketReport.table([report])
    case .sockets(let reports): SocketReport.table(reports)
    case .connections(let reports): ConnectionReport.table(reports)
    case .statistics(let reports): StatisticsReport.table(reports)
    case .memory(let reports): MemoryReport.table(reports)
    case .setting(let report): report.value
    case .recordChannel(let limit): "records of up to \(limit) bytes"
    }
  }

  /// For programs: the answer alone as one JSON document on one line; a report on many things is an array.
  public func document() throws(ControlError) -> String {
    let bytes =
      switch self {
      case .done: try ControlJSON.encode([String: String]())
      case .welcome(let welcome): try ControlJSON.encode(welcome)
      case .handle(let handle): try ControlJSON.encode(["handle": handle])
      case .status(let report): try ControlJSON.encode(report)
      case .socket(let report): try ControlJSON.encode(report)
      case .sockets(let reports): try ControlJSON.encode(reports)
      case .connections(let reports): try ControlJSON.encode(reports)
      case .statistics(let reports): try ControlJSON.encode(reports)
      case .memory(let reports): try ControlJSON.encode(reports)
      case .setting(let report): try ControlJSON.encode(report)
      case .recordChannel(let limit): try ControlJSON.encode(["limit": limit])
      }
    return String(decoding: bytes, as: UTF8.self)
  }
}

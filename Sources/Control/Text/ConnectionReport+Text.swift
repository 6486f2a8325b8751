import Replication

extension ConnectionReport {
  /// For people: a table with a line for each connection, in the manner of `netstat`.
  public static func table(_ connections: [ConnectionReport]) -> String {
    // Where there is only one there is no need to name it.
    let hasInstances = connections.contains { $0.instance != nil }
    var columns: [TextTable.Column] = [
      ("Proto", .left), ("Recv-Q", .right), ("Send-Q", .right), ("Local", .left), ("Foreign", .left),
      ("State", .left), ("Role", .left), ("Handle", .left), ("snd_una", .right), ("snd_nxt", .right),
      ("rcv_nxt", .right), ("snd_wnd", .right), ("rcv_wnd", .right), ("mss", .right), ("wscale", .right),
      ("Options", .left),
    ]
    if hasInstances { columns.append(("Instance", .left)) }
    var table = TextTable(columns)
    for connection in connections {
      let scale = [connection.sendWindowScale, connection.receiveWindowScale]
        .map { $0.map { "\($0)" } ?? "-" }.joined(separator: ",")
      let options = [
        connection.sack == true ? "sack" : nil, connection.timestamps == true ? "ts" : nil,
      ].compactMap(\.self)
      func cell(_ value: (some BinaryInteger)?) -> String { value.map { "\($0)" } ?? "-" }
      let row = [
        connection.proto, "\(connection.receiveQueue)", "\(connection.sendQueue)", connection.local,
        connection.foreign, connection.state, connection.role.rawValue, connection.handle.description,
        cell(connection.sendUnacknowledged), cell(connection.sendNext), cell(connection.receiveNext),
        cell(connection.sendWindow), cell(connection.receiveWindow), cell(connection.maximumSegmentSize),
        scale,
        options.isEmpty ? "-" : options.joined(separator: ","),
      ]
      table.append(hasInstances ? row + [connection.instance ?? StatusReport.mainInstance] : row)
    }
    return table.text
  }
}

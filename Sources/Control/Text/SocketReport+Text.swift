import Replication

extension SocketReport {
  /// For people: a table with a line for each socket. A layer shows its last log position, or `-` if it holds
  /// nothing for the socket.
  public static func table(_ sockets: [SocketReport]) -> String {
    // Where there is only one there is no need to name it.
    let hasInstances = sockets.contains { $0.instance != nil }
    var columns: [TextTable.Column] = [
      ("Handle", .left), ("Peer handle", .left), ("Role", .left), ("State", .left), ("Application", .left),
      ("Proto", .left), ("Local", .left), ("Foreign", .left), ("SDRL", .right), ("PRL", .right),
      ("PSRM", .right),
    ]
    if hasInstances { columns.append(("Instance", .left)) }
    var table = TextTable(columns)
    func position(_ layer: Layer) -> String { layer.initialized ? "\(layer.logPosition)" : "-" }
    for socket in sockets {
      let row = [
        socket.handle.description, socket.peerHandle?.description ?? "-", socket.role.rawValue,
        socket.state.rawValue, socket.application, socket.proto ?? "-", socket.local ?? "-",
        socket.foreign ?? "-", position(socket.sdrl), position(socket.prl), position(socket.psrm),
      ]
      table.append(hasInstances ? row + [socket.instance ?? StatusReport.mainInstance] : row)
    }
    return table.text
  }
}

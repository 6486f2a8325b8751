import Replication

extension SocketReport {
  /// For people: a table with a line for each socket. A layer shows its last log position, or `-` if it holds
  /// nothing for the socket.
  public static func table(_ sockets: [SocketReport]) -> String {
    var table = TextTable([
      ("Handle", .left), ("Peer handle", .left), ("Role", .left), ("State", .left), ("Application", .left),
      ("Proto", .left), ("Local", .left), ("Foreign", .left), ("SDRL", .right), ("PRL", .right),
      ("PSRM", .right),
    ])
    func position(_ layer: Layer) -> String { layer.initialized ? "\(layer.logPosition)" : "-" }
    for socket in sockets {
      table.append([
        socket.handle.description, socket.peerHandle?.description ?? "-", socket.role.rawValue,
        socket.state.rawValue, socket.application, socket.proto ?? "-", socket.local ?? "-",
        socket.foreign ?? "-", position(socket.sdrl), position(socket.prl), position(socket.psrm),
      ])
    }
    return table.text
  }
}

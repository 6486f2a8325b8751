/// A TCP socket as `ss -tino` shows it: what the kernel itself says of a connection.
struct KernelSocket: Sendable, CustomStringConvertible {
  let state: String
  let receiveQueue: Int
  let sendQueue: Int
  let local: String
  let foreign: String
  /// `name:value` words of the second line, such as `wscale:7,7`, `mss:1448`, `bytes_acked:112`.
  let values: [String: String]
  /// Options agreed on by both ends.
  let options: [String]

  /// The local end, of an IPv6 socket that speaks IPv4 too in the form of IPv4.
  var localEnd: String {
    guard local.hasPrefix("[::ffff:") else { return local }
    return local.dropFirst("[::ffff:".count).split(separator: "]").joined()
  }

  var description: String {
    "\(local)-\(foreign) \(state), unread \(receiveQueue), unacknowledged \(sendQueue)"
  }

  /// What must not change when a connection moves to another kernel.
  var agreement: [String] {
    options + [values["wscale"] ?? "no wscale", values["mss"] ?? "no mss"]
  }

  /// - Parameters:
  ///   - line: `ESTAB 0 0 5.5.5.5:16000 5.5.5.4:40000`, with brackets around addresses of IPv6
  ///   - details: The line behind it.
  init?(_ line: String, details: String) {
    let words = line.split(separator: " ").map(String.init)
    guard words.count >= 5, let receiveQueue = Int(words[1]), let sendQueue = Int(words[2]) else {
      return nil
    }
    state = words[0]
    self.receiveQueue = receiveQueue
    self.sendQueue = sendQueue
    local = words[3]
    foreign = words[4]
    let details = details.split(whereSeparator: { $0 == " " || $0 == "\t" })
    values = Dictionary(
      details.compactMap { word in
        word.firstIndex(of: ":").map {
          (String(word[..<$0]), String(word[word.index(after: $0)...]))
        }
      }
    ) { first, _ in first }
    options = ["ts", "sack", "wscale"].filter { name in
      details.contains { $0 == name || $0.hasPrefix(name + ":") }
    }
  }

  /// Asks the kernel of `node` for its connections with the port of the echo server.
  static func all(on node: Node, in lab: Lab) async throws -> [KernelSocket] {
    let lines = try await lab.run(
      ["ss", "-tinoH", "sport", "=", ":16000", "or", "dport", "=", ":16000"], on: node)
    return zip(lines, lines.dropFirst()).compactMap { line, details in
      details.first?.isWhitespace == true ? KernelSocket(fromState(line), details: details) : nil
    }
  }

  /// The line without what may stand before its first word: `ss` prints the keys of signed sockets at once,
  /// and so before the lines that it has put together.
  private static func fromState(_ line: String) -> String {
    let start = states.compactMap { line.firstRange(of: $0)?.lowerBound }.min()
    return start.map { String(line[$0...]) } ?? line
  }

  private static let states = [
    "ESTAB", "SYN-SENT", "SYN-RECV", "FIN-WAIT-1", "FIN-WAIT-2", "CLOSE-WAIT", "LAST-ACK", "CLOSING",
    "TIME-WAIT", "UNCONN",
  ]
}

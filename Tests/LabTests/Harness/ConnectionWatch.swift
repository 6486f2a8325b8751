/// Everything on the peer's link that begins or ends a connection with the replicated address: the proof
/// that no connection was reset or closed but by its peer.
struct ConnectionWatch: Sendable {
  /// A SYN, FIN or RST.
  struct Event: Sendable, CustomStringConvertible {
    let time: Double
    /// `5.5.5.4.40000` or `2001:db8:5::4.40000`, as tcpdump prints it.
    let source: String
    let destination: String
    let flags: String
    let description: String

    var isFromPeer: Bool { Family.allCases.contains { source.hasPrefix($0.peer + ".") } }
    /// The peer's end of the connection.
    var peer: String { isFromPeer ? source : destination }
    var isReset: Bool { flags.contains("R") }
    var isFin: Bool { flags.contains("F") }
    var isSyn: Bool { flags.contains("S") }
  }

  private let capture: Capture

  /// - Parameter onSecondSwitch: Watches the peer's second cable instead of the first.
  init(in lab: Lab, onSecondSwitch: Bool = false) async throws {
    capture = try await Capture(
      onSecondSwitch ? "capture-peer-1" : "capture-peer", in: lab, port: .peer,
      onSecondSwitch: onSecondSwitch,
      filter: Family.captureFilter(flags: Family.syn | Family.fin | Family.rst))
  }

  /// What was seen so far.
  var events: [Event] { Self.events(of: capture.packets) }

  /// Ends the watch.
  /// - Throws: ``LabFailure`` if it cannot have seen everything.
  func finish() async throws -> [Event] { Self.events(of: try await capture.finish()) }

  private static func events(of packets: [Capture.Packet]) -> [Event] {
    // IP 5.5.5.4.40000 > 5.5.5.5.16000: Flags [S], seq 1, …, or IP6.
    packets.compactMap { packet in
      let words = packet.description.split(separator: " ", maxSplits: 6)
      guard words.count >= 6, ["IP", "IP6"].contains(words[0]), words[2] == ">", words[4] == "Flags" else {
        return nil
      }
      return Event(
        time: packet.time, source: String(words[1]), destination: String(words[3].dropLast()),
        flags: String(words[5]), description: packet.description)
    }
  }
}

extension [ConnectionWatch.Event] {
  var connectionCount: Int { Set(filter { $0.isSyn && $0.isFromPeer }.map(\.peer)).count }
  var resets: [ConnectionWatch.Event] { filter(\.isReset) }

  /// FINs that the replicated address sent although the peer had not closed that connection.
  var unaskedFins: [ConnectionWatch.Event] {
    var closed: Set<String> = []
    return filter { event in
      guard event.isFin else { return false }
      if event.isFromPeer {
        closed.insert(event.peer)
        return false
      }
      return !closed.contains(event.peer)
    }
  }
}

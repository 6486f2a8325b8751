/// Where the two streams of a connection stand, as seen on the wire.
struct SequenceNumbers: Sendable {
  /// The end of the last segment with data, each way.
  var endOfLocal: UInt32
  var endOfForeign: UInt32
  /// The last acknowledgement, each way.
  var acknowledgedByLocal: UInt32
  var acknowledgedByForeign: UInt32
}

extension [Capture.Packet] {
  /// Reads what `tcpdump -S` printed of one connection, whose ends are given as `address:port`.
  func lastNumbers(between local: String, and foreign: String) throws -> SequenceNumbers {
    // `5.5.5.5:16000` is 5.5.5.5.16000 there, and `[2001:db8:5::5]:16000` 2001:db8:5::5.16000.
    func dotted(_ end: String) -> String {
      guard let colon = end.lastIndex(of: ":") else { return end }
      return end[..<colon].filter { !"[]".contains($0) } + "." + end[end.index(after: colon)...]
    }
    func number(after name: String, in text: String) -> UInt32? {
      // `seq 1000:1112, ack 2000,` or `seq 1000, ack 2000,`: the number behind the last colon is the end.
      guard let range = text.firstRange(of: " \(name) ") else { return nil }
      return text[range.upperBound...].prefix { $0 != "," }.split(separator: ":").last.flatMap { UInt32($0) }
    }
    func last(_ name: String, from source: String, to destination: String) throws -> UInt32 {
      let direction = "\(dotted(source)) > \(dotted(destination)):"
      for packet in reversed() where packet.description.contains(direction) {
        if let number = number(after: name, in: packet.description) {
          // The SYN takes one number and is all there is if no data followed.
          return packet.description.contains("[S") && name == "seq" ? number &+ 1 : number
        }
      }
      throw LabFailure("the capture shows no \(name) of \(direction)")
    }
    return SequenceNumbers(
      endOfLocal: try last("seq", from: local, to: foreign),
      endOfForeign: try last("seq", from: foreign, to: local),
      acknowledgedByLocal: try last("ack", from: local, to: foreign),
      acknowledgedByForeign: try last("ack", from: foreign, to: local))
  }
}

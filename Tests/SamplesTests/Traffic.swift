@testable import Samples

/// Makes the streams that tests feed to both sides.
enum Traffic {
  typealias Kind = MessageHeader.Kind

  /// What the peer sends: the messages, with pattern payloads where they belong.
  static func requests(_ messages: [(kind: Kind, length: UInt32)], connection: UInt16 = 3) -> [UInt8] {
    let pattern = TrafficPattern(connection: connection, direction: .fromPeer)
    var stream: [UInt8] = []
    for (number, message) in messages.enumerated() {
      let header = MessageHeader(
        payloadByteCount: message.length, number: UInt32(number), connection: connection,
        kind: message.kind, answeredBy: MessageHeader.notAnswered)
      header.withBytes { stream.append(contentsOf: $0) }
      for _ in 0..<header.requestPayloadByteCount { stream.append(pattern.byte(at: UInt64(stream.count))) }
    }
    return stream
  }

  /// What a server with `slot` answers, made here message by message, and not by what is tested.
  static func answers(
    _ messages: [(kind: Kind, length: UInt32)], slot: UInt8, connection: UInt16 = 3
  ) -> [UInt8] {
    let requests = requests(messages, connection: connection)
    let pattern = TrafficPattern(connection: connection, direction: .fromServer)
    var stream: [UInt8] = []
    var position = 0
    for message in messages {
      stream += requests[position..<position + 11] + [slot]
      position += 12
      switch message.kind {
      case .echo:
        stream += requests[position..<position + Int(message.length)]
        position += Int(message.length)
      case .sink: position += Int(message.length)
      case .source:
        for _ in 0..<message.length { stream.append(pattern.byte(at: UInt64(stream.count))) }
      }
    }
    return stream
  }

  /// The positions in `answers` of the bytes in which a server names itself.
  static func namePositions(_ messages: [(kind: Kind, length: UInt32)]) -> [Int] {
    var positions: [Int] = []
    var start = 0
    for message in messages {
      positions.append(start + MessageHeader.answeredByOffset)
      start += MessageHeader.byteCount + (message.kind == .sink ? 0 : Int(message.length))
    }
    return positions
  }

  /// One of everything, short enough to be cut at every byte.
  static let mixture: [(kind: Kind, length: UInt32)] = [
    (.echo, 9), (.sink, 7), (.source, 11), (.echo, 0), (.echo, 3), (.source, 0), (.sink, 0), (.echo, 2),
  ]
}

extension Conversation {
  /// Feeds all of `input` in pieces of at most `step` bytes and returns the answer.
  mutating func answer(_ input: some Collection<UInt8>, step: Int = .max) throws -> [UInt8] {
    var output = ByteQueue()
    var answer: [UInt8] = []
    var rest = Array(input)[...]
    while true {
      let piece = Array(rest.prefix(step))
      let used = try piece.withUnsafeBytes {
        try consume($0, into: &output, outputLimit: 64, sourceLimit: 5, onMessage: { _ in })
      }
      rest = rest.dropFirst(used)
      output.withBytes { answer.append(contentsOf: $0) }
      let made = output.count
      output.removeFirst(made)
      if rest.isEmpty, made == 0, used == 0 { return answer }
    }
  }
}

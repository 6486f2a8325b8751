/// A reply as the messages that carry it, made one at a time.
///
/// A report on 20,000 connections is more than 10 MB of JSON. Making it takes so long that the engine could
/// not do it in one piece without holding up traffic, and it should not lie in memory either while a client
/// reads slowly. A page is made when there is room to send it.
public struct ReplyPages: Sendable {
  private enum Content: Sendable {
    case whole
    case list(next: Int, count: Int)
    case finished
  }

  private let reply: ControlReply
  private var content: Content

  public init(_ reply: ControlReply) {
    self.reply = reply
    content =
      switch reply.outcome {
      case .success(.sockets(let list)): .list(next: 0, count: list.count)
      case .success(.connections(let list)): .list(next: 0, count: list.count)
      case .success(.statistics(let list)): .list(next: 0, count: list.count)
      default: .whole
      }
  }

  /// The next message, at most `ControlProtocol.messageLimit` bytes; `nil` after the last.
  ///
  /// A reply that cannot be written as JSON, or an element too long for a message, is a fault in this program
  /// and becomes an error reply.
  public mutating func next() -> [UInt8]? {
    do {
      switch content {
      case .finished:
        return nil
      case .whole:
        content = .finished
        if let message = reply.flatMessage { return message }
        return try checked(ControlJSON.encode(reply))
      case .list(let start, let count):
        return try page(from: start, count: count)
      }
    } catch {
      content = .finished
      let refusal = ControlReply(
        id: reply.id,
        outcome: .failure(ControlError(.oversized, "the reply does not fit the protocol: \(error)")))
      return try? ControlJSON.encode(refusal)
    }
  }

  private mutating func page(from start: Int, count: Int) throws -> [UInt8] {
    // The frame around the elements is what an empty list of the same kind looks like. `[]` occurs in it once.
    func frame(more: Bool) throws -> (head: [UInt8], tail: [UInt8]) {
      var empty = reply
      empty.more = more
      switch reply.outcome {
      case .success(.sockets): empty.outcome = .success(.sockets([]))
      case .success(.connections): empty.outcome = .success(.connections([]))
      default: empty.outcome = .success(.statistics([]))
      }
      let bytes = try ControlJSON.encode(empty)
      let close = bytes.firstIndex(of: UInt8(ascii: "]")) ?? bytes.endIndex
      return ([UInt8](bytes[..<close]), [UInt8](bytes[close...]))
    }
    let full = try frame(more: false)
    // One byte is the difference between `true` and `false`.
    let room = ControlProtocol.messageLimit - full.head.count - full.tail.count - 1
    var body: [UInt8] = []
    var index = start
    while index < count {
      let element = try encodeElement(index)
      guard body.count + 1 + element.count <= room else { break }
      if !body.isEmpty { body.append(UInt8(ascii: ",")) }
      body += element
      index += 1
    }
    guard index > start || count == 0 else {
      throw ControlError(.oversized, "element \(start) is longer than a message")
    }
    let last = index == count
    content = last ? .finished : .list(next: index, count: count)
    let (head, tail) = last ? full : try frame(more: true)
    return try checked(head + body + tail)
  }

  private func encodeElement(_ index: Int) throws -> [UInt8] {
    switch reply.outcome {
    case .success(.sockets(let list)): try ControlJSON.encode(list[index])
    case .success(.connections(let list)): try ControlJSON.encode(list[index])
    case .success(.statistics(let list)): try ControlJSON.encode(list[index])
    default: []
    }
  }

  private func checked(_ message: [UInt8]) throws -> [UInt8] {
    guard message.count <= ControlProtocol.messageLimit else {
      throw ControlError(.oversized, "\(message.count) bytes are more than a message holds")
    }
    return message
  }
}

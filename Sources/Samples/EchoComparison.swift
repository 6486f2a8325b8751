import Glibc

/// Compares what the primary was seen to send with what it should send, byte for byte, message by message.
///
/// The only byte that may differ is the one in which the primary names itself. Messages are told apart by
/// what is expected, so one wrong byte does not derail the rest.
struct EchoComparison: Sendable {
  /// An answer that has been shown to its end.
  struct Message: Hashable, Sendable {
    /// As expected, but with the slot that was shown.
    var header: MessageHeader
    /// Where the shown bytes first differed, counted from the start of the header; `nil` if nowhere.
    var firstDifference: UInt32?
  }

  private var header = PartialHeader()
  private var remaining: UInt32 = 0
  private var answeredBy = MessageHeader.notAnswered
  private var offset: UInt32 = 0
  private var firstDifference: UInt32?

  /// Starts where the output of `conversation` stands.
  init(startingAt conversation: Conversation) {
    guard let (header, remaining) = conversation.answerUnderWay, remaining > 0 else { return }
    self.header = header.withBytes { PartialHeader($0, count: $0.count) }
    self.remaining = remaining
    offset = UInt32(MessageHeader.byteCount) &+ (header.payloadByteCount - remaining)
  }

  /// The answer of which some bytes, but not all, have been shown, and how many.
  var messageUnderWay: (number: UInt32?, shown: UInt32)? {
    offset == 0 ? nil : (header.header?.number, offset)
  }

  /// Takes from the front of `expected` what `shown` has too.
  ///
  /// - Returns: how many bytes of `shown` were compared: all, unless `expected` ran out.
  mutating func compare(
    _ shown: UnsafeRawBufferPointer, with expected: inout ByteQueue, onMessage: (Message) -> Void
  ) -> Int {
    let count = min(shown.count, expected.count)
    var position = 0
    expected.withBytes { expected in
      while position < count {
        let shownRest = UnsafeRawBufferPointer(rebasing: shown[position..<count])
        let expectedRest = UnsafeRawBufferPointer(rebasing: expected[position..<count])
        position += step(shownRest, expectedRest)
        if header.isComplete, remaining == 0 { finish(onMessage) }
      }
    }
    expected.removeFirst(count)
    return count
  }

  private mutating func step(_ shown: UnsafeRawBufferPointer, _ expected: UnsafeRawBufferPointer) -> Int {
    let taken: Int
    if header.isComplete {
      taken = min(Int(remaining), shown.count)
      note(differenceOf: shown, expected, count: taken)
      remaining -= UInt32(taken)
    } else {
      let had = header.count
      taken = header.append(expected)
      let slotIndex = MessageHeader.answeredByOffset - had
      note(differenceOf: shown, expected, count: min(taken, slotIndex))
      if slotIndex < taken {
        answeredBy = shown[slotIndex]
        if answeredBy > 1, firstDifference == nil {
          firstDifference = UInt32(MessageHeader.answeredByOffset)
        }
      }
      if let header = header.header { remaining = header.answerPayloadByteCount }
    }
    offset &+= UInt32(taken)
    return taken
  }

  private mutating func note(
    differenceOf shown: UnsafeRawBufferPointer, _ expected: UnsafeRawBufferPointer, count: Int
  ) {
    guard firstDifference == nil, count > 0 else { return }
    guard let left = shown.baseAddress, let right = expected.baseAddress, memcmp(left, right, count) != 0
    else {
      return
    }
    let difference = (0..<count).first { shown[$0] != expected[$0] } ?? 0
    firstDifference = offset &+ UInt32(difference)
  }

  private mutating func finish(_ onMessage: (Message) -> Void) {
    guard var message = header.header else {
      preconditionFailure("expected output consists of whole headers")
    }
    message.answeredBy = answeredBy
    onMessage(Message(header: message, firstDifference: firstDifference))
    header = PartialHeader()
    offset = 0
    firstDifference = nil
    answeredBy = MessageHeader.notAnswered
  }
}

import Descriptors
import Glibc

/// One connection of the peer: makes its messages, checks every byte of the answers, and keeps the time.
///
/// Knows nothing of sockets: what is to be sent is taken from `output`, what comes is given to `received`.
final class PeerConnection {
  /// Why a connection is over before its time.
  enum Failure: Error, CustomStringConvertible {
    case header(message: UInt32, offset: UInt64)
    case mismatch(message: UInt32, offset: UInt32, displacement: Int?)
    case unasked(message: UInt32, offset: UInt64)

    var description: String {
      switch self {
      case .header(let message, let offset):
        "what should be the header of answer \(message), at byte \(offset) of the stream, is something else"
      case .mismatch(let message, let offset, let displacement):
        switch displacement {
        case .none: "answer \(message) is wrong from byte \(offset) of its payload on"
        case .some(let bytes) where bytes > 0:
          "answer \(message) lacks \(bytes) bytes at byte \(offset) of its payload"
        case .some(let bytes): "answer \(message) repeats \(-bytes) bytes at byte \(offset) of its payload"
        }
      case .unasked(let message, let offset):
        "answer \(message), at byte \(offset) of the stream, was never asked for"
      }
    }
  }

  /// A message that was answered.
  struct Answer {
    var number: UInt32
    var answeredBy: UInt8
    /// Nanoseconds from its first byte to the last one of the answer.
    var roundTrip: UInt64
  }

  /// What is kept ready to be written, in bytes.
  private static let outputByteCount = 128 * 1024
  /// How far a displaced byte is searched for, in bytes: only to tell what happened.
  private static let displacementReach = 64 * 1024

  let number: UInt16
  private let kind: MessageHeader.Kind
  private let length: UInt32
  private let pipeline: Int
  private let messages: UInt32
  private let sentPattern: TrafficPattern
  private let answerPattern: TrafficPattern

  /// Made, not written yet.
  private(set) var output = ByteQueue()
  private var payloadLeft: UInt32 = 0
  private var sentPosition: UInt64 = 0
  private(set) var begun: UInt32 = 0

  private var header = PartialHeader()
  private var answerLeft: UInt32 = 0
  private var isAnswerRepeated = false
  private(set) var receivedPosition: UInt64 = 0
  /// When the messages that are not answered yet were begun, the oldest first.
  private var beginnings: [UInt64] = []
  private var oldest: UInt32 = 0

  private(set) var answered: UInt64 = 0
  private(set) var repeated: UInt64 = 0
  private(set) var longestGap: UInt64 = 0
  private var lastProgress: UInt64 = 0
  /// No message is begun before this time, in nanoseconds.
  var notBefore: UInt64 = 0

  init(number: UInt16, kind: MessageHeader.Kind, length: UInt32, messages: UInt32, pipeline: Int) {
    self.number = number
    self.kind = kind
    self.length = length
    self.messages = messages
    self.pipeline = pipeline
    sentPattern = TrafficPattern(connection: number, direction: .fromPeer)
    answerPattern = TrafficPattern(
      connection: number, direction: kind == .source ? .fromServer : .fromPeer)
  }

  /// Messages whose answers are still to come.
  var outstanding: Int { beginnings.count }
  /// All messages have been begun.
  var hasBegunAll: Bool { messages != 0 && begun == messages }
  /// The last message that was begun is not in `output` to its end yet.
  var isInsideMessage: Bool { payloadLeft > 0 }

  /// Makes as much output as may be made at this time.
  func fill(now: UInt64, mayBegin: Bool) {
    while output.count < Self.outputByteCount {
      if payloadLeft > 0 {
        let made = min(Int(payloadLeft), Self.outputByteCount)
        output.append(count: made) { [sentPattern, sentPosition] in sentPattern.fill($0, from: sentPosition) }
        sentPosition += UInt64(made)
        payloadLeft -= UInt32(made)
      } else if mayBegin, !hasBegunAll, outstanding < pipeline, now >= notBefore {
        let header = MessageHeader(
          payloadByteCount: length, number: begun, connection: number, kind: kind,
          answeredBy: MessageHeader.notAnswered)
        header.withBytes { output.append($0) }
        sentPosition += UInt64(MessageHeader.byteCount)
        payloadLeft = header.requestPayloadByteCount
        if beginnings.isEmpty { lastProgress = now }
        beginnings.append(now)
        begun &+= 1
      } else {
        return
      }
    }
  }

  /// Bytes of `output` have been written.
  func wrote(_ count: Int, now: UInt64) {
    output.removeFirst(count)
    // The answer to a sink comes only when all of it is written: writing is the progress to be seen.
    if kind == .sink { progress(now) }
  }

  /// Looks at what came, and tells of every answer that is complete.
  func received(
    _ bytes: UnsafeRawBufferPointer, now: UInt64, onAnswer: (Answer) -> Void
  ) throws(Failure) {
    progress(now)
    var position = 0
    while position < bytes.count {
      let rest = UnsafeRawBufferPointer(rebasing: bytes[position...])
      let taken: Int
      if let header = header.header {
        taken = min(Int(answerLeft), rest.count)
        try check(UnsafeRawBufferPointer(rebasing: rest[..<taken]), of: header)
        answerLeft -= UInt32(taken)
      } else {
        taken = header.append(rest)
        if header.isComplete {
          try begin(at: receivedPosition + UInt64(taken) - UInt64(MessageHeader.byteCount))
        }
      }
      position += taken
      receivedPosition += UInt64(taken)
      if let header = header.header, answerLeft == 0 {
        finish(header, now: now, onAnswer: onAnswer)
        self.header = PartialHeader()
      }
    }
  }

  /// The time since the last byte, if an answer is awaited.
  func noteGap(now: UInt64) {
    if !beginnings.isEmpty { longestGap = max(longestGap, now - lastProgress) }
  }

  /// Counts gaps from this moment on.
  func forgetGaps(now: UInt64) {
    longestGap = 0
    lastProgress = now
  }

  private func progress(_ now: UInt64) {
    noteGap(now: now)
    lastProgress = now
  }

  private func begin(at offset: UInt64) throws(Failure) {
    guard let answer = header.header, answer.payloadByteCount == length, answer.connection == number,
      answer.kind == kind, answer.answeredBy <= 1
    else { throw .header(message: oldest, offset: offset) }
    guard answer.number < begun else { throw .unasked(message: answer.number, offset: offset) }
    isAnswerRepeated = answer.number < oldest
    answerLeft = answer.answerPayloadByteCount
  }

  private func check(_ bytes: UnsafeRawBufferPointer, of header: MessageHeader) throws(Failure) {
    let offset = header.payloadByteCount - answerLeft
    // All messages of a connection have one length, so the number of a message says where its bytes stand.
    let position =
      UInt64(header.number) * (UInt64(MessageHeader.byteCount) + UInt64(length))
      + UInt64(MessageHeader.byteCount) + UInt64(offset)
    guard let difference = answerPattern.firstDifference(bytes, from: position) else { return }
    throw .mismatch(
      message: header.number, offset: offset + UInt32(difference),
      displacement: answerPattern.displacement(
        of: UnsafeRawBufferPointer(rebasing: bytes[difference...]),
        expectedAt: position + UInt64(difference), reach: Self.displacementReach))
  }

  private func finish(_ header: MessageHeader, now: UInt64, onAnswer: (Answer) -> Void) {
    if isAnswerRepeated {
      repeated += 1
      return
    }
    // Answers that were passed over are lost, and counted as what was begun and never answered.
    beginnings.removeFirst(Int(header.number - oldest))
    oldest = header.number
    let beginning = beginnings.removeFirst()
    oldest &+= 1
    answered += 1
    onAnswer(Answer(number: header.number, answeredBy: header.answeredBy, roundTrip: now - beginning))
  }
}

/// What the secondary makes of one snooped connection: bytes of both directions in, findings out.
///
/// It answers for itself what the peer sent and compares that with what the primary was seen to send. The
/// two directions come through two descriptors and in no order between them, so each may run ahead: what
/// the primary should send waits in `expected`, what it was seen to send before its cause was seen waits
/// in `early`. Both are bounded; `wantsReceived` and `wantsSent` say when to stop reading.
struct Snooper: Sendable {
  /// What is found out, in order.
  enum Finding: Hashable, Sendable {
    /// A request has been read from the peer to its end.
    case received(Conversation.Message)
    /// An answer has been seen to its end. `damagedAt` is what its request's payload was found to be.
    case answered(EchoComparison.Message, damagedAt: UInt32?)
  }

  /// How far the peer may be ahead of the primary, in bytes: more than what a kernel holds for one
  /// connection in its receive and send queues (`tcp_rmem`, up to 32 MiB by default on Linux 6.18, and
  /// `tcp_wmem`, 4 MiB), so that an honest primary never runs into it.
  static let expectedLimit = 64 * 1024 * 1024
  /// How far the answer to a source message is made in advance, in bytes.
  static let sourceLimit = 256 * 1024

  /// The transform, as far as the peer's bytes have been seen.
  private(set) var conversation: Conversation
  private var comparison: EchoComparison
  private var expected = ByteQueue()
  private var unread = ByteQueue()
  private var early = ByteQueue()
  private var receivedCount: UInt64 = 0
  private var answeredCount: UInt64 = 0
  /// Requests whose payload was wrong and whose answer is still to come, by their ordinal.
  private var damaged: [(ordinal: UInt64, at: UInt32)] = []

  init(following conversation: Conversation) {
    self.conversation = conversation
    comparison = EchoComparison(startingAt: conversation)
  }

  /// More of what the peer sent may be read.
  var wantsReceived: Bool { unread.isEmpty && expected.count < Self.expectedLimit }
  /// More of what the primary sent may be read.
  var wantsSent: Bool { early.isEmpty }
  /// Bytes that the primary was seen to send although nothing seen so far asked for them.
  var earlyByteCount: Int { early.count }
  /// The answer inside which the primary's stream stands, and how many of its bytes were shown; `nil` if it
  /// stands between two.
  var answerUnderWay: (number: UInt32?, shown: UInt32)? { comparison.messageUnderWay }

  /// Takes what the peer sent.
  mutating func received(
    _ bytes: UnsafeRawBufferPointer, report: (Finding) -> Void
  ) throws(Conversation.UnknownMessage) {
    let used = unread.isEmpty ? try consume(bytes, report) : 0
    unread.append(UnsafeRawBufferPointer(rebasing: bytes[used...]))
    try advance(report)
  }

  /// Takes what the primary sent.
  mutating func sent(
    _ bytes: UnsafeRawBufferPointer, report: (Finding) -> Void
  ) throws(Conversation.UnknownMessage) {
    let compared = early.isEmpty ? compare(bytes, report) : 0
    early.append(UnsafeRawBufferPointer(rebasing: bytes[compared...]))
    try advance(report)
  }

  /// The server that goes on from here: the transform, what was read and not answered, and what is yet to be
  /// sent.
  ///
  /// Only when all of what the primary sent has been read and its causes too. An answer whose header was
  /// already shown keeps the name in it; every header from here on carries this instance's.
  consuming func takeOver() -> (conversation: Conversation, unread: ByteQueue, unsent: ByteQueue) {
    precondition(early.isEmpty, "the primary sent what the peer has not been seen to ask for")
    return (conversation, unread, expected)
  }

  private mutating func advance(_ report: (Finding) -> Void) throws(Conversation.UnknownMessage) {
    while true {
      // Taken out for the call, so that it may change everything else of this value.
      var waiting = ByteQueue()
      swap(&waiting, &early)
      let compared = waiting.withBytes { compare($0, report) }
      waiting.removeFirst(compared)
      swap(&waiting, &early)

      let outputBefore = conversation.outputPosition
      swap(&waiting, &unread)
      defer { swap(&waiting, &unread) }
      let used = try waiting.withBytes { (bytes) throws(Conversation.UnknownMessage) in
        try consume(bytes, report)
      }
      waiting.removeFirst(used)
      if compared == 0, used == 0, conversation.outputPosition == outputBefore { return }
    }
  }

  private mutating func consume(
    _ bytes: UnsafeRawBufferPointer, _ report: (Finding) -> Void
  ) throws(Conversation.UnknownMessage) -> Int {
    var received = receivedCount
    var damagedNow: [(ordinal: UInt64, at: UInt32)] = []
    defer {
      receivedCount = received
      damaged += damagedNow
    }
    return try conversation.consume(
      bytes, into: &expected, outputLimit: Self.expectedLimit, sourceLimit: Self.sourceLimit
    ) { message in
      if let at = message.damagedAt { damagedNow.append((received, at)) }
      received += 1
      report(.received(message))
    }
  }

  private mutating func compare(_ bytes: UnsafeRawBufferPointer, _ report: (Finding) -> Void) -> Int {
    guard !bytes.isEmpty, !expected.isEmpty else { return 0 }
    var answered = answeredCount
    var damagedLeft = damaged[...]
    defer {
      answeredCount = answered
      damaged = Array(damagedLeft)
    }
    return comparison.compare(bytes, with: &expected) { message in
      var damagedAt: UInt32?
      if let first = damagedLeft.first, first.ordinal == answered {
        damagedAt = first.at
        damagedLeft = damagedLeft.dropFirst()
      }
      answered += 1
      report(.answered(message, damagedAt: damagedAt))
    }
  }
}

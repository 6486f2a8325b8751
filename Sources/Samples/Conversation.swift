/// The server's side of one connection: what it sends, as a function of what it has read.
///
/// A streaming transform: input comes in pieces cut anywhere, output goes to a queue with a bound, and
/// nothing else is kept but the header at hand and two counters. That is what makes switchover exact: the
/// secondary runs the same transform on what it snoops, so at every moment it knows the output to the byte.
struct Conversation: Sendable {
  /// A message whose request has been read to its end (or, for a source, whose answer has been made).
  struct Message: Hashable, Sendable {
    var header: MessageHeader
    /// The first payload byte that did not follow the pattern, counted from the start of the payload;
    /// always `nil` if payloads are not verified.
    var damagedAt: UInt32?
  }

  /// The peer sent something that is no message: where, in bytes from the start of its stream.
  struct UnknownMessage: Error, Hashable, CustomStringConvertible {
    var position: UInt64
    var description: String { "no message header at byte \(position): is the peer jsrpeer?" }
  }

  private enum Phase: Hashable, Sendable {
    case header(PartialHeader)
    case echo(MessageHeader, remaining: UInt32)
    case sink(MessageHeader, remaining: UInt32)
    case source(MessageHeader, remaining: UInt32)
  }

  /// The slot that is written into the header of every answer.
  let slot: UInt8
  let verifiesPayload: Bool
  /// Bytes read, from the start of the connection.
  private(set) var inputPosition: UInt64
  /// Bytes made, from the start of the connection.
  private(set) var outputPosition: UInt64
  private var phase: Phase
  private var damagedAt: UInt32?

  /// A connection at its start.
  init(slot: UInt8, verifiesPayload: Bool) {
    self.slot = slot
    self.verifiesPayload = verifiesPayload
    inputPosition = 0
    outputPosition = 0
    phase = .header(PartialHeader())
  }

  /// A connection somewhere in its life; `nil` if the point makes no sense.
  init?(resumingAt point: ResumePoint, slot: UInt8, verifiesPayload: Bool) {
    self.init(slot: slot, verifiesPayload: verifiesPayload)
    inputPosition = point.inputPosition
    outputPosition = point.outputPosition
    guard point.header.isComplete else {
      phase = .header(point.header)
      return
    }
    guard let header = point.header.header, point.remaining <= header.payloadByteCount else { return nil }
    phase = Self.body(of: header, remaining: point.remaining)
  }

  /// Where the transform stands, for another instance to go on from.
  var resumePoint: ResumePoint {
    let (header, remaining): (PartialHeader, UInt32) =
      switch phase {
      case .header(let partial): (partial, 0)
      case .echo(let header, let remaining), .sink(let header, let remaining),
        .source(let header, let remaining):
        (header.withBytes { PartialHeader($0, count: $0.count) }, remaining)
      }
    return ResumePoint(
      inputPosition: inputPosition, outputPosition: outputPosition, header: header, remaining: remaining)
  }

  /// More output can be made without more input.
  var hasMoreOutput: Bool {
    if case .source = phase { true } else { false }
  }

  /// Nothing of a message has been read that is not answered yet.
  var isBetweenMessages: Bool {
    if case .header(let partial) = phase { partial.count == 0 } else { false }
  }

  /// The answer at whose payload the output stands, and how much of that payload is still to be made.
  var answerUnderWay: (header: MessageHeader, remaining: UInt32)? {
    switch phase {
    case .header, .sink: nil
    case .echo(let header, let remaining), .source(let header, let remaining): (header, remaining)
    }
  }

  private static func body(of header: MessageHeader, remaining: UInt32) -> Phase {
    switch header.kind {
    case .echo: .echo(header, remaining: remaining)
    case .sink: .sink(header, remaining: remaining)
    case .source: .source(header, remaining: remaining)
    }
  }

  /// Reads from the front of `input` and appends the answer to `output`, until the input is used up or
  /// `output` holds `outputLimit` bytes (and at most one header more).
  ///
  /// - Parameters:
  ///   - sourceLimit: the limit for output that needs no input, which could otherwise be gigabytes.
  ///   - onMessage: told of every message as it ends.
  /// - Returns: how many bytes of `input` were used.
  mutating func consume(
    _ input: UnsafeRawBufferPointer, into output: inout ByteQueue, outputLimit: Int, sourceLimit: Int,
    onMessage: (Message) -> Void
  ) throws(UnknownMessage) -> Int {
    var used = 0
    while true {
      let rest = UnsafeRawBufferPointer(rebasing: input[used...])
      switch phase {
      case .header(var partial):
        guard !rest.isEmpty, output.count < outputLimit else { return used }
        let taken = partial.append(rest)
        used += taken
        inputPosition += UInt64(taken)
        guard partial.isComplete else {
          phase = .header(partial)
          return used
        }
        guard let header = partial.header else {
          throw UnknownMessage(position: inputPosition - UInt64(MessageHeader.byteCount))
        }
        damagedAt = nil
        if header.kind != .sink { appendAnswer(header, to: &output) }
        phase = Self.body(of: header, remaining: header.payloadByteCount)

      case .echo(let header, let remaining):
        if remaining == 0 {
          finish(header, onMessage)
          continue
        }
        let taken = min(Int(remaining), rest.count, outputLimit - output.count)
        guard taken > 0 else { return used }
        let piece = UnsafeRawBufferPointer(rebasing: rest[..<taken])
        verify(piece, of: header, remaining: remaining)
        output.append(piece)
        outputPosition += UInt64(taken)
        used += taken
        inputPosition += UInt64(taken)
        phase = .echo(header, remaining: remaining - UInt32(taken))

      case .sink(let header, let remaining):
        if remaining == 0 {
          appendAnswer(header, to: &output)
          finish(header, onMessage)
          continue
        }
        let taken = min(Int(remaining), rest.count)
        guard taken > 0 else { return used }
        verify(UnsafeRawBufferPointer(rebasing: rest[..<taken]), of: header, remaining: remaining)
        used += taken
        inputPosition += UInt64(taken)
        phase = .sink(header, remaining: remaining - UInt32(taken))

      case .source(let header, let remaining):
        if remaining == 0 {
          finish(header, onMessage)
          continue
        }
        let made = min(Int(remaining), min(sourceLimit, outputLimit) - output.count)
        guard made > 0 else { return used }
        let pattern = TrafficPattern(connection: header.connection, direction: .fromServer)
        output.append(count: made) { [outputPosition] in pattern.fill($0, from: outputPosition) }
        outputPosition += UInt64(made)
        phase = .source(header, remaining: remaining - UInt32(made))
      }
    }
  }

  private mutating func appendAnswer(_ header: MessageHeader, to output: inout ByteQueue) {
    var answer = header
    answer.answeredBy = slot
    answer.withBytes { output.append($0) }
    outputPosition += UInt64(MessageHeader.byteCount)
  }

  private mutating func finish(_ header: MessageHeader, _ onMessage: (Message) -> Void) {
    phase = .header(PartialHeader())
    onMessage(Message(header: header, damagedAt: damagedAt))
  }

  private mutating func verify(_ piece: UnsafeRawBufferPointer, of header: MessageHeader, remaining: UInt32) {
    guard verifiesPayload, damagedAt == nil else { return }
    let pattern = TrafficPattern(connection: header.connection, direction: .fromPeer)
    if let difference = pattern.firstDifference(piece, from: inputPosition) {
      damagedAt = header.payloadByteCount - remaining + UInt32(difference)
    }
  }
}

import Testing

@testable import Samples

@Suite("The peer's judgement of one connection")
struct PeerConnectionTests {
  private let messages: [(kind: Traffic.Kind, length: UInt32)] = [(.echo, 50), (.echo, 50), (.echo, 50)]

  /// A connection that has sent three messages of 50 bytes at time 0.
  private func connection() -> PeerConnection {
    let connection = PeerConnection(number: 3, kind: .echo, length: 50, messages: 3, pipeline: 3)
    connection.fill(now: 0, mayBegin: true)
    return connection
  }

  private func judge(_ bytes: [UInt8], _ connection: PeerConnection, step: Int = .max, now: UInt64 = 5) throws
    -> [PeerConnection.Answer]
  {
    var answers: [PeerConnection.Answer] = []
    var rest = bytes[...]
    while !rest.isEmpty {
      try Array(rest.prefix(step)).withUnsafeBytes {
        try connection.received($0, now: now) { answers.append($0) }
      }
      rest = rest.dropFirst(step)
    }
    return answers
  }

  @Test("what it sends is the pattern, message after message")
  func sends() {
    #expect(connection().output.withBytes { Array($0) } == Traffic.requests(messages))
  }

  @Test(
    "right answers are counted with their server and time, however they are cut", arguments: [1, 5, 1000])
  func right(step: Int) throws {
    let connection = connection()
    let answers = try judge(Traffic.answers(messages, slot: 1), connection, step: step, now: 77)
    #expect(answers.map(\.number) == [0, 1, 2])
    #expect(answers.allSatisfy { $0.answeredBy == 1 && $0.roundTrip == 77 })
    #expect(connection.answered == 3 && connection.outstanding == 0)
    #expect(connection.longestGap == 77)
  }

  @Test("gaps that are forgotten count from then on, while answers are awaited")
  func forgottenGaps() throws {
    let connection = connection()
    connection.noteGap(now: 500)
    #expect(connection.longestGap == 500)
    connection.forgetGaps(now: 600)
    #expect(connection.longestGap == 0)
    _ = try judge(Traffic.answers(messages, slot: 1), connection, step: 1000, now: 640)
    #expect(connection.longestGap == 40 && connection.answered == 3)
  }

  @Test("every wrong byte of an answer is found")
  func wrongByte() {
    let right = Traffic.answers(messages, slot: 0)
    for index in right.indices {
      var wrong = right
      wrong[index] ^= 0x82
      #expect(throws: PeerConnection.Failure.self, "byte \(index)") { try judge(wrong, connection()) }
    }
  }

  @Test("bytes that are missing and bytes that came twice are told apart")
  func displaced() throws {
    let right = Traffic.answers(messages, slot: 0)
    for (wrong, displacement) in [
      (Array(right[..<20] + right[25...]), 5), (Array(right[..<28] + right[20...]), -8),
    ] {
      let failure = #expect(throws: PeerConnection.Failure.self) { try judge(wrong, connection()) }
      guard case .mismatch(0, let offset, let found) = failure else {
        Issue.record("\(String(describing: failure))")
        continue
      }
      #expect(offset == (displacement > 0 ? 8 : 16))
      #expect(found == displacement)
    }
  }

  @Test("a lost message is not taken for an answered one")
  func lostMessage() throws {
    let right = Traffic.answers(messages, slot: 0)
    let connection = connection()
    let answers = try judge(Array(right[..<62] + right[124...]), connection)
    #expect(answers.map(\.number) == [0, 2])
    #expect(connection.begun == 3 && connection.answered == 2)
  }

  @Test("a repeated message is counted and not taken for an answer")
  func repeatedMessage() throws {
    let right = Traffic.answers(messages, slot: 0)
    let connection = connection()
    let answers = try judge(Array(right[..<62] + right), connection)
    #expect(answers.map(\.number) == [0, 1, 2])
    #expect(connection.repeated == 1)
  }

  @Test("an answer to a message that was never sent is refused")
  func unasked() {
    let four = Traffic.answers(messages + [(.echo, 50)], slot: 0)
    let failure = #expect(throws: PeerConnection.Failure.self) { try judge(four, connection()) }
    guard case .unasked(message: 3, offset: 186) = failure else {
      Issue.record("\(String(describing: failure))")
      return
    }
  }

  @Test("no more messages are on their way than the pipeline allows, and none before its time")
  func pipeline() throws {
    let connection = PeerConnection(number: 3, kind: .echo, length: 50, messages: 0, pipeline: 2)
    connection.fill(now: 0, mayBegin: true)
    #expect(connection.begun == 2)
    connection.notBefore = 10
    _ = try judge(Array(Traffic.answers(messages, slot: 0)[..<62]), connection)
    connection.fill(now: 9, mayBegin: true)
    #expect(connection.begun == 2)
    connection.fill(now: 10, mayBegin: false)
    #expect(connection.begun == 2)
    connection.fill(now: 10, mayBegin: true)
    #expect(connection.begun == 3)
  }
}

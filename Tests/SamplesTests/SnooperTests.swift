import JSR
import Testing

@testable import Samples

@Suite("The secondary's snooping")
struct SnooperTests {
  let messages = Traffic.mixture
  let requests = Traffic.requests(Traffic.mixture)
  let answers = Traffic.answers(Traffic.mixture, slot: 0)

  private func snooper() -> Snooper {
    Snooper(following: Conversation(slot: 1, verifiesPayload: true))
  }

  private func findings(_ feed: (inout Snooper, (Snooper.Finding) -> Void) throws -> Void) throws
    -> [Snooper.Finding]
  {
    var snooper = snooper()
    var findings: [Snooper.Finding] = []
    try feed(&snooper) { findings.append($0) }
    return findings
  }

  @Test("pairs every message with its answer, whichever direction comes first and however it is cut")
  func pairing() throws {
    for step in [1, 7, 1000] {
      for isSentFirst in [false, true] {
        let findings = try findings { snooper, report in
          var rcv = requests[...]
          var snd = answers[...]
          func feedSent() throws {
            guard snooper.wantsSent else { return }
            try Array(snd.prefix(step)).withUnsafeBytes { try snooper.sent($0, report: report) }
            snd = snd.dropFirst(step)
          }
          while !rcv.isEmpty || !snd.isEmpty {
            if isSentFirst { try feedSent() }
            try Array(rcv.prefix(step)).withUnsafeBytes { try snooper.received($0, report: report) }
            rcv = rcv.dropFirst(step)
            if !isSentFirst { try feedSent() }
          }
        }
        let answered = findings.compactMap { finding -> EchoComparison.Message? in
          if case .answered(let message, damagedAt: nil) = finding { message } else { nil }
        }
        #expect(answered.map(\.header.number) == Array(0..<UInt32(messages.count)))
        #expect(answered.allSatisfy { $0.firstDifference == nil && $0.header.answeredBy == 0 })
        #expect(findings.count == 2 * messages.count)
      }
    }
  }

  @Test("finds every byte of the answer that is wrong, and in which message, and no other")
  func mismatches() throws {
    let names = Set(Traffic.namePositions(messages))
    for index in answers.indices {
      var wrong = answers
      // A server names itself 0 or 1: any other difference there is one too.
      wrong[index] ^= names.contains(index) ? 2 : 1
      let findings = try findings { snooper, report in
        try requests.withUnsafeBytes { try snooper.received($0, report: report) }
        try wrong.withUnsafeBytes { try snooper.sent($0, report: report) }
      }
      var start = 0
      for case .answered(let message, _) in findings {
        let range = start..<start + 12 + Int(message.header.answerPayloadByteCount)
        #expect(message.firstDifference == (range.contains(index) ? UInt32(index - start) : nil))
        start = range.upperBound
      }
      #expect(start == answers.count)
    }
  }

  @Test("takes over from every byte of both streams, and the peer sees one stream")
  func takeOver() throws {
    let names = Traffic.namePositions(messages)
    var whole = Conversation(slot: 0, verifiesPayload: false)
    for rcvCut in 0...requests.count {
      // The primary cannot have sent more than what it had been asked for.
      if rcvCut > 0 { _ = try whole.answer([requests[rcvCut - 1]]) }
      for sndCut in 0...Int(whole.outputPosition) {
        var snooper = snooper()
        try requests[..<rcvCut].withUnsafeBytes { try snooper.received($0, report: { _ in }) }
        try answers[..<sndCut].withUnsafeBytes { try snooper.sent($0, report: { _ in }) }
        let (taken, unread, unsent) = snooper.takeOver()
        var conversation = taken
        let rest = unread.withBytes { Array($0) } + requests[rcvCut...]
        let goesOn = unsent.withBytes { Array($0) } + (try conversation.answer(rest))
        var expected = answers
        for name in names where name >= sndCut { expected[name] = 1 }
        let seen = Array(answers[..<sndCut]) + goesOn
        if seen != expected {
          Issue.record("rcv cut at \(rcvCut), snd cut at \(sndCut)")
          return
        }
      }
    }
  }

  @Test("does not take over while the primary's answers are ahead of what the peer was seen to ask")
  func early() throws {
    var snooper = snooper()
    try answers[..<30].withUnsafeBytes { try snooper.sent($0, report: { _ in }) }
    #expect(snooper.earlyByteCount == 30)
    #expect(!snooper.wantsSent)
    try requests.withUnsafeBytes { try snooper.received($0, report: { _ in }) }
    #expect(snooper.earlyByteCount == 0)
    #expect(snooper.wantsSent)
  }

  @Test("follows a connection from every point at which it can be offered")
  func offeredLater() throws {
    for cut in 0...requests.count {
      var primary = Conversation(slot: 0, verifiesPayload: false)
      let sent = try primary.answer(requests[..<cut])
      var snooper = Snooper(
        following: try #require(
          Conversation(resumingAt: primary.resumePoint, slot: 1, verifiesPayload: true)))
      var mismatches = 0
      var numbers: [UInt32] = []
      let report = { (finding: Snooper.Finding) in
        guard case .answered(let message, let damagedAt) = finding else { return }
        numbers.append(message.header.number)
        if message.firstDifference != nil || damagedAt != nil { mismatches += 1 }
      }
      try requests[cut...].withUnsafeBytes { try snooper.received($0, report: report) }
      try answers[sent.count...].withUnsafeBytes { try snooper.sent($0, report: report) }
      #expect(mismatches == 0, "offered at byte \(cut)")
      #expect(numbers.last == (cut == requests.count ? nil : UInt32(messages.count - 1)))
      #expect(snooper.takeOver().unsent.isEmpty)
    }
  }

  @Test("stops wanting more from the peer when as much as a kernel can hold waits for its answer")
  func bounded() throws {
    var snooper = snooper()
    let payload = [UInt8](repeating: 1, count: 1 << 20)
    let header = MessageHeader(
      payloadByteCount: 1 << 30, number: 0, connection: 0, kind: .echo, answeredBy: 255)
    try header.withBytes { Array($0) }.withUnsafeBytes { try snooper.received($0, report: { _ in }) }
    var count = 0
    while snooper.wantsReceived, count < 1000 {
      try payload.withUnsafeBytes { try snooper.received($0, report: { _ in }) }
      count += 1
    }
    #expect(count == Snooper.expectedLimit >> 20)
  }

  @Test("a pair whose directions cannot meet any more is stuck once replication has ended, and not before")
  func stuck() throws {
    let pair = SnoopedPair(
      AnswerMessage.Pair(secondary: Handle(slot: 1, generation: 1, index: 0), rcv: 100, snd: 101),
      primary: Handle(slot: 0, generation: 1, index: 0), snooper: snooper())
    // The primary has sent what nobody asked for: its cause must still come on rcv.
    try answers.withUnsafeBytes { try pair.snooper.sent($0) { _ in } }
    #expect(!pair.snooper.wantsSent)
    pair.reason = "snoop buffer full"
    #expect(!pair.isStuck)
    pair.rcv = nil
    #expect(pair.isStuck)
    pair.reason = nil
    #expect(!pair.isStuck)

    pair.reason = "closed"
    pair.rcv = 100
    try requests.withUnsafeBytes { try pair.snooper.received($0) { _ in } }
    #expect(pair.snooper.wantsSent)
    #expect(!pair.isStuck)
  }
}

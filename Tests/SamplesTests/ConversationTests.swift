import JSR
import Testing

@testable import Samples

@Suite("The server's side of a conversation")
struct ConversationTests {
  @Test("is the same function of the input however it is cut", arguments: [1, 2, 3, 5, 11, 12, 13, 1000])
  func cuts(step: Int) throws {
    var conversation = Conversation(slot: 1, verifiesPayload: true)
    let requests = Traffic.requests(Traffic.mixture)
    #expect(try conversation.answer(requests, step: step) == Traffic.answers(Traffic.mixture, slot: 1))
    #expect(conversation.inputPosition == UInt64(requests.count))
    #expect(conversation.outputPosition == UInt64(Traffic.answers(Traffic.mixture, slot: 1).count))
    #expect(conversation.isBetweenMessages)
  }

  @Test("goes on in another instance from every byte of the input, through the offer on the channel")
  func resumption() throws {
    let requests = Traffic.requests(Traffic.mixture)
    let answers = Traffic.answers(Traffic.mixture, slot: 0)
    for cut in 0...requests.count {
      var first = Conversation(slot: 0, verifiesPayload: false)
      let begun = try first.answer(requests[..<cut])
      let offer = OfferMessage(
        kind: .offer, slot: 0, primary: .init(rawValue: 1), resumePoint: first.resumePoint)
      let parsed = try #require(try offer.bytes.withUnsafeBytes { try OfferMessage.parse($0) })
      #expect(parsed.message == offer)
      var second = try #require(
        Conversation(resumingAt: parsed.message.resumePoint, slot: 0, verifiesPayload: false))
      #expect(begun + (try second.answer(requests[cut...])) == answers, "cut at byte \(cut)")
    }
  }

  @Test("can be left inside the answer to a source message and resumed there")
  func resumptionInsideSource() throws {
    let messages: [(Traffic.Kind, UInt32)] = [(.source, 1000), (.echo, 5)]
    let requests = Traffic.requests(messages)
    let answers = Traffic.answers(messages, slot: 1)
    var first = Conversation(slot: 1, verifiesPayload: false)
    var output = ByteQueue()
    let used = try requests.withUnsafeBytes {
      try first.consume($0, into: &output, outputLimit: 500, sourceLimit: 300, onMessage: { _ in })
    }
    #expect(used == 12)
    #expect(first.hasMoreOutput)
    var second = try #require(
      Conversation(resumingAt: first.resumePoint, slot: 1, verifiesPayload: false))
    #expect(output.withBytes { Array($0) } + (try second.answer(requests[used...])) == answers)
  }

  @Test("never holds more output than its limit and a header")
  func bounded() throws {
    var conversation = Conversation(slot: 0, verifiesPayload: false)
    let requests = Traffic.requests([(.echo, 5000), (.source, 1_000_000)])
    var output = ByteQueue()
    var rest = requests[...]
    var taken = 0
    while taken < 2 * MessageHeader.byteCount + 1_005_000 {
      let used = try rest.withUnsafeBytes {
        try conversation.consume($0, into: &output, outputLimit: 1000, sourceLimit: 700, onMessage: { _ in })
      }
      rest = rest.dropFirst(used)
      #expect(output.count <= 1000 + MessageHeader.byteCount)
      try #require(!output.isEmpty)
      taken += output.count
      output.removeFirst(output.count)
    }
    #expect(rest.isEmpty)
  }

  @Test("finds a damaged payload byte and says which message")
  func damage() throws {
    var requests = Traffic.requests([(.echo, 100), (.sink, 100), (.echo, 100)])
    requests[12 + 100 + 12 + 42] ^= 1
    var conversation = Conversation(slot: 0, verifiesPayload: true)
    var output = ByteQueue()
    var damages: [UInt32?] = []
    _ = try requests.withUnsafeBytes {
      try conversation.consume($0, into: &output, outputLimit: 10_000, sourceLimit: 10_000) {
        damages.append($0.damagedAt)
      }
    }
    #expect(damages == [nil, 42, nil])
  }

  @Test("refuses what is no message, and says where")
  func unknown() {
    var requests = Traffic.requests([(.echo, 10), (.echo, 10)])
    requests[22 + 10] = 77
    var conversation = Conversation(slot: 0, verifiesPayload: true)
    #expect(throws: Conversation.UnknownMessage(position: 22)) { try conversation.answer(requests) }
  }
}

import JSR
import Testing

@testable import Samples

@Suite("The messages between the two instances")
struct ChannelMessageTests {
  let offer = OfferMessage(
    kind: .offer, slot: 1, primary: Handle(rawValue: 0x0100_001d_0000_0002),
    resumePoint: ResumePoint(inputPosition: 3, outputPosition: 4, header: PartialHeader(), remaining: 0))
  let answer = AnswerMessage(
    slot: 0, primary: Handle(rawValue: 0x0100_001d_0000_0002),
    pair: AnswerMessage.Pair(secondary: Handle(rawValue: 5), rcv: 6, snd: 7))

  @Test("are 32 bytes for an offer and 36 for an answer")
  func layout() {
    #expect(
      offer.bytes == [
        0x4a, 0x53, 0x52, 0x4f, 1, 1, 1, 0, 1, 0, 0, 0x1d, 0, 0, 0, 2,
        0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4,
      ])
    #expect(
      answer.bytes == [
        0x4a, 0x53, 0x52, 0x4f, 1, 3, 0, 0, 1, 0, 0, 0x1d, 0, 0, 0, 2,
        0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 7,
      ])
  }

  @Test("are read once they are complete and not before")
  func incomplete() throws {
    for count in 0..<offer.bytes.count {
      let isThere = try offer.bytes.prefix(count).withUnsafeBytes { try OfferMessage.parse($0) != nil }
      #expect(!isThere)
    }
    for count in 0..<answer.bytes.count {
      let isThere = try answer.bytes.prefix(count).withUnsafeBytes { try AnswerMessage.parse($0) != nil }
      #expect(!isThere)
    }
    let parsedOffer = try #require(
      try (offer.bytes + [1, 2]).withUnsafeBytes { try OfferMessage.parse($0) })
    #expect(parsedOffer.message == offer && parsedOffer.byteCount == 32)
    let parsedAnswer = try #require(
      try (answer.bytes + [1]).withUnsafeBytes { try AnswerMessage.parse($0) })
    #expect(parsedAnswer.message == answer && parsedAnswer.byteCount == 36)
    let refusal = AnswerMessage(slot: 1, primary: answer.primary, pair: nil)
    #expect(try refusal.bytes.withUnsafeBytes { try AnswerMessage.parse($0) }?.message == refusal)
  }

  @Test("of strangers, of other versions and of unknown kinds are refused")
  func refused() {
    func parse(_ change: (inout [UInt8]) -> Void) throws {
      var bytes = offer.bytes
      change(&bytes)
      _ = try bytes.withUnsafeBytes { try OfferMessage.parse($0) }
    }
    #expect(throws: ChannelMessageError.notTheProtocol) { try parse { $0[0] = 0 } }
    #expect(throws: ChannelMessageError.notTheProtocol) { try parse { $0 = Array("GET / HTTP/1.1".utf8) } }
    #expect(throws: ChannelMessageError.version(2)) { try parse { $0[4] = 2 } }
    #expect(throws: ChannelMessageError.unknownKind(9)) { try parse { $0[5] = 9 } }
    #expect(throws: ChannelMessageError.nonsense("more than 12 bytes of a header")) {
      try parse {
        $0[7] = 1
        $0 += [UInt8](repeating: 13, count: 24)
      }
    }
  }

  @Test("with a point that no conversation can be at are not believed")
  func impossiblePoint() {
    let header = MessageHeader(payloadByteCount: 10, number: 0, connection: 0, kind: .echo, answeredBy: 255)
    let point = ResumePoint(
      inputPosition: 12, outputPosition: 12, header: header.withBytes { PartialHeader($0, count: 12) },
      remaining: 11)
    #expect(Conversation(resumingAt: point, slot: 0, verifiesPayload: false) == nil)
  }
}

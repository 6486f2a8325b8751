import Packet
import Replication
import Testing

@testable import Control

/// What is read and written without the coders, against what they make of it.
@Suite("A frequent message")
struct FlatObjectTests {
  private static func handle() -> Handle {
    Handle(rawValue: UInt64.random(in: 0...UInt64.max) >> UInt64.random(in: 0...63))
  }
  private static func id() -> UInt64 { UInt64.random(in: 0...UInt64.max) >> UInt64.random(in: 0...63) }

  private static let reasons = [
    "prl timeout", "", "a/b {\"", "\\", "é", "a\u{7F}", "new\nline", String(repeating: "x", count: 2000),
  ]

  private static func requests() -> [ControlRequest] {
    let bodies: [ControlRequest.Body] = [
      .allocate, .attach(primary: handle()), .attach(primary: handle(), transport: .udp),
      .replicate(primary: handle(), secondary: handle()), .free(handle()), .merge(handle()),
      .merge(handle(), signingKey: [1, 2]), .close(handle()), .unreplicate(handle()), .status(handle()),
    ]
    return bodies.map { ControlRequest(id: id(), body: $0) }
  }

  private static func replies() -> [ControlReply] {
    let outcomes: [Result<ControlReply.Body, ControlError>] = [
      .success(.done), .success(.handle(handle())), .success(.recordChannel(limit: 5)),
      .failure(ControlError(.wrongState, "gone")),
    ]
    return outcomes.map { ControlReply(id: id(), more: .random(), outcome: $0) }
  }

  private static func events() -> [ControlEvent] {
    let kinds: [ControlEvent.Kind] =
      [.replicated(handle()), .peerClosed(handle()), .secondaryUp]
      + reasons.map { .unreplicated(handle(), reason: $0) }
    return kinds.map {
      ControlEvent($0, timeMilliseconds: Int64.random(in: -1...Int64.max) >> Int64.random(in: 0...62))
    }
  }

  @Test("is written as the coders write it, or left to them")
  func writing() throws {
    var written = 0
    for _ in 0..<200 {
      for request in Self.requests() {
        guard let message = request.flatMessage else { continue }
        #expect(message == (try ControlJSON.encode(request)))
        written += 1
      }
      for reply in Self.replies() {
        guard let message = reply.flatMessage else { continue }
        #expect(message == (try ControlJSON.encode(reply)))
        written += 1
      }
      for event in Self.events() {
        guard let message = event.flatMessage else { continue }
        #expect(message == (try ControlJSON.encode(event)))
        written += 1
      }
    }
    // 7 requests, 2 replies, and at least 3 events, unless their time is before 1970.
    #expect(written > 200 * 9)
  }

  /// All that there is to read, each as the coders write it.
  private static func messages() throws -> [[UInt8]] {
    try requests().map { try ControlJSON.encode($0) } + replies().map { try ControlJSON.encode($0) }
      + events().map { try ControlJSON.encode($0) }
  }

  @Test("is read as the coders read it, also when it is damaged, or left to them")
  func reading() throws {
    var read = 0
    func compare(_ bytes: [UInt8]) {
      guard let object = FlatObject(bytes) else { return }
      let text = String(decoding: bytes, as: UTF8.self)
      if let request = ControlRequest(object) {
        #expect((try? ControlRequest(decoding: bytes)) == request, "\(text)")
        read += 1
      }
      let message =
        ControlReply(object).map { EngineMessage.reply($0) } ?? ControlEvent(object).map { .event($0) }
      if let message {
        #expect((try? EngineMessage(decoding: bytes)) == message, "\(text)")
        read += 1
      }
    }
    let all = try Self.messages()
    // What makes a difference in JSON.
    let pieces = [
      "{", "}", "\"", ",", ":", "0", "-", ".", "e", " ", "\\", "true", "null", "\"id\":1,", "\"x\":{},", "é",
    ]
    for original in all + (try Self.messages()) {
      compare(original)
      for _ in 0..<300 {
        var bytes = original
        for _ in 0..<Int.random(in: 1...2) {
          let place = Int.random(in: 0..<bytes.count)
          switch Int.random(in: 0..<4) {
          case 0: bytes[place] = .random(in: 0...255)
          case 1: bytes.remove(at: place)
          case 2: bytes.insert(contentsOf: pieces.randomElement()!.utf8, at: place)
          default:
            // A piece of another message.
            let other = all.randomElement()!
            let start = Int.random(in: 0..<other.count)
            bytes.replaceSubrange(place..., with: other[start...])
          }
        }
        compare(bytes)
      }
    }
    #expect(read > 20)
  }

  @Test(
    "is nothing that looks otherwise",
    arguments: [
      "", "{", "{}x", "{} ", "[]", "{\"a\":1", "{\"a\":01}", "{\"a\":-1}", "{\"a\":1.0}", "{\"a\":1,}",
      "{\"a\":1,\"a\":2}", "{\"a\":null}", "{\"a\":\"\\n\"}", "{\"a\": 1}", "{\"a\":{\"b\":{}}}",
      "{\"a\":18446744073709551616}", "{\"a\":\"é\"}", "{\"a\":[]}",
    ])
  func otherForms(_ text: String) { #expect(FlatObject(Array(text.utf8)) == nil) }
}

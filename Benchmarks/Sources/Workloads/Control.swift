import Control
import Replication

// What travels over the control socket when an application protects its connections, or takes them over.
extension Workload {
  private static let handle = Handle(slot: 0, generation: 29, index: 17)
  private static let other = Handle(slot: 1, generation: 31, index: 17)

  static let control: [Workload] =
    requests("replicate", .replicate(primary: handle, secondary: other))
    + requests("merge", .merge(other))
    // Once for each client; for comparison, since the coders of Foundation do it.
    + requests("hello", .hello(application: "bird", protocolVersion: ControlProtocol.version))
    + replies("done", .done)
    + replies("handle", .handle(handle))
    + messages(
      "event replicated", .event(ControlEvent(.replicated(handle), timeMilliseconds: 1_700_000_000_000)),
      write: write, read: EngineMessage.init(reading:))

  private static func requests(_ name: String, _ body: ControlRequest.Body) -> [Workload] {
    messages(
      "request \(name)", ControlRequest(id: 7, body: body), write: { try $0.message() },
      read: ControlRequest.init(reading:))
  }

  private static func replies(_ name: String, _ body: ControlReply.Body) -> [Workload] {
    messages(
      "reply \(name)", .reply(ControlReply(id: 7, outcome: .success(body))), write: write,
      read: EngineMessage.init(reading:))
  }

  /// Writes a message as the engine does.
  @Sendable private static func write(_ message: EngineMessage) throws -> [UInt8]? {
    switch message {
    case .event(let event): return try event.message()
    case .reply(let reply):
      var pages = ReplyPages(reply)
      return pages.next()
    }
  }

  private static func messages<Message: Hashable & Sendable>(
    _ name: String, _ message: Message, write: @escaping @Sendable (Message) throws -> [UInt8]?,
    read: @escaping @Sendable ([UInt8]) throws -> Message
  ) -> [Workload] {
    [
      Workload("\(name): write") {
        { times in
          var bytes: [UInt8]?
          for _ in 0..<times { bytes = try? write(message) }
          precondition((try? read(bytes!)) == message, "a message is not what was to be written")
        }
      },
      Workload("\(name): read") {
        let bytes = (try? write(message)) ?? []
        return { times in
          var last: Message?
          for _ in 0..<times { last = try? read(bytes) }
          precondition(last == message, "a message reads otherwise than it was written")
        }
      },
    ]
  }
}

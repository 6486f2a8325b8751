/// What a client receives: a reply to one of its requests, or an event.
public enum EngineMessage: Sendable, Hashable {
  case reply(ControlReply)
  case event(ControlEvent)

  /// Reads one message.
  ///
  /// - Throws: `version` if the engine speaks another version, `malformed` with the field that is wrong.
  public init(reading bytes: [UInt8]) throws(ControlError) {
    if let object = FlatObject(bytes) {
      if let reply = ControlReply(object) {
        self = .reply(reply)
        return
      }
      if let event = ControlEvent(object) {
        self = .event(event)
        return
      }
    }
    try self.init(decoding: bytes)
  }

  /// Reads a message of whatever form.
  init(decoding bytes: [UInt8]) throws(ControlError) {
    struct Header: Decodable {
      var version: Int
      var event: String?
    }
    let header = try ControlJSON.decode(Header.self, from: bytes)
    guard header.version == ControlProtocol.version else {
      throw ControlError(
        .version, "the engine speaks version \(header.version), not \(ControlProtocol.version)")
    }
    self =
      header.event == nil
      ? .reply(try ControlJSON.decode(ControlReply.self, from: bytes))
      : .event(try ControlJSON.decode(ControlEvent.self, from: bytes))
  }
}

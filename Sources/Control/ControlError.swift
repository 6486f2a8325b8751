/// The engine's refusal of one request.
public struct ControlError: Error, Hashable, Sendable, Codable, CustomStringConvertible {
  /// For programs.
  public let code: RefusalCode
  /// For people: one line that says what was wrong and what to do. At most 1,024 bytes travel.
  public let message: String

  public init(_ code: RefusalCode, _ message: String) {
    self.code = code
    self.message = message
  }

  public var description: String { message }

  private enum CodingKeys: String, CodingKey { case code, message }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(code, forKey: .code)
    // A message may quote what a client sent; cutting it keeps every reply within the limit of a message.
    try container.encode(String(decoding: message.utf8.prefix(1024), as: UTF8.self), forKey: .message)
  }
}

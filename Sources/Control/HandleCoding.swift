public import Replication

/// On the control socket a handle is the text that people see, `"0x100001d00000000"`: a JSON number would
/// lose bits in readers that hold numbers as floating point.
extension Handle: Codable {
  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    let text = try container.decode(String.self)
    guard text.hasPrefix("0x"), let handle = Handle(text) else {
      throw DecodingError.dataCorruptedError(
        in: container, debugDescription: "\"\(text)\" is not a handle like \"0x100001d00000000\"")
    }
    self = handle
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }
}

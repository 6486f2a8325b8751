import Packet

extension TransportProtocol {
  /// From the name that `description` gives: `tcp` or `udp`.
  init?(name: String) {
    switch name {
    case "tcp": self = .tcp
    case "udp": self = .udp
    default: return nil
    }
  }

  /// Reads the field `key`; TCP if it is missing.
  init<Key: CodingKey>(from container: KeyedDecodingContainer<Key>, forKey key: Key) throws {
    guard let name = try container.decodeIfPresent(String.self, forKey: key) else {
      self = .tcp
      return
    }
    guard let transport = Self(name: name) else {
      throw DecodingError.dataCorruptedError(
        forKey: key, in: container, debugDescription: "there is no \(key.stringValue) \"\(name)\"")
    }
    self = transport
  }

  /// Writes the field `key`, unless it is TCP, which is all that older libraries and engines know.
  func encode<Key: CodingKey>(to container: inout KeyedEncodingContainer<Key>, forKey key: Key) throws {
    if self != .tcp { try container.encode("\(self)", forKey: key) }
  }
}

import FoundationEssentials

/// How the documents of the control socket are written and read.
enum ControlJSON {
  private static let encoder: JSONEncoder = {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return encoder
  }()
  private static let decoder = JSONDecoder()

  /// One line, keys in alphabetical order, so that output can be compared.
  static func encode(_ value: some Encodable) throws(ControlError) -> [UInt8] {
    do {
      return [UInt8](try encoder.encode(value))
    } catch {
      throw ControlError(.malformed, "the message cannot be written as JSON: \(error)")
    }
  }

  /// - Throws: `ControlError` with code `malformed` that names the field.
  static func decode<Value: Decodable>(
    _ type: Value.Type, from bytes: [UInt8]
  ) throws(ControlError) -> Value {
    do {
      return try decoder.decode(type, from: Data(bytes))
    } catch {
      throw complaint(about: error)
    }
  }

  /// - Parameter error: of decoding.
  static func complaint(about error: any Error) -> ControlError {
    switch error {
    case let error as ControlError: error
    case let error as DecodingError: ControlError(.malformed, describe(error))
    default: ControlError(.malformed, "not a JSON document: \(error)")
    }
  }

  private static func describe(_ error: DecodingError) -> String {
    func name(_ path: [any CodingKey]) -> String {
      path.map { key in key.intValue.map { "[\($0)]" } ?? key.stringValue }.joined(separator: ".")
    }
    switch error {
    case .keyNotFound(let key, let context):
      return "the field \"\(name(context.codingPath + [key]))\" is missing"
    case .typeMismatch(let type, let context), .valueNotFound(let type, let context):
      guard !context.codingPath.isEmpty else { return "the message is not a JSON object" }
      return "the field \"\(name(context.codingPath))\" is not of type \(type)"
    case .dataCorrupted(let context):
      guard !context.codingPath.isEmpty else {
        return "the message is not a JSON document that can be read: \(context.debugDescription)"
      }
      return "the field \"\(name(context.codingPath))\" is not valid: \(context.debugDescription)"
    @unknown default:
      return "the message is not valid"
    }
  }
}

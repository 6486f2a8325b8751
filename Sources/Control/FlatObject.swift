// Theory of operation
//
// What travels over the control socket is JSON, and a handful of messages are sent by the thousand when a daemon protects
// its connections, or takes them over: they make, attach, replicate, merge and close, and tell of it. All of them are one
// short object of numbers, handles and plain text, and `ControlJSON` writes each in one way only: without spaces, its keys
// in alphabetical order. In that form they are read and written here, for a tenth of what Foundation's coders take, which
// was a third of all that engine and library did for a connection. Whatever looks otherwise in the least, and whatever is
// wrong, is left to the coders, which know all of JSON and say what is the matter.

import Packet
import Replication

/// A JSON object in the form in which the control socket's frequent messages are written.
struct FlatObject {
  fileprivate enum Value {
    case number(UInt64)
    /// Of printable ASCII characters without quotes and backslashes: where they are.
    case text(Range<Int>)
    case truth(Bool)
    case object([Field])
  }

  fileprivate struct Field {
    var key: Range<Int>
    var value: Value
  }

  private let bytes: [UInt8]
  fileprivate let fields: [Field]

  private init(_ bytes: [UInt8], _ fields: [Field]) {
    self.bytes = bytes
    self.fields = fields
  }

  /// `nil` if it is something else, which may be good all the same.
  init?(_ bytes: [UInt8]) {
    var reader = Reader(bytes: bytes)
    guard let fields = reader.object(depth: 0), reader.isAtEnd else { return nil }
    self.init(bytes, fields)
  }

  // MARK: Reading

  private struct Reader {
    let bytes: [UInt8]
    var index = 0

    /// Objects inside of each other.
    private static let depthLimit = 1
    /// More is no frequent message, and each key is compared with all others.
    private static let fieldLimit = 8

    var isAtEnd: Bool { index == bytes.count }

    private mutating func take(_ byte: UInt8) -> Bool {
      guard index < bytes.count, bytes[index] == byte else { return false }
      index += 1
      return true
    }

    private mutating func take(_ word: StaticString) -> Bool {
      word.withUTF8Buffer { word in
        guard bytes.count - index >= word.count, bytes[index..<index + word.count].elementsEqual(word) else {
          return false
        }
        index += word.count
        return true
      }
    }

    mutating func object(depth: Int) -> [Field]? {
      guard depth <= Self.depthLimit, take(UInt8(ascii: "{")) else { return nil }
      if take(UInt8(ascii: "}")) { return [] }
      var fields: [Field] = []
      repeat {
        guard fields.count < Self.fieldLimit, let key = text(), take(UInt8(ascii: ":")),
          let value = value(depth: depth)
        else { return nil }
        // Which of two counts is for the coders to say.
        guard !fields.contains(where: { bytes[$0.key] == bytes[key] }) else { return nil }
        fields.append(Field(key: key, value: value))
      } while take(UInt8(ascii: ","))
      return take(UInt8(ascii: "}")) ? fields : nil
    }

    private mutating func value(depth: Int) -> Value? {
      guard index < bytes.count else { return nil }
      switch bytes[index] {
      case UInt8(ascii: "\""): return text().map { .text($0) }
      case UInt8(ascii: "{"): return object(depth: depth + 1).map { .object($0) }
      case UInt8(ascii: "0")...UInt8(ascii: "9"): return number().map { .number($0) }
      default:
        if take("true") { return .truth(true) }
        return take("false") ? .truth(false) : nil
      }
    }

    private mutating func text() -> Range<Int>? {
      guard take(UInt8(ascii: "\"")) else { return nil }
      let start = index
      while index < bytes.count, bytes[index].isPlain { index += 1 }
      let end = index
      return take(UInt8(ascii: "\"")) ? start..<end : nil
    }

    private mutating func number() -> UInt64? {
      let start = index
      var result: UInt64 = 0
      while index < bytes.count, case let digit = bytes[index] &- UInt8(ascii: "0"), digit < 10 {
        let (product, overflows) = result.multipliedReportingOverflow(by: 10)
        let (sum, overflowsToo) = product.addingReportingOverflow(UInt64(digit))
        guard !overflows, !overflowsToo else { return nil }
        result = sum
        index += 1
      }
      // A leading zero is no JSON. What goes on as a fraction ends no field.
      return bytes[start] == UInt8(ascii: "0") && index - start > 1 ? nil : result
    }
  }

  // MARK: Fields

  private func value(_ key: StaticString) -> Value? {
    key.withUTF8Buffer { key in fields.first { bytes[$0.key].elementsEqual(key) }?.value }
  }

  func has(_ key: StaticString) -> Bool { value(key) != nil }

  func number(_ key: StaticString) -> UInt64? {
    guard case .number(let number) = value(key) else { return nil }
    return number
  }

  func truth(_ key: StaticString) -> Bool? {
    guard case .truth(let truth) = value(key) else { return nil }
    return truth
  }

  func text(_ key: StaticString) -> String? {
    guard case .text(let range) = value(key) else { return nil }
    return String(decoding: bytes[range], as: UTF8.self)
  }

  func handle(_ key: StaticString) -> Handle? {
    guard case .text(let range) = value(key), (3...18).contains(range.count),
      bytes[range.lowerBound] == UInt8(ascii: "0"), bytes[range.lowerBound + 1] == UInt8(ascii: "x")
    else { return nil }
    var result: UInt64 = 0
    for byte in bytes[range.dropFirst(2)] {
      let digit: UInt8
      switch byte {
      case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = byte - UInt8(ascii: "0")
      case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = byte - UInt8(ascii: "a") + 10
      default: return nil
      }
      result = result << 4 | UInt64(digit)
    }
    return Handle(rawValue: result)
  }

  func object(_ key: StaticString) -> FlatObject? {
    guard case .object(let fields) = value(key) else { return nil }
    return FlatObject(bytes, fields)
  }

}

/// Writes an object as `ControlJSON` does. The caller gives the fields in the order of their keys.
struct FlatWriter {
  private(set) var bytes: [UInt8] = []

  init() {
    bytes.reserveCapacity(128)
    bytes.append(UInt8(ascii: "{"))
  }

  private mutating func append(_ text: StaticString) {
    text.withUTF8Buffer { bytes.append(contentsOf: $0) }
  }

  private mutating func begin(_ key: StaticString) {
    if bytes.last != UInt8(ascii: "{") { bytes.append(UInt8(ascii: ",")) }
    bytes.append(UInt8(ascii: "\""))
    append(key)
    append("\":")
  }

  mutating func add(_ key: StaticString, _ number: UInt64) {
    begin(key)
    appendDigits(of: number, radix: 10)
  }

  mutating func add(_ key: StaticString, _ truth: Bool) {
    begin(key)
    append(truth ? "true" : "false")
  }

  mutating func add(_ key: StaticString, _ handle: Handle) {
    begin(key)
    append("\"0x")
    appendDigits(of: handle.rawValue, radix: 16)
    bytes.append(UInt8(ascii: "\""))
  }

  /// - Parameter text: which needs no escape: printable ASCII characters, no quotes, no backslashes.
  mutating func add(_ key: StaticString, _ text: some StringProtocol) {
    begin(key)
    bytes.append(UInt8(ascii: "\""))
    bytes.append(contentsOf: text.utf8)
    bytes.append(UInt8(ascii: "\""))
  }

  mutating func beginObject(_ key: StaticString) {
    begin(key)
    bytes.append(UInt8(ascii: "{"))
  }

  /// Ends the innermost object that is open.
  mutating func end() { bytes.append(UInt8(ascii: "}")) }

  /// Whether `text` can be written without an escape.
  static func isPlain(_ text: some StringProtocol) -> Bool {
    text.utf8.allSatisfy(\.isPlain)
  }

  private mutating func appendDigits(of number: UInt64, radix: UInt64) {
    let start = bytes.count
    var rest = number
    repeat {
      let digit = UInt8(rest % radix)
      bytes.append(digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "a") + digit - 10)
      rest /= radix
    } while rest > 0
    bytes[start...].reverse()
  }
}

extension UInt8 {
  /// A printable ASCII character that stands for itself in a JSON string.
  fileprivate var isPlain: Bool {
    self >= 0x20 && self < 0x7F && self != UInt8(ascii: "\"") && self != UInt8(ascii: "\\")
  }
}

// MARK: - Frequent messages

extension ControlRequest {
  /// Reads one of the frequent requests; `nil` if it is another, or none.
  init?(_ object: FlatObject) {
    guard object.number("version") == UInt64(ControlProtocol.version), let id = object.number("id"),
      let name = object.text("request")
    else { return nil }
    let body: Body
    switch name {
    case "allocate": body = .allocate
    case "attach":
      guard let primary = object.handle("primary"), !object.has("transport") else { return nil }
      body = .attach(primary: primary)
    case "replicate":
      guard let primary = object.handle("primary"), let secondary = object.handle("secondary") else {
        return nil
      }
      body = .replicate(primary: primary, secondary: secondary)
    case "free", "unreplicate", "merge", "close":
      guard let handle = object.handle("handle"), !object.has("signing_key") else { return nil }
      switch name {
      case "free": body = .free(handle)
      case "unreplicate": body = .unreplicate(handle)
      case "merge": body = .merge(handle)
      default: body = .close(handle)
      }
    default: return nil
    }
    self.init(id: id, body: body)
  }

  /// The message of one of the frequent requests; `nil` for another.
  var flatMessage: [UInt8]? {
    var writer = FlatWriter()
    func end(_ name: StaticString, secondary: Handle? = nil) -> [UInt8] {
      writer.add("request", name.description)
      if let secondary { writer.add("secondary", secondary) }
      writer.add("version", UInt64(ControlProtocol.version))
      writer.end()
      return writer.bytes
    }
    switch body {
    case .allocate:
      writer.add("id", id)
      return end("allocate")
    case .attach(let primary, .tcp):
      writer.add("id", id)
      writer.add("primary", primary)
      return end("attach")
    case .replicate(let primary, let secondary):
      writer.add("id", id)
      writer.add("primary", primary)
      return end("replicate", secondary: secondary)
    case .free(let handle), .unreplicate(let handle), .merge(let handle, nil), .close(let handle):
      writer.add("handle", handle)
      writer.add("id", id)
      switch body {
      case .free: return end("free")
      case .unreplicate: return end("unreplicate")
      case .merge: return end("merge")
      default: return end("close")
      }
    default: return nil
    }
  }
}

extension ControlReply {
  /// Reads one of the frequent replies; `nil` if it is another, or none.
  init?(_ object: FlatObject) {
    guard object.number("version") == UInt64(ControlProtocol.version), let id = object.number("id"),
      let more = object.truth("more"), let result = object.object("result"), !object.has("error"),
      !object.has("event")
    else { return nil }
    if result.fields.isEmpty {
      self.init(id: id, more: more, outcome: .success(.done))
    } else if result.fields.count == 1, let handle = result.handle("handle") {
      self.init(id: id, more: more, outcome: .success(.handle(handle)))
    } else {
      return nil
    }
  }

  /// The message of one of the frequent replies; `nil` for another.
  var flatMessage: [UInt8]? {
    guard case .success(let body) = outcome else { return nil }
    var writer = FlatWriter()
    writer.add("id", id)
    writer.add("more", more)
    writer.beginObject("result")
    switch body {
    case .done: break
    case .handle(let handle): writer.add("handle", handle)
    default: return nil
    }
    writer.end()
    writer.add("version", UInt64(ControlProtocol.version))
    writer.end()
    return writer.bytes
  }
}

extension ControlEvent {
  /// Reads one of the frequent events; `nil` if it is another, or none.
  init?(_ object: FlatObject) {
    guard object.number("version") == UInt64(ControlProtocol.version), let name = object.text("event"),
      let time = object.number("time_ms").flatMap({ Int64(exactly: $0) }),
      let handle = object.handle("handle")
    else { return nil }
    switch name {
    case "replicated": self.init(.replicated(handle), timeMilliseconds: time)
    case "peer_closed": self.init(.peerClosed(handle), timeMilliseconds: time)
    case "unreplicated":
      guard let reason = object.text("reason") else { return nil }
      self.init(.unreplicated(handle, reason: reason), timeMilliseconds: time)
    default: return nil
    }
  }

  /// The message of one of the frequent events; `nil` for another.
  var flatMessage: [UInt8]? {
    guard let time = UInt64(exactly: timeMilliseconds) else { return nil }
    var writer = FlatWriter()
    switch kind {
    case .replicated(let handle):
      writer.add("event", "replicated")
      writer.add("handle", handle)
    case .peerClosed(let handle):
      writer.add("event", "peer_closed")
      writer.add("handle", handle)
    case .unreplicated(let handle, let reason):
      guard reason.utf8.count <= 1024, FlatWriter.isPlain(reason) else { return nil }
      writer.add("event", "unreplicated")
      writer.add("handle", handle)
      writer.add("reason", reason)
    default: return nil
    }
    writer.add("time_ms", time)
    writer.add("version", UInt64(ControlProtocol.version))
    writer.end()
    return writer.bytes
  }
}

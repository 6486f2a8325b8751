import Control
import Packet
import Yams

/// One value of the configuration file, with where it stands, and how to understand it.
struct ConfigurationValue {
  let file: String
  /// The key with the keys around it.
  let key: String
  let line: Int?
  let node: Node

  func wrong(_ message: String) -> ConfigurationError {
    ConfigurationError(file: file, line: line, key: key, message: message)
  }

  /// - Parameter expected: what the value should be, as in "must be …".
  private func text(_ expected: String) throws(ConfigurationError) -> String {
    guard case .scalar(let scalar) = node else { throw wrong("must be \(expected), not a list or mapping") }
    guard !scalar.string.isEmpty else { throw wrong("must be \(expected), but there is no value") }
    return scalar.string
  }

  /// A number or truth value must not stand in quotes: `"1"` is a text.
  private func plain(_ expected: String) throws(ConfigurationError) -> String {
    let text = try text(expected)
    guard case .scalar(let scalar) = node, scalar.style == .plain || scalar.style == .any else {
      throw wrong("must be \(expected), not the text \"\(text)\"")
    }
    return text
  }

  func string(_ expected: String, where isValid: (String) -> Bool) throws(ConfigurationError) -> String {
    let text = try text(expected)
    guard isValid(text) else { throw wrong("must be \(expected), not \"\(text)\"") }
    return text
  }

  func integer(in range: ClosedRange<Int>) throws(ConfigurationError) -> Int {
    let expected = "a number from \(range.lowerBound) to \(range.upperBound)"
    let text = try plain(expected)
    guard let value = Int(text), range.contains(value) else {
      throw wrong("must be \(expected), not \(text)")
    }
    return value
  }

  func truth() throws(ConfigurationError) -> Bool {
    switch try plain("true or false") {
    case "true": return true
    case "false": return false
    case let text: throw wrong("must be true or false, not \(text)")
    }
  }

  func choice<Choice: RawRepresentable<String> & CaseIterable>(
    _: Choice.Type
  ) throws(ConfigurationError) -> Choice {
    let names = Choice.allCases.map(\.rawValue)
    let expected = names.count == 1 ? names[0] : "one of \(names.joined(separator: ", "))"
    let text = try text(expected)
    guard let choice = Choice(rawValue: text) else { throw wrong("must be \(expected), not \(text)") }
    return choice
  }

  /// A number directly followed by `us`, `ms`, `s` or `m`.
  func duration(in range: ClosedRange<Duration>) throws(ConfigurationError) -> Duration {
    let text = try plain(SettingValue.expectedDuration)
    do throws(SettingValue.Invalid) {
      return try SettingValue.duration(text, in: range)
    } catch {
      throw wrong("\(error)")
    }
  }

  /// A number directly followed by `B`, `KiB`, `MiB` or `GiB`. In bytes.
  func size(in range: ClosedRange<Int>) throws(ConfigurationError) -> Int {
    let text = try plain(SettingValue.expectedSize)
    do throws(SettingValue.Invalid) {
      return try SettingValue.size(text, in: range)
    } catch {
      throw wrong("\(error)")
    }
  }

  /// An address with its port: `10.77.0.1:7000` or `[2001:db8::1]:7000`.
  func endpoint() throws(ConfigurationError) -> Endpoint {
    let expected = "an address with a port, such as 10.77.0.1:7000 or [2001:db8::1]:7000"
    let text = try text(expected)
    guard let colon = text.lastIndex(of: ":") else { throw wrong("must be \(expected), not \(text)") }
    var host = text[..<colon]
    let bracketed = host.hasPrefix("[") && host.hasSuffix("]")
    if bracketed { host = host.dropFirst().dropLast() }
    guard let address = IPAddress(host), bracketed == (address.family == .v6) else {
      throw wrong("must be \(expected), not \(text)")
    }
    guard let port = UInt16(text[text.index(after: colon)...]), port > 0 else {
      throw wrong("must end in a port from 1 to 65535, unlike \(text)")
    }
    return Endpoint(address, port)
  }

  /// A path; a relative one begins at the folder of the configuration file.
  func path() throws(ConfigurationError) -> String {
    let text = try string("the path of a file") { !$0.hasSuffix("/") && !$0.contains("\0") }
    guard !text.hasPrefix("/"), let slash = file.lastIndex(of: "/") else { return text }
    return file[...slash] + text
  }

  /// A name that a certificate may carry (RFC 1123, section 2.1), in lower case.
  func hostName() throws(ConfigurationError) -> String {
    try string("a DNS name such as re1 or re1.example.net") { name in
      name.utf8.count <= 253
        && name.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { label in
          (1...63).contains(label.utf8.count) && label.first != "-" && label.last != "-"
            && label.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-") }
        }
    }.lowercased()
  }

  /// A mapping of its own, as an element of a list.
  func section() throws(ConfigurationError) -> ConfigurationSection {
    try ConfigurationSection(file: file, path: key + ".", key: key, node: node, line: line)
  }

  /// The elements of a list, each with its own line.
  func list(_ expected: String) throws(ConfigurationError) -> [ConfigurationValue] {
    guard case .sequence(let sequence) = node else { throw wrong("must be a list of \(expected)") }
    guard !sequence.isEmpty else {
      throw wrong("must be a list of at least one of \(expected), but is empty")
    }
    return sequence.enumerated().map { index, element in
      ConfigurationValue(
        file: file, key: "\(key)[\(index)]", line: element.mark?.line ?? line, node: element)
    }
  }
}

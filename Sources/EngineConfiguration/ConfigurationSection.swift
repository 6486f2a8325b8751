import Yams

/// One mapping of the configuration file while it is read: each key is taken out by whoever knows it, and what
/// is left at the end is unknown.
///
/// Keys and values keep the line they stand on, so that every complaint can name it.
struct ConfigurationSection {
  let file: String
  /// The keys around this mapping, with dots between and one at the end; empty for the whole file.
  let path: String
  /// Where the mapping starts, for keys that are missing.
  let line: Int?
  private var entries: [(key: String, line: Int?, value: Node)]

  /// The whole file.
  init(file: String, root: Node) throws(ConfigurationError) {
    try self.init(file: file, path: "", key: nil, node: root, line: root.mark?.line)
  }

  init(file: String, path: String, key: String?, node: Node, line: Int?) throws(ConfigurationError) {
    guard case .mapping(let mapping) = node else {
      throw ConfigurationError(
        file: file, line: line, key: key, message: "must be a mapping of keys to values")
    }
    self.file = file
    self.path = path
    self.line = line
    entries = []
    for (key, value) in mapping {
      guard case .scalar(let scalar) = key else {
        throw ConfigurationError(
          file: file, line: key.mark?.line, key: nil, message: "a key must be a word, not a list or mapping")
      }
      entries.append((scalar.string, scalar.mark?.line, value))
    }
  }

  // MARK: - Taking keys

  /// Whether the key stands in the file and was not taken yet.
  func has(_ key: String) -> Bool { entries.contains { $0.key == key } }

  /// Takes the value of a key; `nil` if the key is not there.
  mutating func take(_ key: String) -> ConfigurationValue? {
    guard let index = entries.firstIndex(where: { $0.key == key }) else { return nil }
    let entry = entries.remove(at: index)
    return ConfigurationValue(file: file, key: path + key, line: entry.line, node: entry.value)
  }

  /// Takes the value of a key that must be there.
  mutating func require(_ key: String) throws(ConfigurationError) -> ConfigurationValue {
    guard let value = take(key) else {
      throw ConfigurationError(file: file, line: line, key: path + key, message: "is missing")
    }
    return value
  }

  /// Takes a mapping; `nil` if the key is not there.
  mutating func takeSection(_ key: String) throws(ConfigurationError) -> ConfigurationSection? {
    guard let value = take(key) else { return nil }
    return try ConfigurationSection(
      file: file, path: value.key + ".", key: value.key, node: value.node, line: value.line)
  }

  /// To be called when every known key was taken.
  func finish(known: [String]) throws(ConfigurationError) {
    guard let entry = entries.first else { return }
    throw ConfigurationError(
      file: file, line: entry.line, key: path + entry.key,
      message: "is not known; the keys here are \(known.joined(separator: ", "))")
  }
}

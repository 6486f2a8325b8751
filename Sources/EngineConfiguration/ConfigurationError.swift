/// What is wrong with the configuration: one line that names file, line and key. `jsrd` ends with exit status
/// 78 (`EX_CONFIG`) after printing it.
public struct ConfigurationError: Error, Hashable, Sendable, CustomStringConvertible {
  public let file: String
  /// From 1; `nil` if the file as a whole is meant.
  public let line: Int?
  /// The key with the keys around it, such as `mastership.keepalive.misses`; `nil` if none is meant.
  public let key: String?
  /// What is wrong and what would be right.
  public let message: String

  public init(file: String, line: Int?, key: String?, message: String) {
    self.file = file
    self.line = line
    self.key = key
    self.message = message
  }

  /// `jsrd.yaml:12: mastership.keepalive.misses: …`
  public var description: String {
    let place = line.map { "\(file):\($0)" } ?? file
    let text = key.map { "\(place): \($0): \(message)" } ?? "\(place): \(message)"
    // A message may quote what stands in the file; it stays one line whatever that is.
    return text.split(whereSeparator: \.isNewline).joined(separator: " ")
  }
}

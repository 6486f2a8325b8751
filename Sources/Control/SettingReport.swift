/// One setting of the engine, as it is now.
public struct SettingReport: Sendable, Hashable, Codable {
  /// One of `SettingName`.
  public var name: String
  /// Written as in the configuration file, such as `500ms` or `4MiB`.
  public var value: String

  public init(name: SettingName, value: String) {
    self.name = name.rawValue
    self.value = value
  }
}

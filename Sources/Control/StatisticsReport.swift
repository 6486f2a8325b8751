/// One line of `show statistics`: a count or a level of one layer.
public struct StatisticsReport: Sendable, Hashable, Codable {
  /// `kkcm`, `iha`, `sdrl`, `prl`, `psrm`, `mastership` or `engine`.
  public var layer: String
  /// The routing instance that it is about; `nil` if it is about all of them.
  public var instance: String?
  /// Lower case with underscores, stable.
  public var name: String
  public var value: Int64
  /// `bytes`, `packets`, `records`, `sockets`, `ms` and the like.
  public var unit: String

  public init(layer: String, instance: String? = nil, name: String, value: Int64, unit: String) {
    self.layer = layer
    self.instance = instance
    self.name = name
    self.value = value
    self.unit = unit
  }
}

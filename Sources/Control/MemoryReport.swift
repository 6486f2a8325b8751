/// One line of `show memory`: how full something is that takes memory. A field without a value is missing in
/// JSON.
public struct MemoryReport: Sendable, Hashable, Codable {
  /// Lower case with underscores, stable.
  public var area: String
  public var used: Int64
  /// The most that there can be; missing where nothing but the machine sets one.
  public var limit: Int64?
  /// `bytes`, `handles`, `descriptors` and the like.
  public var unit: String

  public init(area: String, used: Int64, limit: Int64?, unit: String) {
    self.area = area
    self.used = used
    self.limit = limit
    self.unit = unit
  }
}

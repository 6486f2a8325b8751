extension MemoryReport {
  /// For people: a table with a line for each area.
  public static func table(_ areas: [MemoryReport]) -> String {
    var table = TextTable([("Area", .left), ("Used", .right), ("Limit", .right), ("Unit", .left)])
    for area in areas {
      table.append([area.area, "\(area.used)", area.limit.map { "\($0)" } ?? "-", area.unit])
    }
    return table.text
  }
}

extension StatisticsReport {
  /// For people: a table with a line for each figure.
  public static func table(_ statistics: [StatisticsReport]) -> String {
    var table = TextTable([("Layer", .left), ("Name", .left), ("Value", .right), ("Unit", .left)])
    for figure in statistics {
      table.append([figure.layer, figure.name, "\(figure.value)", figure.unit])
    }
    return table.text
  }
}

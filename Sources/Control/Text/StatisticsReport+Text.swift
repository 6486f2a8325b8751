extension StatisticsReport {
  /// For people: a table with a line for each figure.
  public static func table(_ statistics: [StatisticsReport]) -> String {
    let hasInstances = statistics.contains { $0.instance != nil }
    var columns: [TextTable.Column] = [("Layer", .left), ("Name", .left), ("Value", .right), ("Unit", .left)]
    if hasInstances { columns.append(("Instance", .left)) }
    var table = TextTable(columns)
    for figure in statistics {
      let row = [figure.layer, figure.name, "\(figure.value)", figure.unit]
      table.append(hasInstances ? row + [figure.instance ?? ""] : row)
    }
    return table.text
  }
}

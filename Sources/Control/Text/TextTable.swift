/// Rows of words, put in columns that are as wide as their widest word.
struct TextTable {
  enum Alignment { case left, right }

  typealias Column = (title: String, alignment: Alignment)

  private let alignments: [Alignment]
  private var rows: [[String]]

  init(_ columns: [Column]) {
    alignments = columns.map(\.alignment)
    rows = [columns.map(\.title)]
  }

  mutating func append(_ row: [String]) {
    precondition(row.count == alignments.count, "a row has a word for each column")
    rows.append(row)
  }

  /// One line for each row, the titles first, without a newline at the end.
  var text: String {
    var widths = alignments.map { _ in 0 }
    for row in rows {
      for (column, word) in row.enumerated() { widths[column] = max(widths[column], word.count) }
    }
    return rows.map { row in
      var line = ""
      for (column, word) in row.enumerated() {
        let space = String(repeating: " ", count: widths[column] - word.count)
        if column > 0 { line += "  " }
        line += alignments[column] == .left ? word + space : space + word
      }
      while line.last == " " { line.removeLast() }
      return line
    }.joined(separator: "\n")
  }
}

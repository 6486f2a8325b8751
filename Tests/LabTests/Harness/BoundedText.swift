/// What a program printed, line by line, with the oldest lines given up when there are too many.
struct BoundedText: Sendable {
  /// Bytes of text kept at most.
  static let limit = 16 << 20

  private(set) var lines: [String] = []
  /// Lines given up since the start.
  private(set) var droppedLineCount = 0
  private var kept = 0
  private var unfinished: [UInt8] = []

  mutating func append(_ bytes: UnsafeRawBufferPointer) {
    var rest = bytes[...]
    while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
      unfinished.append(contentsOf: rest[..<end])
      finishLine()
      rest = rest[(end + 1)...]
    }
    unfinished.append(contentsOf: rest)
    if unfinished.count > Self.limit { finishLine() }
  }

  /// Takes what follows the last newline for a line of its own: the program has ended.
  mutating func finish() {
    if !unfinished.isEmpty { finishLine() }
  }

  private mutating func finishLine() {
    lines.append(String(decoding: unfinished, as: UTF8.self))
    kept += unfinished.count + 1
    unfinished.removeAll(keepingCapacity: true)
    guard kept > Self.limit else { return }
    let half = lines.count / 2
    lines.removeFirst(half)
    droppedLineCount += half
    kept = lines.reduce(0) { $0 + $1.utf8.count + 1 }
  }
}

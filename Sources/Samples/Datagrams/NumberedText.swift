/// What the datagrams of the mini tools say: who sends, and the how-manieth it is, such as `re0 17`.
struct NumberedText: Hashable, CustomStringConvertible {
  var sender: String
  var number: UInt64

  init(sender: String, number: UInt64) {
    self.sender = sender
    self.number = number
  }

  /// Reads a datagram; `nil` if it says something else.
  init?(_ payload: some Collection<UInt8>) {
    guard let text = String(validating: Array(payload), as: UTF8.self) else { return nil }
    let words = text.split(separator: " ")
    guard words.count == 2, let number = UInt64(words[1]), number > 0 else { return nil }
    self.init(sender: String(words[0]), number: number)
  }

  var description: String { "\(sender) \(number)" }
}

/// The numbers that have come of one sender, which are to rise by one.
struct NumberSequence: Hashable {
  private(set) var last: UInt64 = 0
  private(set) var received: UInt64 = 0
  /// Numbers that were left out, and have not come since.
  private(set) var lost: UInt64 = 0
  /// Numbers that came behind higher ones, for the first time.
  private(set) var late: UInt64 = 0
  /// Numbers that came again, or so late that nobody can tell.
  private(set) var repeated: UInt64 = 0
  /// Those of the last ``memory`` numbers that have come.
  private var seen: Set<UInt64> = []
  /// Numbers above this one count as lost when they are left out.
  private var start: UInt64 = 0
  /// So many more numbers may leave out any: the sequence was joined in the middle, perhaps with a late one.
  private var joining = 0

  /// How far back numbers are known.
  static let memory: UInt64 = 8192
  /// How many numbers it takes to join a sequence.
  static let joiningCount = 64

  /// What is to be said of a number beside itself; empty if it is the next one.
  mutating func note(_ number: UInt64) -> String {
    received += 1
    defer { remember(number) }
    if joining > 0 {
      if number > last || joining == Self.joiningCount {
        start = number
        last = number
      }
      joining -= 1
      if number == last { return "" }
    }
    guard number > last else {
      guard number + Self.memory > last, !seen.contains(number) else {
        repeated += 1
        return ", REPEATED after \(last)"
      }
      late += 1
      if number > start { lost -= 1 }
      return ", LATE after \(last)"
    }
    let missing = number - last - 1
    lost += missing
    last = number
    return missing == 0 ? "" : ", \(missing) LOST before it"
  }

  private mutating func remember(_ number: UInt64) {
    seen.insert(number)
    if seen.count > 2 * Self.memory { seen = seen.filter { $0 + Self.memory > last } }
  }

  /// Whatever number comes next is the first that could be expected, and nothing is known of those before.
  mutating func join() {
    joining = Self.joiningCount
    seen = []
  }

  /// What has become of the numbers.
  var summary: String { "lost \(lost), late \(late), repeated \(repeated)" }
}

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
  /// Numbers that were left out.
  private(set) var lost: UInt64 = 0
  /// Numbers that are not above the last one: they came twice, or late.
  private(set) var repeated: UInt64 = 0
  /// The next number may be any: the sequence is joined in the middle.
  private var isJoining = false

  /// What is to be said of a number beside itself; empty if it is the next one.
  mutating func note(_ number: UInt64) -> String {
    received += 1
    if isJoining {
      isJoining = false
      last = number
      return ""
    }
    guard number > last else {
      repeated += 1
      return ", REPEATED after \(last)"
    }
    let missing = number - last - 1
    lost += missing
    last = number
    return missing == 0 ? "" : ", \(missing) LOST before it"
  }

  /// Whatever number comes next is the first that could be expected.
  mutating func join() { isJoining = true }
}

/// Something that is measured: an operation that can be done as often as one likes.
public struct Workload: Sendable {
  public let name: String
  /// Makes ready what the operation needs. What it returns does the operation so many times, and traps if the result
  /// is wrong: so nothing of it can be left out.
  public let prepare: @Sendable () -> (_ times: Int) -> Void

  init(_ name: String, prepare: @escaping @Sendable () -> (_ times: Int) -> Void) {
    self.name = name
    self.prepare = prepare
  }

  public static let all: [Workload] = records + packets + flows + primary + secondary + control
}

/// A state, and an operation on it.
protocol Repeatable {
  mutating func run(_ times: Int)
}

/// The operation of a workload whose state goes on from one time to the next.
func repeating(_ state: some Repeatable) -> (_ times: Int) -> Void {
  var state = state
  // Taken hold of once for all times: a captured variable is checked for exclusive access whenever it is used.
  return { times in state.run(times) }
}

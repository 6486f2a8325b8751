import NIOCore

extension EventLoop {
  /// Does `task` when it has been looked for input, and what there was has been dealt with.
  ///
  /// With `execute` a chain of tasks of which each asks for the next one is one turn of the loop, before any input: NIO goes
  /// on for as long as there is a task (`runOneLoopTick` of SelectableEventLoop in NIOPosix). A task that is due in a moment
  /// lets it look first, without sleeping.
  func executeBehindInput(_ task: @escaping @Sendable () -> Void) {
    scheduleTask(in: .microseconds(1), task)
  }
}

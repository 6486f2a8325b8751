import NIOCore

extension EventLoop {
  /// Does `task` when it has been looked for input, and what there was has been dealt with; to be asked for at the end of
  /// another task.
  ///
  /// With `execute` a chain of tasks of which each asks for the next one is one turn of the loop, before any input: NIO goes
  /// on for as long as there is a task that is due (`runOneLoopTick` of SelectableEventLoop in NIOPosix). One that is due in
  /// a moment lets it look first.
  ///
  /// - Parameter delay: longer than it takes to come from here to the end of the task, where NIO looks at the clock; if
  ///   there is no input, the loop sleeps for so long.
  func executeBehindInput(after delay: TimeAmount = .microseconds(50), _ task: @escaping @Sendable () -> Void)
  {
    scheduleTask(in: delay, task)
  }
}

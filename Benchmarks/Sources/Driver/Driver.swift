import AllocationCounter
import Workloads

/// Does one operation so many times and little else, so that what valgrind counts is repeatable; or counts what it
/// takes from the heap.
@main enum Driver {
  static func main() {
    let arguments = CommandLine.arguments.dropFirst()
    if arguments.elementsEqual(["list"]) {
      for workload in Workload.all { print(workload.name) }
      return
    }
    guard arguments.count == 3, let command = arguments.first,
      let workload = Workload.all.first(where: { $0.name == arguments.dropFirst().first }),
      let times = arguments.last.flatMap({ Int($0) }), times > 0
    else { fatalError("usage: Driver list | run NAME TIMES | allocations NAME TIMES") }
    switch command {
    case "run": workload.prepare()(times)
    case "allocations": print(allocations(of: workload, times))
    default: fatalError("there is no command \(command)")
    }
  }

  /// How many allocations an operation takes.
  private static func allocations(of workload: Workload, _ times: Int) -> Double {
    precondition(allocations { _ = Array("\(times)") } > 0, "allocations are not counted")
    let run = workload.prepare()
    // What queues grow by is paid for once.
    run(2 * times)
    // What is checked once for all times is the same in both, and not counted.
    let once = allocations { run(times) }
    let twice = allocations { run(2 * times) }
    return Double(twice - once) / Double(times)
  }

  private static func allocations(_ body: () -> Void) -> Int64 {
    allocation_counter_start()
    body()
    return allocation_counter_stop()
  }
}

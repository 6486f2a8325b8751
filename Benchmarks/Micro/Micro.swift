import Benchmark
import Workloads

/// What the benchmark plugin runs: how long each workload takes, a thousand times over.
let benchmarks: @Sendable () -> Void = {
  for workload in Workload.all {
    let run = workload.prepare()
    Benchmark(
      workload.name,
      configuration: .init(
        // The format in which the results are written (JMH) wants the throughput too.
        metrics: [.wallClock, .throughput], warmupIterations: 10, scalingFactor: .kilo,
        maxDuration: .seconds(1), maxIterations: 100_000)
    ) { benchmark in
      run(benchmark.scaledIterations.count)
    }
  }
}

// swift-tools-version: 6.1
// Micro-benchmarks of what every packet and every control message costs. Built and run by scripts/micro-benchmarks;
// a package of its own, so that nobody who builds JSR builds it too.

import PackageDescription

let strict: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
]

let control = Target.Dependency.product(name: "Control", package: "jsr")
let packet = Target.Dependency.product(name: "Packet", package: "jsr")
let replication = Target.Dependency.product(name: "Replication", package: "jsr")

let package = Package(
  name: "benchmarks",
  dependencies: [
    .package(name: "jsr", path: ".."),
    .package(name: "fuzz", path: "../Fuzz"),
    // Without its traits, which bring in counters of their own: allocations and instructions are the driver's to count.
    .package(url: "https://github.com/ordo-one/benchmark", exact: "1.38.1", traits: []),
  ],
  targets: [
    // What is measured: by name, an operation that can be done as often as one likes, and checks its result.
    .target(
      name: "Workloads",
      dependencies: [control, packet, replication, .product(name: "Pair", package: "fuzz")],
      swiftSettings: strict),

    // How long each takes. The plugins look for benchmarks in folders that stand in one named Benchmarks.
    .executableTarget(
      name: "Micro", dependencies: ["Workloads", .product(name: "Benchmark", package: "benchmark")],
      path: "Micro", swiftSettings: strict,
      plugins: [.plugin(name: "BenchmarkPlugin", package: "benchmark")]),

    // Does one of them so many times and nothing else, for valgrind to count; and counts allocations.
    .executableTarget(
      name: "Driver",
      dependencies: ["Workloads", .product(name: "AllocationCounter", package: "jsr")],
      swiftSettings: strict),
  ]
)

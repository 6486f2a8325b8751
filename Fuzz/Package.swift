// swift-tools-version: 6.1
// Fuzz targets for everything in JSR that reads bytes from outside. Built and run by scripts/fuzz, which adds
// the instrumentation; a package of its own, so that nobody who builds JSR builds it too.

import PackageDescription

let strict: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
]

let control = Target.Dependency.product(name: "Control", package: "jsr")
let engineConfiguration = Target.Dependency.product(name: "EngineConfiguration", package: "jsr")
let packet = Target.Dependency.product(name: "Packet", package: "jsr")
let replication = Target.Dependency.product(name: "Replication", package: "jsr")

let package = Package(
  name: "fuzz",
  // For the package of micro-benchmarks in the folder Benchmarks.
  products: [.library(name: "Pair", targets: ["Pair"])],
  dependencies: [.package(name: "jsr", path: "..")],
  targets: [
    .systemLibrary(name: "CLibFuzzer"),
    // The loop around a target, and the cursor that turns an input into choices.
    .target(name: "Fuzzing", dependencies: ["CLibFuzzer"], swiftSettings: strict),
    // Two nodes that speak to each other, up to the state that a target wants to start from.
    .target(name: "Pair", dependencies: [packet, replication], swiftSettings: strict),

    .executableTarget(
      name: "LinkInput", dependencies: ["Fuzzing", "Pair", packet, replication], swiftSettings: strict),
    .executableTarget(name: "PacketViews", dependencies: ["Fuzzing", packet], swiftSettings: strict),
    .executableTarget(
      name: "ControlMessages", dependencies: ["Fuzzing", control, replication], swiftSettings: strict),
    .executableTarget(
      name: "ConfigurationText", dependencies: ["Fuzzing", engineConfiguration, packet], swiftSettings: strict
    ),

    // Writes what the corpora begin with: real messages. Built without instrumentation.
    .executableTarget(
      name: "Seeds", dependencies: ["Pair", control, packet, replication], swiftSettings: strict),
  ]
)

// swift-tools-version: 6.1
// JSR: socket replication for nonstop routing.
//
// Arrows between targets point down only: what stands lower in this file may use what stands higher.

import PackageDescription

let strict: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
]

// What brings its own Swift runtime along when it is linked for release. FoundationEssentials does not name all that it
// is made of.
let staticRuntime = ["-static-stdlib", "-l_FoundationCollections", "-l_FoundationCShims"]

// How libjsr.so is linked for release: a C program needs nothing else, and sees nothing but what jsr.h declares.
let cLibraryFlags =
  staticRuntime + [
    "-Xlinker", "-soname=libjsr.so.0",
    "-Xlinker", "--version-script=\(Context.packageDirectory)/Sources/JSRC/libjsr.map",
    // Its threads and Swift's runtime cannot be unloaded.
    "-Xlinker", "-z", "-Xlinker", "nodelete",
  ]

let package = Package(
  name: "jsr",
  products: [
    .library(name: "JSR", targets: ["JSR"]),
    // For the packages of fuzz targets and of micro-benchmarks, in the folders Fuzz and Benchmarks.
    .library(name: "AllocationCounter", targets: ["AllocationCounter"]),
    .library(name: "Control", targets: ["Control"]),
    .library(name: "EngineConfiguration", targets: ["EngineConfiguration"]),
    .library(name: "Packet", targets: ["Packet"]),
    .library(name: "Replication", targets: ["Replication"]),
    // libjsr.so, the library for C: installed with its header by scripts/install.
    .library(name: "jsr", type: .dynamic, targets: ["JSRC"]),
    .executable(name: "jsrd", targets: ["jsrd"]),
    .executable(name: "jsrctl", targets: ["jsrctl"]),
    .executable(name: "jsrutil", targets: ["jsrutil"]),
    .executable(name: "jsrpeer", targets: ["jsrpeer"]),
    .executable(name: "jsrutil_mini", targets: ["jsrutil_mini"]),
    .executable(name: "jsrpeer_mini", targets: ["jsrpeer_mini"]),
    .executable(name: "jsrsim", targets: ["jsrsim"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
    .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
    .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
  ],
  targets: [
    // The kernel's headers, and inline shims for what Swift cannot import.
    .target(name: "CLinux"),
    .systemLibrary(
      name: "CNftables", pkgConfig: "libnftables", providers: [.apt(["libnftables-dev"])]),
    .systemLibrary(name: "CNftnl", pkgConfig: "libnftnl", providers: [.apt(["libnftnl-dev"])]),

    // Views on Ethernet, IP, TCP and UDP; checksums; sequence arithmetic. No system, no Foundation.
    .target(name: "Packet", swiftSettings: strict),

    // The protocol: bytes and times in, actions out. No system, no Foundation, no clock, no threads.
    .target(
      name: "Replication",
      dependencies: [
        "Packet", .product(name: "DequeModule", package: "swift-collections"),
        .product(name: "OrderedCollections", package: "swift-collections"),
      ],
      swiftSettings: strict),

    // A pair of routing engines, their peers and networks in one process, from a seed: tests the protocol.
    .target(
      name: "Simulation",
      dependencies: ["Packet", "Replication", .product(name: "HeapModule", package: "swift-collections")],
      swiftSettings: strict),

    // Owned file descriptors, system call errors, readiness.
    .target(name: "Descriptors", dependencies: ["CLinux"], swiftSettings: strict),

    // TAP, packet socket, TCP_REPAIR, nftables, addresses: each a small type that does one thing.
    .target(
      name: "LinuxNetworking", dependencies: ["CLinux", "CNftables", "CNftnl", "Descriptors", "Packet"],
      swiftSettings: strict),

    // What is spoken on the control socket, by the engine on one side and JSR and jsrctl on the other.
    .target(
      name: "Control", dependencies: ["CLinux", "Descriptors", "Packet", "Replication"],
      swiftSettings: strict),

    // What applications link.
    .target(
      name: "JSR", dependencies: ["CLinux", "Control", "Descriptors", "Packet", "Replication"],
      swiftSettings: strict),

    // The same for C: jsr.h, and the functions that it declares, which the compiler checks against it.
    .target(name: "CJSR"),
    .target(
      name: "JSRC", dependencies: ["CJSR", "Descriptors", "JSR"], exclude: ["libjsr.map"],
      swiftSettings: strict, linkerSettings: [.unsafeFlags(cLibraryFlags, .when(configuration: .release))]),

    // What jsrd is told by its configuration file.
    .target(
      name: "EngineConfiguration",
      dependencies: [
        "Control", "Packet", "Replication", .product(name: "Logging", package: "swift-log"),
        .product(name: "Yams", package: "Yams"),
      ],
      swiftSettings: strict),

    // Where log lines go: a thread that writes them, so that nobody who logs waits.
    .target(
      name: "Logs",
      dependencies: [
        "CLinux", "Descriptors", .product(name: "DequeModule", package: "swift-collections"),
        .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: strict),

    // Joins the protocol to the machine on one SwiftNIO event loop.
    .target(
      name: "Engine",
      dependencies: [
        "CLinux", "Control", "Descriptors", "EngineConfiguration", "LinuxNetworking", "Packet", "Replication",
        .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "NIOEmbedded", package: "swift-nio"),
        .product(name: "NIOPosix", package: "swift-nio"),
        .product(name: "NIOSSL", package: "swift-nio-ssl"),
        .product(name: "NIOTLS", package: "swift-nio"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "DequeModule", package: "swift-collections"),
      ],
      // All of it runs on one event loop, and its tests with the checks.
      swiftSettings: strict + [
        .unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release))
      ]),

    // Makes the keys and certificates of the inter-RE link, with openssl(1).
    .target(name: "LinkKeys", swiftSettings: strict),

    // The echo server and the traffic tool of the lab, as a library so that they can be tested.
    .target(
      name: "Samples", dependencies: ["CLinux", "Descriptors", "JSR"], swiftSettings: strict),

    .executableTarget(
      name: "jsrd",
      dependencies: [
        "CLinux", "Descriptors", "Engine", "EngineConfiguration", "LinuxNetworking", "Logs",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "NIOPosix", package: "swift-nio"),
      ], swiftSettings: strict,
      // A runtime of its own costs less with each call, and needs nothing on the machine.
      linkerSettings: [
        .unsafeFlags(
          staticRuntime + ["-lCoreFoundation", "-l_FoundationICU"], .when(configuration: .release))
      ]),
    .executableTarget(
      name: "jsrctl",
      dependencies: [
        "Control", "LinkKeys", "Replication",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ], swiftSettings: strict),
    .executableTarget(
      name: "jsrutil",
      dependencies: [
        "Samples", .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ], swiftSettings: strict),
    .executableTarget(
      name: "jsrpeer",
      dependencies: [
        "Samples", .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ], swiftSettings: strict),

    // The same two for UDP, with short numbered messages.
    .executableTarget(
      name: "jsrutil_mini",
      dependencies: [
        "Samples", .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ], swiftSettings: strict),
    .executableTarget(
      name: "jsrpeer_mini",
      dependencies: [
        "Samples", .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ], swiftSettings: strict),

    .executableTarget(
      name: "jsrsim",
      dependencies: [
        "Replication", "Simulation", .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ], swiftSettings: strict),

    // How long it takes to rebuild a connection; for scripts/bench.
    .executableTarget(
      name: "restore-benchmark", dependencies: ["Descriptors", "LinuxNetworking"], swiftSettings: strict),

    // The listing of the README: compiled with everything else, so that it stays true.
    .target(name: "Handover", dependencies: ["JSR"], path: "Examples/Handover", swiftSettings: strict),

    // The echo server of the documentation in Swift, as that in C is in Examples/echo-c.
    .executableTarget(
      name: "echo-swift", dependencies: ["JSR"], path: "Examples/echo-swift", swiftSettings: strict),

    .testTarget(name: "PacketTests", dependencies: ["Packet"], swiftSettings: strict),
    // Counts the objects that Swift allocates.
    .target(name: "AllocationCounter", path: "Tests/AllocationCounter"),
    .testTarget(
      name: "ReplicationTests",
      dependencies: [
        "AllocationCounter", "Replication", "Packet", "Simulation",
        .product(name: "OrderedCollections", package: "swift-collections"),
      ],
      swiftSettings: strict),
    .testTarget(
      name: "SimulationTests", dependencies: ["Packet", "Replication", "Simulation"], swiftSettings: strict),
    .testTarget(
      name: "LinuxNetworkingTests",
      dependencies: ["LinuxNetworking", "CLinux", "Descriptors", "Packet"], swiftSettings: strict),
    .testTarget(
      name: "ControlTests", dependencies: ["Control", "JSR", "Descriptors", "CLinux", "Packet"],
      swiftSettings: strict),
    .testTarget(
      name: "EngineConfigurationTests",
      dependencies: ["EngineConfiguration", "Packet", .product(name: "Logging", package: "swift-log")],
      swiftSettings: strict),
    .testTarget(
      name: "EngineTests",
      dependencies: [
        "CLinux", "Control", "Descriptors", "Engine", "EngineConfiguration", "Packet", "Replication",
        .product(name: "Logging", package: "swift-log"), .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "NIOPosix", package: "swift-nio"),
      ], swiftSettings: strict),
    // What LinkTests does not need: keys, and TLS at the other side.
    .testTarget(
      name: "LinkSecurityTests",
      dependencies: [
        "CLinux", "Descriptors", "Engine", "EngineConfiguration", "LinkKeys", "Packet", "Replication",
        .product(name: "Logging", package: "swift-log"), .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "NIOPosix", package: "swift-nio"), .product(name: "NIOSSL", package: "swift-nio-ssl"),
      ], swiftSettings: strict),
    .testTarget(
      name: "LogsTests",
      dependencies: ["Descriptors", "Logs", .product(name: "Logging", package: "swift-log")],
      swiftSettings: strict),
    // Runs the programs as they were built, and links none of them.
    .testTarget(name: "ProgramTests", swiftSettings: strict),
    .testTarget(name: "SamplesTests", dependencies: ["Samples"], swiftSettings: strict),
    .testTarget(
      name: "LabTests", dependencies: ["CLinux", "Control", "Descriptors", "JSR", "Packet", "Replication"],
      swiftSettings: strict),
  ]
)

if Context.environment["JSR_ONLY_THREADED_TESTS"] != nil {
  // For the thread sanitizer, which has no use for programs, for the tests of these and of the lab, nor for tests of what
  // has one thread. They take long to compile.
  let programs: Set = [
    "jsrd", "jsrctl", "jsrutil", "jsrpeer", "jsrutil_mini", "jsrpeer_mini", "jsrsim", "echo-swift",
  ]
  let others: Set = [
    "LabTests", "ProgramTests", "PacketTests", "ReplicationTests", "SimulationTests", "AllocationCounter",
    "Simulation",
    "Handover",
  ]
  package.products.removeAll { programs.union(others).contains($0.name) }
  package.targets.removeAll { programs.union(others).contains($0.name) }
}

import CLinux
import Foundation
import Glibc

/// A network namespace of a test's own, with a loopback interface that is up; gone when let go.
final class TestNamespace: Sendable {
  private static let prefix = "jsr-samples-\(getpid())-"
  private let name: String
  private let descriptor: Int32

  struct Failure: Error { var command: String }

  init() throws {
    name = Self.prefix + UUID().uuidString.prefix(8).lowercased()
    try Self.ip(["netns", "add", name])
    descriptor = open("/run/netns/\(name)", O_RDONLY | O_CLOEXEC)
    try Self.ip(["-n", name, "link", "set", "lo", "up"])
  }

  deinit {
    close(descriptor)
    try? Self.ip(["netns", "delete", name])
  }

  /// Runs `body` in a thread of its own, inside the namespace, and returns what it returns.
  func run<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) async throws -> Result {
    try await withCheckedThrowingContinuation { continuation in
      Thread.detachNewThread { [descriptor] in
        continuation.resume(
          with: Swift.Result {
            guard jsr_enter_network_namespace(descriptor) == 0 else { throw Failure(command: "setns") }
            return try body()
          })
      }
    }
  }

  private static func ip(_ arguments: [String]) throws {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = ["ip"] + arguments
    try process.run()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
      throw Failure(command: "ip " + arguments.joined(separator: " "))
    }
  }
}

import Foundation

/// How much the long cases do: as the test command says in its help, or as the environment wants it.
enum Scale {
  private static func number(_ name: String, otherwise standard: Int) -> Int {
    max(ProcessInfo.processInfo.environment[name].flatMap { Int($0) } ?? standard, 1)
  }

  /// Gigabytes (10^9 bytes), both directions together.
  static let bulkGigabytes = number("JSR_BULK_GB", otherwise: 10)
  /// Seconds of endless messages.
  static let stressSeconds = number("JSR_STRESS_SECONDS", otherwise: 60)
  /// Connections opened, replicated, used and closed.
  static let stressConnections = number("JSR_STRESS_CONNECTIONS", otherwise: 100_000)
}

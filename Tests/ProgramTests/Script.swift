import Foundation

/// A script of this package, and a directory for what it reads and writes.
struct Script: ~Copyable {
  private let path: String
  let directory: URL

  init(_ name: String) throws {
    path =
      URL(fileURLWithPath: #filePath)
      .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
      .appendingPathComponent("scripts/\(name)").path
    directory = FileManager.default.temporaryDirectory.appendingPathComponent(
      "jsr-\(name)-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(at: directory) }

  func run(_ arguments: String...) throws -> Run { try Run(path, arguments) }

  /// Writes a file.
  /// - Returns: its path.
  func file(_ name: String, _ text: String) throws -> String {
    let url = directory.appendingPathComponent(name)
    try text.write(to: url, atomically: true, encoding: .utf8)
    return url.path
  }
}

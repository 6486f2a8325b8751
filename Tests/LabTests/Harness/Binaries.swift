import Foundation

/// Where the programs under test and the lab's script are.
enum Binaries {
  /// The root of the package this file was compiled from.
  static let package = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().path

  /// The directory given by `JSR_BIN`, or that of the release build.
  static let directory =
    ProcessInfo.processInfo.environment["JSR_BIN"] ?? package + "/.build/release"

  static let labScript = package + "/scripts/lab"

  /// The path of a program.
  /// - Throws: ``LabFailure`` that says how to get it built.
  static func path(of program: String) throws -> String {
    let path = directory + "/" + program
    guard FileManager.default.isExecutableFile(atPath: path) else {
      throw LabFailure("\(path) is not there: run scripts/test, which builds the programs first")
    }
    return path
  }
}

import Foundation

/// Keys for the link between the engines, made with jsrctl as an operator would.
enum LinkKeyFiles {
  private static let made = Result { try make(at: Binaries.package + "/.build/lab/keys") }

  /// Those that all labs of a run share: making them takes a moment.
  static var shared: String { get throws { try made.get() } }

  /// Makes keys in a folder, in place of what is there.
  ///
  /// - Parameter names: of the two routing engines, which are also those of the files.
  @discardableResult
  static func make(at folder: String, names: String = "re0,re1") throws -> String {
    try? FileManager.default.removeItem(atPath: folder)
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    try jsrctl(["new", folder, "--names", names])
    return folder
  }

  /// `jsrctl link-keys`
  static func jsrctl(_ words: [String]) throws {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: try Binaries.path(of: "jsrctl"))
    process.arguments = ["link-keys"] + words
    process.standardOutput = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
      throw LabFailure("jsrctl link-keys \(words.joined(separator: " ")): \(process.terminationStatus)")
    }
  }
}

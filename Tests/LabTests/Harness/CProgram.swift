import Foundation

/// A program in C, compiled as a stranger would: with what `scripts/install` has put somewhere, and pkg-config.
struct CProgram: Sendable {
  /// The root that the library was installed under: `JSR_INSTALL`, or where scripts/test puts it.
  static let installRoot =
    ProcessInfo.processInfo.environment["JSR_INSTALL"] ?? Binaries.package + "/.build/install"

  let path: String

  /// Compiles `source`, a path inside the package, into the directory of `lab`. Warnings are errors.
  init(_ source: String, in lab: Lab) async throws {
    path = lab.directory + "/" + URL(fileURLWithPath: source).deletingPathExtension().lastPathComponent
    let library = Self.installRoot + "/usr/local/lib"
    guard FileManager.default.fileExists(atPath: library + "/pkgconfig/jsr.pc") else {
      throw LabFailure("\(library) has no jsr.pc: run scripts/test, which installs the library there first")
    }
    let flags = try await Self.run(["/usr/bin/env", "pkg-config", "--cflags", "--libs", "jsr"])
      .flatMap { $0.split(separator: " ").map(String.init) }
    try await Self.run(
      [
        "/usr/bin/env", "cc", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-g", "-o",
        path,
        Binaries.package + "/" + source,
      ] + flags + ["-Wl,-rpath,\(library)"])
  }

  @discardableResult
  private static func run(_ command: [String]) async throws -> [String] {
    let program = try Program(
      command[1], command,
      environment: [
        "PKG_CONFIG_PATH": installRoot + "/usr/local/lib/pkgconfig", "PKG_CONFIG_SYSROOT_DIR": installRoot,
      ])
    guard try await program.waitForEnd(within: .seconds(30)) == .exited(0) else {
      throw LabFailure("\(command.joined(separator: " ")): \(program.errors.prefix(5))")
    }
    return program.output
  }

  /// The command that runs it under valgrind, which ends with status 99 if memory was used that was not there,
  /// or lost.
  ///
  /// What Swift's runtime keeps for good (metadata, behind pointers into the middle of blocks) counts as
  /// "possibly lost" or "reachable", and is no error.
  func underValgrind(_ arguments: [String]) -> [String] {
    [
      "/usr/bin/env", "valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full",
      "--show-leak-kinds=definite", "--errors-for-leak-kinds=definite", path,
    ] + arguments
  }
}

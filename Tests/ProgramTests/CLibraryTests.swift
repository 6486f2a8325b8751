import Foundation
import Testing

/// The library for C as `scripts/install` puts it somewhere, and its header.
@Suite("The C library") struct CLibraryTests {
  /// The root of the package.
  static let package = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
  static let header = package.appendingPathComponent("Sources/CJSR/include/jsr.h")

  /// What was installed under `JSR_INSTALL`, or where scripts/test puts it.
  static func installed(_ path: String) throws -> String {
    let root =
      ProcessInfo.processInfo.environment["JSR_INSTALL"]
      ?? package.appendingPathComponent(".build/install").path
    let whole = root + "/usr/local/" + path
    try #require(
      FileManager.default.fileExists(atPath: whole), "\(whole): run scripts/test, which installs it first")
    return whole
  }

  /// The functions that the header declares.
  static func declared() throws -> Set<String> {
    let text = try String(contentsOf: header, encoding: .utf8)
    return Set(
      text.split(separator: "\n").compactMap { line in
        guard line.first?.isLetter == true, !line.hasPrefix("typedef"), let end = line.firstIndex(of: "(")
        else {
          return nil
        }
        let name = line[..<end].split(whereSeparator: { !$0.isLetter && $0 != "_" }).last.map(String.init)
        return name?.hasPrefix("jsr_") == true ? name : nil
      })
  }

  @Test(
    "has a header that compiles alone, as every standard of C and C++ that daemons use",
    arguments: ["cc -std=c11 -xc", "cc -std=c17 -xc", "c++ -std=c++17 -xc++", "c++ -std=c++20 -xc++"])
  func header(_ compiler: String) throws {
    let words =
      compiler.split(separator: " ").map(String.init)
      + ["-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only", "-"]
    // Twice: whoever includes it twice gets it once.
    let include = "#include \"\(Self.header.path)\"\n"
    let run = try Run("/usr/bin/env", words, input: include + include)
    #expect(run.status == 0, "\(run.errors)")
  }

  @Test("exports what its header declares, and nothing else")
  func exports() throws {
    let declared = try Self.declared()
    #expect(declared.count >= 19)
    #expect(declared.isSuperset(of: ["jsr_connect", "jsr_last_error", "jsr_next_event"]))

    let run = try Run(
      "/usr/bin/env", ["nm", "-D", "--defined-only", "--extern-only", try Self.installed("lib/libjsr.so")])
    #expect(run.status == 0, "\(run.errors)")
    let exported = run.output.split(separator: "\n").compactMap { line -> String? in
      let words = line.split(separator: " ")
      // A is the name of the version itself.
      guard words.count == 3, words[1] != "A" else { return nil }
      return String(words[2].prefix { $0 != "@" })
    }
    #expect(Set(exported) == declared)
  }

  @Test("needs nothing of Swift, has a name with its version, and pkg-config says the version of the header")
  func linking() throws {
    let library = try Self.installed("lib/libjsr.so")
    let dynamic = try Run("/usr/bin/env", ["readelf", "-d", library]).output
    #expect(dynamic.contains("Library soname: [libjsr.so.0]"))
    let needed = dynamic.split(separator: "\n").filter { $0.contains("(NEEDED)") }
    #expect(needed.contains { $0.contains("libc.so") })
    #expect(!needed.contains { $0.contains("swift") || $0.contains("Foundation") }, "\(needed)")

    let package = try String(contentsOfFile: try Self.installed("lib/pkgconfig/jsr.pc"), encoding: .utf8)
    let text = try String(contentsOf: Self.header, encoding: .utf8)
    let version = try #require(
      text.split(separator: "\n").first { $0.hasPrefix("#define JSR_VERSION \"") }?
        .split(separator: "\"").last)
    #expect(package.contains("Version: \(version)\n"))
    #expect(FileManager.default.fileExists(atPath: library + ".\(version)"))
  }

  @Test(
    "comes with programs that run from where they are",
    arguments: ["jsrd", "jsrctl", "jsrutil", "jsrpeer", "jsrutil_mini", "jsrpeer_mini"])
  func programs(_ name: String) throws {
    let run = try Run(try Self.installed("bin/\(name)"), ["--help"])
    #expect(run.status == 0, "\(run.errors)")
    #expect(run.output.contains("USAGE: \(name) "))
  }
}

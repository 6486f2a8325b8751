import Foundation

/// One run of a program that lies beside the test's own, to its end.
struct Run {
  let status: Int32
  let output: String
  let errors: String

  /// - Parameters:
  ///   - program: a product of this package, or an absolute path.
  ///   - input: what it reads from standard input.
  init(_ program: String, _ arguments: [String], input: String = "") throws {
    let process = Process()
    process.executableURL = program.hasPrefix("/") ? URL(fileURLWithPath: program) : try Self.beside(program)
    process.arguments = arguments
    let (standardInput, output, errors) = (Pipe(), Pipe(), Pipe())
    process.standardInput = standardInput
    process.standardOutput = output
    process.standardError = errors
    try process.run()
    standardInput.fileHandleForWriting.write(Data(input.utf8))
    try standardInput.fileHandleForWriting.close()
    // What these programs say to bad options is shorter than a pipe is.
    let errorText = errors.fileHandleForReading
    let outputBytes = output.fileHandleForReading.readDataToEndOfFile()
    self.errors = String(decoding: errorText.readDataToEndOfFile(), as: UTF8.self)
    self.output = String(decoding: outputBytes, as: UTF8.self)
    process.waitUntilExit()
    status = process.terminationStatus
  }

  /// Where everything was built: the directory of the program that runs the tests.
  static var products: URL {
    get throws {
      let tests = URL(
        fileURLWithPath: try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe"))
      return tests.deletingLastPathComponent()
    }
  }

  private static func beside(_ program: String) throws -> URL {
    let url = try products.appendingPathComponent(program)
    guard FileManager.default.isExecutableFile(atPath: url.path) else { throw NotBuilt(path: url.path) }
    return url
  }

  /// A program is missing that `swift build` makes.
  struct NotBuilt: Error, CustomStringConvertible {
    let path: String
    var description: String { "\(path) is not there: run swift build" }
  }
}

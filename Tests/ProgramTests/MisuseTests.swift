import Foundation
import Testing

/// TESTPLAN 4.1: what the compiler says to a program that uses a socket which it has given away.
@Suite("4.1 The Swift interface") struct MisuseTests {
  /// A program around one line, compiled against the library as it was built.
  private func compile(_ line: String) throws -> Run {
    let text = """
      import JSR

      func program(_ socket: consuming Socket, in session: Session, _ primary: Handle, _ secondary: Handle) async {
        let outcome = await session.replicate(socket, primary: primary, secondary: secondary)
        \(line)
        _ = consume outcome
      }
      """
    let file = FileManager.default.temporaryDirectory.appendingPathComponent(
      "jsr-misuse-\(UInt32.random(in: 0...UInt32.max)).swift")
    try text.write(to: file, atomically: true, encoding: .utf8)
    defer { try? FileManager.default.removeItem(at: file) }
    let products = try Run.products.path
    // The rules of ownership are checked behind the type checker.
    return try Run(
      "/usr/bin/env",
      [
        "swiftc", "-swift-version", "6", "-I", products + "/Modules", "-Xcc",
        "-fmodule-map-file=\(products)/CLinux.build/module.modulemap",
        "-emit-sil", "-o", "/dev/null", file.path,
      ])
  }

  @Test("compiles what is right")
  func right() throws {
    let run = try compile("_ = primary")
    #expect(run.status == 0, "\(run.errors)")
  }

  @Test(
    "refuses to compile the use of a socket that was given away",
    arguments: ["_ = socket.descriptor", "_ = socket.release()", "let again = socket; _ = again.descriptor"])
  func wrong(_ line: String) throws {
    let run = try compile(line)
    #expect(run.status == 1)
    #expect(
      run.errors.contains("error: 'socket' consumed more than once")
        || run.errors.contains("error: 'socket' used after consume"), "says: \(run.errors)")
  }
}

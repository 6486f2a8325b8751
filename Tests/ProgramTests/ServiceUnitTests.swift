import Foundation
import Testing

/// `packaging/jsrd.service`, as systemd sees it. That `jsrd` works with what it permits is shown in the lab.
@Suite("The systemd unit")
struct ServiceUnitTests {
  private static let package = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

  /// The unit as it is installed, but with a program that exists.
  private func withUnit(_ body: (String) throws -> Void) throws {
    let directory = FileManager.default.temporaryDirectory.appendingPathComponent("jsr-unit-\(UUID())")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }
    let text = try String(
      contentsOf: Self.package.appendingPathComponent("packaging/jsrd.service"), encoding: .utf8)
    let unit = directory.appendingPathComponent("jsrd.service")
    try text.replacing("@BINDIR@/jsrd", with: "/bin/true").write(to: unit, atomically: true, encoding: .utf8)
    try body(unit.path)
  }

  @Test("gives jsrd the capabilities that it keeps, and none beside")
  func capabilities() throws {
    let text = try String(
      contentsOf: Self.package.appendingPathComponent("packaging/jsrd.service"), encoding: .utf8)
    let settings = text.split(separator: "\n").filter { !$0.hasPrefix("#") && $0.contains("=") }
      .map { $0.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false) }
    for key in ["CapabilityBoundingSet", "AmbientCapabilities"] {
      #expect(
        settings.filter { $0[0] == key }.map { $0[1].split(separator: " ").sorted() }
          == [["CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW"]], "\(key)")
    }
    // Each once, but for what systemd adds up.
    let names = settings.map { $0[0] }
    #expect(Set(names).count == names.count)
  }

  private static let analyzer = "/usr/bin/systemd-analyze"

  @Test(
    "is one that systemd understands, and leaves little open",
    .enabled(if: FileManager.default.isExecutableFile(atPath: analyzer), "there is no systemd-analyze"))
  func analysis() throws {
    try withUnit { unit in
      let verification = try Run(Self.analyzer, ["verify", "--man=no", unit])
      #expect(verification.status == 0 && verification.errors.isEmpty, "\(verification.errors)")
      // Tenths of systemd's measure of exposure, from 0 to 100; 26 with systemd 252.
      let security = try Run(
        Self.analyzer, ["security", "--offline=true", "--threshold=30", "--no-pager", unit])
      #expect(security.status == 0, "\(security.output.suffix(500))")
    }
  }

  @Test("is installed with the place of jsrd, and with its user")
  func installation() throws {
    let unit = try String(
      contentsOfFile: try CLibraryTests.installed("lib/systemd/system/jsrd.service"), encoding: .utf8)
    #expect(unit.contains("\nExecStart=/usr/local/bin/jsrd --config /etc/jsr/jsrd.yaml\n"))
    #expect(!unit.contains("@BINDIR@"))
    let users = try String(
      contentsOfFile: try CLibraryTests.installed("lib/sysusers.d/jsr.conf"), encoding: .utf8)
    #expect(users.contains("\nu jsr - "))
  }
}

import Foundation
import Glibc

/// A capture by tcpdump on a port of the switch. The kernel does the choosing, so that the few packets
/// wanted are not lost among the many.
struct Capture: Sendable {
  struct Packet: Sendable, CustomStringConvertible {
    /// Seconds since 1970.
    let time: Double
    let description: String
  }

  private let program: Program

  /// - Parameters:
  ///   - port: The port of the switch, named after the node that is plugged in there.
  ///   - onSecondSwitch: The node's port of the second switch is meant.
  ///   - fromNodeOnly: Leave out what the switch sends towards the node.
  ///   - filter: In the language of pcap-filter(7).
  ///   - options: More of tcpdump's own.
  init(
    _ name: String, in lab: Lab, port: Node, onSecondSwitch: Bool = false, fromNodeOnly: Bool = false,
    filter: String,
    options: [String] = []
  ) async throws {
    // The switch receives on its port what the node has sent.
    let direction = fromNodeOnly ? ["-Q", "in"] : []
    program = try lab.start(
      name, on: .switch,
      [
        "tcpdump", "-i", port.rawValue + (onSecondSwitch ? "-1" : ""), "-n", "-tt", "-l", "--immediate-mode",
        "-s", "128", "-B", "8192",
      ] + options + direction + [filter])
    try await program.waitForLine(containing: "listening on", within: .seconds(10))
  }

  /// What was captured so far.
  var packets: [Packet] {
    program.output.compactMap { line in
      guard let space = line.firstIndex(of: " "), let time = Double(line[..<space]) else { return nil }
      return Packet(time: time, description: String(line[line.index(after: space)...]))
    }
  }

  /// Ends the capture.
  /// - Throws: ``LabFailure`` if the kernel dropped packets: absence could not be claimed then.
  func finish() async throws -> [Packet] {
    program.send(SIGINT)
    try await program.waitForEnd(within: .seconds(10))
    guard program.errors.contains("0 packets dropped by kernel") else {
      throw LabFailure("\(program.name) missed packets: \(program.lastWords)")
    }
    return packets
  }
}

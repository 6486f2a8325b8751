/// Every frame in which one routing engine speaks for the replicated address of either family, or claims it by ARP or
/// by neighbour discovery, as it arrives at the switch: the proof that an engine was silent.
struct ClaimWatch: Sendable {
  private let capture: Capture
  private let node: Node
  private let lab: Lab

  init(of node: Node, in lab: Lab) async throws {
    self.node = node
    self.lab = lab
    // The last part is the sign of life that ``finish()`` asks for.
    capture = try await Capture(
      "capture-\(node)", in: lab, port: node, fromNodeOnly: true,
      filter: "src host \(Family.v4.replicated) or ip6 src host \(Family.v6.replicated)"
        + " or (arp and arp[14:4] = 0x05050505) or (\(Self.advertisement)) or (icmp6 and ip6[40] = 128)")
  }

  /// A neighbour advertisement whose target is 2001:db8:5::5, whoever it comes from.
  private static let advertisement =
    "icmp6 and ip6[40] = 136 and ip6[48:4] = 0x20010db8 and ip6[52:4] = 0x00050000 and ip6[56:4] = 0"
    + " and ip6[60:4] = 5"

  /// Ends the watch.
  /// - Throws: ``LabFailure`` if a last frame, sent on purpose, was not seen: silence could not be claimed.
  func finish() async throws -> [Capture.Packet] {
    try await lab.run(["ping", "-6", "-c", "1", "-W", "1", "-I", "eth0", "ff02::1"], on: node)
    let packets = try await capture.finish()
    func isSignOfLife(_ packet: Capture.Packet) -> Bool { packet.description.contains("ICMP6, echo request") }
    guard packets.contains(where: isSignOfLife) else {
      throw LabFailure("the capture of \(node) did not see the sign of life: its silence proves nothing")
    }
    return packets.filter { !isSignOfLife($0) }
  }
}

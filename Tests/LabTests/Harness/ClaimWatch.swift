/// Every frame in which one routing engine speaks for the replicated address, or claims it by ARP, as it
/// arrives at the switch: the proof that an engine was silent.
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
      filter: "src host 5.5.5.5 or (arp and arp[14:4] = 0x05050505) or (icmp6 and ip6[40] = 128)")
  }

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

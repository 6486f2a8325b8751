/// ARP for IPv4 over Ethernet (RFC 826, RFC 5227): the announcements that move a replicated address, and
/// the probes that ask whether somebody still answers for it.
public enum AddressResolution {
  /// Bytes of a whole frame, without padding.
  public static let frameByteCount = 42

  public enum Operation: UInt16, Sendable { case request = 1, reply = 2 }

  /// What an ARP frame says.
  public struct Message: Hashable, Sendable {
    public var operation: Operation
    public var senderMAC: MACAddress
    public var sender: IPAddress
    public var targetMAC: MACAddress
    public var target: IPAddress

    /// Reads an Ethernet frame; `nil` if it is not ARP for IPv4.
    public init?(_ frame: UnsafeRawBufferPointer) {
      guard frame.count >= AddressResolution.frameByteCount, Ethernet.type(frame) == Ethernet.typeARP,
        frame.bigEndian(at: 14, as: UInt32.self) == 0x0001_0800,
        frame.bigEndian(at: 18, as: UInt16.self) == 0x0604,
        let operation = Operation(rawValue: frame.bigEndian(at: 20))
      else { return nil }
      self.operation = operation
      senderMAC = MACAddress(frame, at: 22)
      sender = IPAddress(.v4, frame, at: 28)
      targetMAC = MACAddress(frame, at: 32)
      target = IPAddress(.v4, frame, at: 38)
    }
  }

  /// A gratuitous announcement: everybody on the segment learns that `address` is now at `mac`.
  ///
  /// Sent both as a request and as a reply, since stacks differ in which of them updates a cache
  /// (RFC 5227, section 3).
  public static func announcement(
    of address: IPAddress, at mac: MACAddress, as operation: Operation = .request
  ) -> [UInt8] {
    frame(
      operation, senderMAC: mac, sender: address,
      targetMAC: operation == .reply ? .broadcast : .zero, target: address)
  }

  /// A probe (RFC 5227, section 2.1.1): asks who has `address` without claiming it.
  public static func probe(for address: IPAddress, from mac: MACAddress) -> [UInt8] {
    frame(.request, senderMAC: mac, sender: IPAddress(v4: 0), targetMAC: .zero, target: address)
  }

  private static func frame(
    _ operation: Operation, senderMAC: MACAddress, sender: IPAddress, targetMAC: MACAddress,
    target: IPAddress
  ) -> [UInt8] {
    precondition(target.family == .v4 && sender.family == .v4, "ARP is for IPv4")
    var frame = [UInt8](repeating: 0, count: frameByteCount)
    frame.withUnsafeMutableBytes { bytes in
      Ethernet.store(
        destination: .broadcast, source: senderMAC, type: Ethernet.typeARP, in: bytes)
      bytes.storeBigEndian(UInt32(0x0001_0800), at: 14)
      bytes.storeBigEndian(UInt16(0x0604), at: 18)
      bytes.storeBigEndian(operation.rawValue, at: 20)
      senderMAC.store(in: bytes, at: 22)
      sender.store(in: bytes, at: 28)
      targetMAC.store(in: bytes, at: 32)
      target.store(in: bytes, at: 38)
    }
    return frame
  }
}

/// Offsets and types of an Ethernet II header (IEEE 802.3).
public enum Ethernet {
  /// Bytes.
  public static let headerByteCount = 14

  public static let typeIPv4: UInt16 = 0x0800
  public static let typeARP: UInt16 = 0x0806
  public static let typeIPv6: UInt16 = 0x86dd
  /// IEEE 802 local experimental EtherType 1; carries the uplink keepalives of JSR.
  public static let typeLocalExperimental: UInt16 = 0x88b5

  @inlinable public static func destination(_ frame: UnsafeRawBufferPointer) -> MACAddress {
    MACAddress(frame, at: 0)
  }
  @inlinable public static func source(_ frame: UnsafeRawBufferPointer) -> MACAddress {
    MACAddress(frame, at: 6)
  }
  @inlinable public static func type(_ frame: UnsafeRawBufferPointer) -> UInt16 { frame.bigEndian(at: 12) }

  /// Writes a header into the first 14 bytes of `frame`.
  @inlinable public static func store(
    destination: MACAddress, source: MACAddress, type: UInt16, in frame: UnsafeMutableRawBufferPointer
  ) {
    destination.store(in: frame, at: 0)
    source.store(in: frame, at: 6)
    frame.storeBigEndian(type, at: 12)
  }
}

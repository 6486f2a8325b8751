/// A 48-bit Ethernet hardware address.
public struct MACAddress: Hashable, Sendable, CustomStringConvertible {
  /// The six bytes in transmission order, in the low 48 bits.
  public var rawValue: UInt64

  @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue & 0xffff_ffff_ffff }

  /// Reads six bytes in transmission order; `bytes` must hold at least six from `offset`.
  @inlinable public init(_ bytes: UnsafeRawBufferPointer, at offset: Int = 0) {
    let high: UInt16 = bytes.bigEndian(at: offset)
    let low: UInt32 = bytes.bigEndian(at: offset + 2)
    self.rawValue = UInt64(high) << 32 | UInt64(low)
  }

  public static let broadcast = MACAddress(rawValue: 0xffff_ffff_ffff)
  public static let zero = MACAddress(rawValue: 0)

  /// Writes the six bytes in transmission order.
  @inlinable public func store(in bytes: UnsafeMutableRawBufferPointer, at offset: Int = 0) {
    bytes.storeBigEndian(UInt16(truncatingIfNeeded: rawValue >> 32), at: offset)
    bytes.storeBigEndian(UInt32(truncatingIfNeeded: rawValue), at: offset + 2)
  }

  public var description: String {
    (0..<6).map { index in
      let byte = UInt8(truncatingIfNeeded: rawValue >> UInt64(8 * (5 - index)))
      let text = String(byte, radix: 16)
      return byte < 16 ? "0" + text : text
    }.joined(separator: ":")
  }
}

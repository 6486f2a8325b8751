/// The name of one replicated socket on one routing engine.
///
/// 64 bits: slot (8), generation (24), index (32). An index is used again after a socket is gone, a pair
/// of generation and index never, so a stale handle is always detected.
public struct Handle: Hashable, Sendable, CustomStringConvertible {
  public let rawValue: UInt64

  @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }

  /// - Parameter generation: only the low 24 bits count.
  @inlinable public init(slot: UInt8, generation: UInt32, index: UInt32) {
    rawValue = UInt64(slot) << 56 | UInt64(generation & 0xff_ffff) << 32 | UInt64(index)
  }

  /// The routing engine that allocated the handle, 0 or 1.
  @inlinable public var slot: UInt8 { UInt8(truncatingIfNeeded: rawValue >> 56) }
  /// 24 bits, rising with every allocation.
  @inlinable public var generation: UInt32 { UInt32(truncatingIfNeeded: rawValue >> 32) & 0xff_ffff }
  /// Where the socket stands in its engine's table.
  @inlinable public var index: UInt32 { UInt32(truncatingIfNeeded: rawValue) }

  /// Hexadecimal with prefix, without leading zeros: `0x100001d00000000`.
  public var description: String { "0x" + String(rawValue, radix: 16) }

  /// Reads what `description` prints; the prefix may be missing. `nil` if it is not such a number.
  public init?(_ text: some StringProtocol) {
    let digits = text.hasPrefix("0x") || text.hasPrefix("0X") ? text.dropFirst(2) : text[...]
    guard !digits.isEmpty, digits.allSatisfy(\.isHexDigit), let value = UInt64(digits, radix: 16) else {
      return nil
    }
    rawValue = value
  }
}

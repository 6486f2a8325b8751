/// A point in TCP sequence space: 32 bits that wrap around (RFC 9293, section 3.4).
///
/// Comparison is modular and only means something between points less than 2³¹ bytes apart, which a
/// connection's live window always is. The type is therefore deliberately not `Comparable`: sorting an
/// arbitrary collection of sequence numbers has no meaning.
public struct SequenceNumber: Hashable, Sendable, CustomStringConvertible {
  /// The 32 bits as they stand on the wire, in host byte order.
  public var rawValue: UInt32

  @inlinable public init(_ rawValue: UInt32) { self.rawValue = rawValue }

  /// The point `distance` bytes further on, or further back if negative, wrapping at 2³².
  @inlinable public static func + (lhs: Self, distance: Int) -> Self {
    Self(lhs.rawValue &+ UInt32(truncatingIfNeeded: distance))
  }

  @inlinable public static func - (lhs: Self, distance: Int) -> Self {
    Self(lhs.rawValue &- UInt32(truncatingIfNeeded: distance))
  }

  /// How many bytes `lhs` is ahead of `rhs`; negative if it is behind. Between -2³¹ and 2³¹ - 1.
  @inlinable public static func - (lhs: Self, rhs: Self) -> Int {
    Int(Int32(truncatingIfNeeded: lhs.rawValue &- rhs.rawValue))
  }

  @inlinable public static func += (lhs: inout Self, distance: Int) { lhs = lhs + distance }

  @inlinable public static func < (lhs: Self, rhs: Self) -> Bool { lhs - rhs < 0 }
  @inlinable public static func > (lhs: Self, rhs: Self) -> Bool { lhs - rhs > 0 }
  @inlinable public static func <= (lhs: Self, rhs: Self) -> Bool { lhs - rhs <= 0 }
  @inlinable public static func >= (lhs: Self, rhs: Self) -> Bool { lhs - rhs >= 0 }

  /// The later of two points.
  @inlinable public static func later(_ a: Self, _ b: Self) -> Self { a >= b ? a : b }

  /// The earlier of two points.
  @inlinable public static func earlier(_ a: Self, _ b: Self) -> Self { a <= b ? a : b }

  public var description: String { "\(rawValue)" }
}

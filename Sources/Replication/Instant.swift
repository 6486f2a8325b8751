/// A moment on a clock that never goes back, in nanoseconds from an arbitrary start.
///
/// `Replication` reads no clock: every method that depends on time takes the moment as an argument. The
/// engine passes CLOCK_MONOTONIC, the tests whatever they like.
public struct Instant: Hashable, Comparable, Sendable {
  public var nanoseconds: Int64

  @inlinable public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

  @inlinable public static func < (lhs: Self, rhs: Self) -> Bool { lhs.nanoseconds < rhs.nanoseconds }

  @inlinable public static func + (lhs: Self, rhs: Nanoseconds) -> Self {
    Self(nanoseconds: lhs.nanoseconds &+ rhs.count)
  }
  @inlinable public static func - (lhs: Self, rhs: Self) -> Nanoseconds {
    Nanoseconds(lhs.nanoseconds &- rhs.nanoseconds)
  }
}

/// A span of time, in nanoseconds.
public struct Nanoseconds: Hashable, Comparable, Sendable {
  public var count: Int64

  @inlinable public init(_ count: Int64) { self.count = count }
  @inlinable public static func milliseconds(_ count: Int64) -> Self { Self(count * 1_000_000) }
  @inlinable public static func seconds(_ count: Int64) -> Self { Self(count * 1_000_000_000) }

  /// Whole milliseconds, rounded towards zero.
  @inlinable public var milliseconds: Int64 { count / 1_000_000 }

  @inlinable public static func < (lhs: Self, rhs: Self) -> Bool { lhs.count < rhs.count }
  @inlinable public static func + (lhs: Self, rhs: Self) -> Self { Self(lhs.count + rhs.count) }
  @inlinable public static func - (lhs: Self, rhs: Self) -> Self { Self(lhs.count - rhs.count) }
  @inlinable public static func * (lhs: Self, rhs: Int64) -> Self { Self(lhs.count * rhs) }
  @inlinable public static func / (lhs: Self, rhs: Int64) -> Self { Self(lhs.count / rhs) }
}

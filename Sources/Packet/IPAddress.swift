/// An IPv4 or IPv6 address.
public struct IPAddress: Hashable, Sendable, CustomStringConvertible {
  public enum Family: UInt8, Sendable, Hashable { case v4 = 4, v6 = 6 }

  public let family: Family
  /// The upper 64 bits of an IPv6 address; 0 for IPv4.
  @usableFromInline let high: UInt64
  /// The lower 64 bits of an IPv6 address, or the 32 bits of an IPv4 address.
  @usableFromInline let low: UInt64

  /// An IPv4 address from its 32 bits in host byte order.
  @inlinable public init(v4 value: UInt32) {
    family = .v4
    high = 0
    low = UInt64(value)
  }

  /// An IPv6 address from its two halves in host byte order.
  @inlinable public init(v6High high: UInt64, low: UInt64) {
    family = .v6
    self.high = high
    self.low = low
  }

  /// The address that stands for none, or for any: 0.0.0.0 or ::.
  @inlinable public static func unspecified(_ family: Family) -> Self {
    family == .v4 ? Self(v4: 0) : Self(v6High: 0, low: 0)
  }

  /// Reads the 4 or 16 bytes of an address of `family` at `offset`, in network byte order.
  @inlinable public init(_ family: Family, _ bytes: UnsafeRawBufferPointer, at offset: Int) {
    switch family {
    case .v4: self.init(v4: bytes.bigEndian(at: offset))
    case .v6: self.init(v6High: bytes.bigEndian(at: offset), low: bytes.bigEndian(at: offset + 8))
    }
  }

  /// The 32 bits of an IPv4 address in host byte order; `nil` for IPv6.
  @inlinable public var v4Value: UInt32? { family == .v4 ? UInt32(truncatingIfNeeded: low) : nil }

  /// The two halves of an IPv6 address in host byte order; `nil` for IPv4.
  @inlinable public var v6Halves: (high: UInt64, low: UInt64)? { family == .v6 ? (high, low) : nil }

  /// Whether it means anything only together with the link it is used on: an IPv6 address of fe80::/10 (RFC 4291,
  /// section 2.5.6). Those of IPv4 (RFC 3927) need no such addition.
  public var isLinkLocal: Bool { family == .v6 && high >> 54 == 0x3fa }

  /// 4 or 16.
  @inlinable public var byteCount: Int { family == .v4 ? 4 : 16 }

  /// The address in network byte order, 4 or 16 bytes.
  public var bytes: [UInt8] {
    var result: [UInt8] = []
    switch family {
    case .v4: result.appendBigEndian(UInt32(truncatingIfNeeded: low))
    case .v6:
      result.appendBigEndian(high)
      result.appendBigEndian(low)
    }
    return result
  }

  /// Writes the 4 or 16 bytes of the address in network byte order.
  @inlinable public func store(in bytes: UnsafeMutableRawBufferPointer, at offset: Int) {
    switch family {
    case .v4: bytes.storeBigEndian(UInt32(truncatingIfNeeded: low), at: offset)
    case .v6:
      bytes.storeBigEndian(high, at: offset)
      bytes.storeBigEndian(low, at: offset + 8)
    }
  }

  /// Parses dotted decimal IPv4, or IPv6 in any form of RFC 4291, section 2.2; `nil` if it is neither.
  public init?(_ text: some StringProtocol) {
    if text.contains(":") {
      guard let halves = Self.parseV6(text) else { return nil }
      self.init(v6High: halves.0, low: halves.1)
    } else {
      guard let value = Self.parseV4(text) else { return nil }
      self.init(v4: value)
    }
  }

  private static func parseV4(_ text: some StringProtocol) -> UInt32? {
    let parts = text.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count == 4 else { return nil }
    var value: UInt32 = 0
    for part in parts {
      guard (1...3).contains(part.count), part.allSatisfy({ $0.isASCII && $0.isNumber }),
        let byte = UInt8(part), part.count == 1 || part.first != "0"
      else { return nil }
      value = value << 8 | UInt32(byte)
    }
    return value
  }

  private static func parseV6(_ text: some StringProtocol) -> (UInt64, UInt64)? {
    let text = String(text)
    // Only the last 32 bits may be written as dotted decimal.
    func groups(_ part: Substring, endsAddress: Bool) -> [UInt16]? {
      if part.isEmpty { return [] }
      var result: [UInt16] = []
      let pieces = part.split(separator: ":", omittingEmptySubsequences: false)
      for (index, piece) in pieces.enumerated() {
        if endsAddress, index == pieces.count - 1, piece.contains(".") {
          guard let v4 = parseV4(piece) else { return nil }
          result += [UInt16(v4 >> 16), UInt16(truncatingIfNeeded: v4)]
        } else {
          guard (1...4).contains(piece.count), piece.allSatisfy(\.isHexDigit),
            let value = UInt16(piece, radix: 16)
          else { return nil }
          result.append(value)
        }
      }
      return result
    }

    let all: [UInt16]
    if let gap = text.firstRange(of: "::") {
      guard let before = groups(text[..<gap.lowerBound], endsAddress: false),
        let after = groups(text[gap.upperBound...], endsAddress: true),
        before.count + after.count <= 7
      else { return nil }
      all = before + Array(repeating: 0, count: 8 - before.count - after.count) + after
    } else {
      guard let whole = groups(text[...], endsAddress: true), whole.count == 8 else { return nil }
      all = whole
    }
    func half(_ slice: ArraySlice<UInt16>) -> UInt64 { slice.reduce(0) { $0 << 16 | UInt64($1) } }
    return (half(all[..<4]), half(all[4...]))
  }

  /// Dotted decimal, or the canonical form of RFC 5952.
  public var description: String {
    switch family {
    case .v4:
      let value = UInt32(truncatingIfNeeded: low)
      return "\(value >> 24).\(value >> 16 & 255).\(value >> 8 & 255).\(value & 255)"
    case .v6:
      let groups = (0..<8).map { index -> UInt16 in
        let half = index < 4 ? high : low
        return UInt16(truncatingIfNeeded: half >> UInt64(48 - 16 * (index % 4)))
      }
      var best = 0..<0
      var start = 0
      while start < 8 {
        guard groups[start] == 0 else {
          start += 1
          continue
        }
        var end = start
        while end < 8, groups[end] == 0 { end += 1 }
        if end - start > best.count, end - start > 1 { best = start..<end }
        start = end
      }
      func text(_ range: Range<Int>) -> String {
        groups[range].map { String($0, radix: 16) }.joined(separator: ":")
      }
      return best.isEmpty ? text(0..<8) : text(0..<best.lowerBound) + "::" + text(best.upperBound..<8)
    }
  }
}

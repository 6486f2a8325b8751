extension UnsafeRawBufferPointer {
  /// The network-order integer at `offset`, which need not be aligned.
  @inlinable
  public func bigEndian<T: FixedWidthInteger>(at offset: Int, as type: T.Type = T.self) -> T {
    T(bigEndian: loadUnaligned(fromByteOffset: offset, as: T.self))
  }
}

extension UnsafeMutableRawBufferPointer {
  /// Stores `value` at `offset` in network byte order.
  @inlinable
  public func storeBigEndian<T: FixedWidthInteger>(_ value: T, at offset: Int) {
    storeBytes(of: value.bigEndian, toByteOffset: offset, as: T.self)
  }
}

extension Array where Element == UInt8 {
  /// Appends `value` in network byte order.
  @inlinable
  public mutating func appendBigEndian<T: FixedWidthInteger>(_ value: T) {
    Swift.withUnsafeBytes(of: value.bigEndian) { append(contentsOf: $0) }
  }
}

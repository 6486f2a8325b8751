/// The Internet checksum (RFC 1071), as a running sum.
///
/// The sum is kept in host byte order over 64 bits; one's complement addition does not mind the byte
/// order as long as the result is stored the same way it was read.
public struct InternetChecksum: Sendable {
  @usableFromInline var sum: UInt64 = 0

  @inlinable public init() {}

  /// Adds a 16-bit value given in host byte order.
  @inlinable public mutating func add(_ value: UInt16) { sum &+= UInt64(value.bigEndian) }

  /// Adds `bytes`. An odd last byte is padded with zero, so only the last piece may have odd length.
  @inlinable public mutating func add(_ bytes: UnsafeRawBufferPointer) {
    var offset = 0
    let count = bytes.count
    while offset &+ 4 <= count {
      sum &+= UInt64(bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
      offset &+= 4
    }
    if offset &+ 2 <= count {
      sum &+= UInt64(bytes.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
      offset &+= 2
    }
    if offset < count { sum &+= UInt64(UInt16(bytes[offset]).littleEndian) }
  }

  @inlinable mutating func add(_ address: IPAddress) {
    sum &+= address.high.bigEndian & 0xffff_ffff
    sum &+= address.high.bigEndian >> 32
    sum &+= address.low.bigEndian & 0xffff_ffff
    sum &+= address.low.bigEndian >> 32
  }

  /// Adds the pseudo header of RFC 9293 (IPv4) or RFC 8200 (IPv6).
  @inlinable public mutating func addPseudoHeader(
    source: IPAddress, destination: IPAddress, transport: TransportProtocol, length: Int
  ) {
    addPseudoHeader(
      source: source, destination: destination, protocolNumber: transport.rawValue, length: length)
  }

  /// The same for any protocol, by its number.
  @inlinable mutating func addPseudoHeader(
    source: IPAddress, destination: IPAddress, protocolNumber: UInt8, length: Int
  ) {
    add(source)
    add(destination)
    add(UInt16(protocolNumber))
    add(UInt16(truncatingIfNeeded: length >> 16))
    add(UInt16(truncatingIfNeeded: length))
  }

  /// The checksum in host byte order, ready to be stored in network byte order: 0 over a region that
  /// carries a correct checksum.
  @inlinable public var value: UInt16 { ~folded }

  /// The sum itself, not complemented: what a partial checksum holds.
  @inlinable public var folded: UInt16 {
    var folded = sum
    while folded > 0xffff { folded = (folded & 0xffff) &+ (folded >> 16) }
    return UInt16(bigEndian: UInt16(truncatingIfNeeded: folded))
  }
}

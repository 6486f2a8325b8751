import Glibc
public import Packet

/// A datagram as the secondary's application reads it from a snoop descriptor: one message each.
///
/// A message is a header of 56 bytes, then the payload, which may be empty. The header is two socket addresses of 28
/// bytes, the datagram's source and its destination, each a `sockaddr_in6`, or a `sockaddr_in` and zeros
/// (`struct jsr_datagram` in jsr.h).
public struct SnoopedDatagram: Sendable, Hashable {
  public var source: Endpoint
  public var destination: Endpoint
  public var payload: [UInt8]

  /// Bytes before the payload.
  public static let headerByteCount = 2 * addressByteCount
  /// The most that a message can have, in bytes.
  public static let byteLimit = headerByteCount + 65_535

  private static let addressByteCount = MemoryLayout<sockaddr_in6>.size

  public init(source: Endpoint, destination: Endpoint, payload: [UInt8]) {
    self.source = source
    self.destination = destination
    self.payload = payload
  }

  /// Reads one message; `nil` if it is none.
  public init?(message: UnsafeRawBufferPointer) {
    guard message.count >= Self.headerByteCount, let source = Self.endpoint(message, at: 0),
      let destination = Self.endpoint(message, at: Self.addressByteCount)
    else { return nil }
    self.init(source: source, destination: destination, payload: Array(message[Self.headerByteCount...]))
  }

  /// The whole message.
  public var message: [UInt8] { Self.message(source: source, destination: destination, payload) }

  /// The message that has this payload.
  public static func message(
    source: Endpoint, destination: Endpoint, _ payload: some Collection<UInt8>
  ) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(headerByteCount + payload.count)
    bytes.append(contentsOf: repeatElement(0, count: headerByteCount))
    bytes.withUnsafeMutableBytes {
      store(source, in: $0, at: 0)
      store(destination, in: $0, at: addressByteCount)
    }
    bytes.append(contentsOf: payload)
    return bytes
  }

  private static func store(_ endpoint: Endpoint, in bytes: UnsafeMutableRawBufferPointer, at offset: Int) {
    let isV4 = endpoint.address.family == .v4
    // Family in the host's order, port in the network's, then the address, behind the flow label for IPv6.
    bytes.storeBytes(of: sa_family_t(isV4 ? AF_INET : AF_INET6), toByteOffset: offset, as: sa_family_t.self)
    bytes.storeBigEndian(endpoint.port, at: offset + 2)
    endpoint.address.store(in: bytes, at: offset + (isV4 ? 4 : 8))
  }

  private static func endpoint(_ bytes: UnsafeRawBufferPointer, at offset: Int) -> Endpoint? {
    let port: UInt16 = bytes.bigEndian(at: offset + 2)
    return switch Int32(bytes.loadUnaligned(fromByteOffset: offset, as: sa_family_t.self)) {
    case AF_INET: Endpoint(IPAddress(.v4, bytes, at: offset + 4), port)
    case AF_INET6: Endpoint(IPAddress(.v6, bytes, at: offset + 8), port)
    default: nil
    }
  }
}

import Descriptors
import Glibc
import Packet

/// The address of an Internet socket, as system calls take and give it.
struct SocketAddress {
  private(set) var storage = sockaddr_storage()
  private(set) var length: socklen_t

  /// - Parameters:
  ///   - mapped: whether the socket is an IPv6 socket, so that an IPv4 address has to be written as
  ///     `::ffff:a.b.c.d` (RFC 4291, section 2.5.5.2).
  ///   - scope: the interface that a link-local IPv6 address belongs to.
  init(_ endpoint: Endpoint, mapped: Bool = false, scope: UInt32 = 0) {
    if endpoint.address.family == .v4, !mapped {
      var address = sockaddr_in()
      address.sin_family = sa_family_t(AF_INET)
      address.sin_port = endpoint.port.bigEndian
      withUnsafeMutableBytes(of: &address.sin_addr) { endpoint.address.store(in: $0, at: 0) }
      length = socklen_t(MemoryLayout<sockaddr_in>.size)
      withUnsafeMutableBytes(of: &storage) { $0.storeBytes(of: address, as: sockaddr_in.self) }
    } else {
      var address = sockaddr_in6()
      address.sin6_family = sa_family_t(AF_INET6)
      address.sin6_port = endpoint.port.bigEndian
      address.sin6_scope_id = scope
      let isV4 = endpoint.address.family == .v4
      withUnsafeMutableBytes(of: &address.sin6_addr) { bytes in
        if isV4 { bytes.storeBigEndian(UInt16(0xffff), at: 10) }
        endpoint.address.store(in: bytes, at: isV4 ? 12 : 0)
      }
      length = socklen_t(MemoryLayout<sockaddr_in6>.size)
      withUnsafeMutableBytes(of: &storage) { $0.storeBytes(of: address, as: sockaddr_in6.self) }
    }
  }

  private init(storage: sockaddr_storage, length: socklen_t) {
    self.storage = storage
    self.length = length
  }

  static func local(of descriptor: Int32) throws(SystemError) -> SocketAddress {
    try read("getsockname") { getsockname(descriptor, $0, &$1) }
  }

  static func remote(of descriptor: Int32) throws(SystemError) -> SocketAddress {
    try read("getpeername") { getpeername(descriptor, $0, &$1) }
  }

  /// Receives into `buffer`, as recvfrom(2), and gives the sender's address.
  static func receive(
    _ descriptor: Int32, _ buffer: inout [UInt8], _ flags: Int32
  ) -> (count: Int, source: SocketAddress) {
    var storage = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    let count = withUnsafeMutablePointer(to: &storage) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        recvfrom(descriptor, &buffer, buffer.count, flags, $0, &length)
      }
    }
    return (count, SocketAddress(storage: storage, length: length))
  }

  private static func read(
    _ call: StaticString, _ body: (UnsafeMutablePointer<sockaddr>, inout socklen_t) -> Int32
  ) throws(SystemError) -> SocketAddress {
    var storage = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    let result = withUnsafeMutablePointer(to: &storage) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, &length) }
    }
    guard result == 0 else { throw SystemError(call) }
    return SocketAddress(storage: storage, length: length)
  }

  /// Address and port; IPv4 also when it was mapped into IPv6. `nil` if the family is neither.
  var endpoint: Endpoint? {
    withUnsafeBytes(of: storage) { bytes in
      let port: UInt16 = bytes.bigEndian(at: 2)
      switch Int32(storage.ss_family) {
      case AF_INET: return Endpoint(IPAddress(.v4, bytes, at: 4), port)
      case AF_INET6:
        let isMapped =
          bytes[8..<18].allSatisfy { $0 == 0 } && bytes.bigEndian(at: 18, as: UInt16.self) == 0xffff
        return Endpoint(isMapped ? IPAddress(.v4, bytes, at: 20) : IPAddress(.v6, bytes, at: 8), port)
      default: return nil
      }
    }
  }

  /// Whether the socket it came from is an IPv6 socket, even if it speaks IPv4.
  var isOfIPv6Socket: Bool { Int32(storage.ss_family) == AF_INET6 }

  /// Interface of a link-local address; 0 otherwise.
  var scope: UInt32 {
    isOfIPv6Socket
      ? withUnsafeBytes(of: storage) { $0.loadUnaligned(fromByteOffset: 24, as: UInt32.self) } : 0
  }

  func withPointer<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
    withUnsafePointer(to: storage) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) }
    }
  }
}

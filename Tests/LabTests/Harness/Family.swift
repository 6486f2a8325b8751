import Descriptors
import Glibc

/// The two versions of IP. The lab has addresses of both, and connections over both at once.
enum Family: String, Sendable, CaseIterable {
  case v4, v6

  /// The address that moves with mastership.
  var replicated: String { self == .v4 ? "5.5.5.5" : "2001:db8:5::5" }
  /// That of the peer, which stays.
  var peer: String { self == .v4 ? "5.5.5.4" : "2001:db8:5::4" }
  /// As an engine is told the replicated address.
  var prefix: String { self == .v4 ? "5.5.5.5/24" : "2001:db8:5::5/64" }
  /// Bytes of payload in a full segment of a cable of the lab, with timestamps.
  var segmentSize: Int { self == .v4 ? 1448 : 1428 }

  /// An address with a port, as jsrctl and `ss` print them.
  func end(_ address: String, _ port: UInt16) -> String {
    self == .v4 ? "\(address):\(port)" : "[\(address)]:\(port)"
  }

  /// The server's end of all connections.
  var localEnd: String { end(replicated, ListeningSocket.port) }

  /// The family of an end as jsrctl and `ss` print it.
  init(ofEnd end: String) { self = end.hasPrefix("[") ? .v6 : .v4 }

  /// In the language of pcap-filter(7): packets to and from the replicated address, of either family, that carry one of
  /// the TCP flags `mask`. The language looks into the TCP header of IPv4 only; that of IPv6 is taken to be without
  /// extension headers.
  static func captureFilter(flags mask: Int) -> String {
    "(host \(v4.replicated) and tcp[13] & \(mask) != 0)"
      + " or (ip6 host \(v6.replicated) and ip6[6] = 6 and ip6[53] & \(mask) != 0)"
  }

  /// TCP flags, as they stand in the header.
  static let (fin, syn, rst) = (1, 2, 4)

  /// `AF_INET` or `AF_INET6`.
  var number: Int32 { self == .v4 ? AF_INET : AF_INET6 }

  /// Calls `body` with an address in the form that system calls take; `nil` is the unspecified one.
  func withAddress<Result>(
    _ address: String?, _ port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) throws -> Result
  ) throws -> Result {
    var storage = sockaddr_storage()
    return try withUnsafeMutableBytes(of: &storage) { bytes in
      bytes.storeBytes(of: sa_family_t(number), as: sa_family_t.self)
      bytes.storeBytes(of: port.bigEndian, toByteOffset: 2, as: UInt16.self)
      if let address {
        guard inet_pton(number, address, bytes.baseAddress! + (self == .v4 ? 4 : 8)) == 1 else {
          throw LabFailure("\(address) is no \(self) address")
        }
      }
      let length = self == .v4 ? MemoryLayout<sockaddr_in>.size : MemoryLayout<sockaddr_in6>.size
      return try body(bytes.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t(length))
    }
  }
}

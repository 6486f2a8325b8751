// Theory of operation
//
// netdevice(7) ioctls answer for the network namespace that the socket they are called on was made in, so
// a snapshot is right for the namespace of the calling thread, and a ``Carrier`` for that of the thread which
// made it. An interface keeps its index as long as it lives; one that is made again under the same name gets
// another. Everything else may change: a bridge takes over the hardware address of one of its ports.
//
// "Running" is IFF_UP and IFF_RUNNING: net/core/dev.c, dev_get_flags(), sets IFF_RUNNING from the
// operational state, which follows the carrier.

import CLinux
import Descriptors
import Glibc
import Packet

/// What is known of a network interface of the current network namespace, at the time of asking.
public struct NetworkInterface: Sendable, Hashable {
  public let name: String
  public let index: Int32
  /// All zero if the interface has no Ethernet address (the loopback).
  public let hardwareAddress: MACAddress
  /// Bytes of the largest IP packet.
  public let mtu: Int

  /// - Throws: `ENODEV` if there is no such interface here.
  public init(named name: String) throws(SystemError) {
    let query = try queryingSocket()
    try self.init(named: name, asking: query)
  }

  /// - Parameter query: any socket of the namespace in question.
  fileprivate init(named name: String, asking query: borrowing OwnedDescriptor) throws(SystemError) {
    let index = jsr_interface_index(query.rawValue, name)
    guard index >= 0 else { throw SystemError("ioctl(SIOCGIFINDEX)", on: name) }
    let mtu = jsr_interface_mtu(query.rawValue, name)
    guard mtu >= 0 else { throw SystemError("ioctl(SIOCGIFMTU)", on: name) }
    var address: [UInt8] = [0, 0, 0, 0, 0, 0]
    guard jsr_interface_hardware_address(query.rawValue, name, &address) == 0 || errno == EPFNOSUPPORT
    else { throw SystemError("ioctl(SIOCGIFHWADDR)", on: name) }

    self.name = name
    self.index = index
    self.mtu = Int(mtu)
    hardwareAddress = address.withUnsafeBytes { MACAddress($0) }
  }

  /// Whether the interface is up and has a carrier; false if there is no such interface. To ask often,
  /// keep a ``Carrier``.
  public static func isRunning(named name: String) -> Bool {
    guard let carrier = try? Carrier(of: name) else { return false }
    return carrier.isRunning
  }
}

/// Tells of one interface, by its name, whether it has a carrier, with a single system call each time, and what it is
/// at the moment.
public struct Carrier: ~Copyable, Sendable {
  private let query: OwnedDescriptor
  private let name: String

  /// The interface need not exist yet.
  public init(of name: String) throws(SystemError) {
    query = try queryingSocket()
    self.name = name
  }

  /// Whether the interface is there, is up, and has a carrier.
  public var isRunning: Bool {
    let flags = jsr_interface_flags(query.rawValue, name)
    let wanted = Int32(IFF_UP) | Int32(IFF_RUNNING)
    return flags >= 0 && flags & wanted == wanted
  }

  /// What is known of the interface now; `nil` if there is none of this name.
  public var interface: NetworkInterface? { try? NetworkInterface(named: name, asking: query) }
}

extension NetworkInterface {
  /// The name of the interface with this index; `nil` if there is none here.
  public static func name(of index: Int32) -> String? {
    var name = [CChar](repeating: 0, count: Int(IF_NAMESIZE))
    return if_indextoname(UInt32(bitPattern: index), &name).map { String(cString: $0) }
  }

  /// The name of the interface that has `address`; `nil` if none has.
  public static func name(having address: IPAddress) -> String? {
    var list: UnsafeMutablePointer<ifaddrs>?
    guard getifaddrs(&list) == 0 else { return nil }
    defer { freeifaddrs(list) }
    var entry = list
    while let current = entry?.pointee {
      entry = current.ifa_next
      guard let socketAddress = current.ifa_addr else { continue }
      let found: IPAddress? =
        switch Int32(socketAddress.pointee.sa_family) {
        case AF_INET:
          socketAddress.withMemoryRebound(to: sockaddr_in.self, capacity: 1) {
            IPAddress(v4: UInt32(bigEndian: $0.pointee.sin_addr.s_addr))
          }
        case AF_INET6:
          socketAddress.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) { pointer in
            withUnsafeBytes(of: pointer.pointee.sin6_addr) { IPAddress(.v6, $0, at: 0) }
          }
        default: nil
        }
      if found == address { return String(cString: current.ifa_name) }
    }
    return nil
  }
}

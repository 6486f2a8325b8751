// Theory of operation
//
// A VRF (drivers/net/vrf.c) is a device with a routing table of its own, whose ports are other interfaces: it is their
// master. A packet that comes in by a port is routed by that table, and a socket gets it only if it is bound to the
// device (SO_BINDTODEVICE; inet_sk_bound_dev_eq, include/net/inet_sock.h), or, if sysctl says so (tcp_l3mdev_accept,
// udp_l3mdev_accept), bound to none. A connection that is accepted is bound to the device then
// (inet_request_bound_dev_if). What a bound socket sends is routed by the table, too. Two sockets of the same ends that
// are bound to different devices know nothing of each other.
//
// Of all this only the routing table is the VRF's own: a bridge is a master of its ports, too, whose packets reach the
// sockets that are bound to it. Where the kernel has no VRF the tests take a bridge instead.

import CLinux
import Descriptors
import Glibc
import Packet

/// The device of a VRF, in the current network namespace.
public struct VRF: Sendable, Hashable {
  public let name: String
  public let index: Int32

  /// - Throws: `ENODEV` if there is no such device here.
  public init(named name: String) throws(SystemError) {
    self.name = name
    index = try NetworkInterface(named: name).index
  }

  /// Whether `interface` is one of its ports.
  public func has(_ interface: NetworkInterface) -> Bool {
    (try? Self.master(of: interface.index)) == index
  }

  /// Makes an interface one of its ports.
  ///
  /// - Throws: `EPERM` without CAP_NET_ADMIN, `EOPNOTSUPP` if the device can have no ports.
  func add(port interface: NetworkInterface) throws(SystemError) {
    var header = ifinfomsg()
    header.ifi_index = interface.index
    let socket = try NetlinkSocket(NETLINK_ROUTE)
    let master = withUnsafeBytes(of: index) { Array($0) }
    try socket.send(
      UInt16(RTM_NEWLINK), UInt16(NLM_F_REQUEST | NLM_F_ACK), header, [(Self.masterAttribute, master)])
    do throws(SystemError) {
      try socket.awaitAcknowledgement()
    } catch {
      throw SystemError("rtnetlink(IFLA_MASTER)", code: error.code, on: "\(interface.name) at \(name)")
    }
  }

  /// Binds a socket to it, which must not be bound to another device.
  public func bind(_ socket: Int32) throws(SystemError) {
    try setSocketOption(socket, SOL_SOCKET, Self.boundDevice, index, "setsockopt(SO_BINDTOIFINDEX)")
  }

  /// The index of the device that a socket is bound to (SO_BINDTODEVICE); 0 if it is bound to none.
  public static func device(of socket: Int32) throws(SystemError) -> Int32 {
    try socketOption(socket, SOL_SOCKET, boundDevice, into: Int32(0), "getsockopt(SO_BINDTOIFINDEX)")
  }

  /// The index of the device that an interface is a port of; 0 if it is none.
  private static func master(of interface: Int32) throws(SystemError) -> Int32 {
    var header = ifinfomsg()
    header.ifi_index = interface
    let socket = try NetlinkSocket(NETLINK_ROUTE)
    try socket.send(UInt16(RTM_GETLINK), UInt16(NLM_F_REQUEST), header)
    var master: Int32 = 0
    // The answer is one message, without an end marker.
    _ = try socket.receive { type, body in
      guard type == RTM_NEWLINK, body.count >= MemoryLayout<ifinfomsg>.size else { return }
      UnsafeRawBufferPointer(rebasing: body[MemoryLayout<ifinfomsg>.size...]).forEachAttribute {
        kind, value in
        if kind == masterAttribute, value.count >= 4 { master = value.loadUnaligned(as: Int32.self) }
      }
    }
    return master
  }

  /// IFLA_MASTER (include/uapi/linux/if_link.h).
  private static let masterAttribute: UInt16 = 10
  /// SO_BINDTOIFINDEX (include/uapi/asm-generic/socket.h), Linux 5.1.
  private static let boundDevice: Int32 = 62
}

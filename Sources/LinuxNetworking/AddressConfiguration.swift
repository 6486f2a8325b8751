// Theory of operation
//
// Addresses are added and removed through rtnetlink(7), in process: a switchover cannot wait for a program
// to be started. Each call opens a socket of its own, so that it acts on the network namespace of the
// calling thread.
//
// Relied on, from net/ipv4/devinet.c and net/ipv6/addrconf.c; all but the last is shown by the tests:
//
// - NLM_F_CREATE | NLM_F_EXCL makes the kernel answer EEXIST if the address is there; a missing one is
//   EADDRNOTAVAIL on removal. Both are success here.
// - IFA_F_NODAD makes an IPv6 address usable at once. Whether somebody else has it is the arbiter's
//   question, and was asked before.
// - Removing a primary IPv4 address removes the secondary addresses of its subnet with it, unless
//   promote_secondaries is set.

import CLinux
import Descriptors
import Glibc
import Packet

/// Adds and removes addresses of interfaces.
public enum AddressConfiguration {
  /// An address and the length of its subnet's prefix, in bits.
  public struct Entry: Hashable, Sendable, CustomStringConvertible {
    public var address: IPAddress
    public var prefixLength: UInt8

    public init(_ address: IPAddress, prefixLength: UInt8) {
      self.address = address
      self.prefixLength = prefixLength
    }

    public var description: String { "\(address)/\(prefixLength)" }
  }

  /// Adds an address; it is no error if it is there already.
  public static func add(
    _ address: IPAddress, prefixLength: UInt8, to interface: NetworkInterface
  ) throws(SystemError) {
    let flags = UInt16(NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
    try change(UInt16(RTM_NEWADDR), flags, Entry(address, prefixLength: prefixLength), interface, EEXIST)
  }

  /// Removes an address; it is no error if it is not there.
  public static func remove(
    _ address: IPAddress, prefixLength: UInt8, from interface: NetworkInterface
  ) throws(SystemError) {
    try change(
      UInt16(RTM_DELADDR), UInt16(NLM_F_REQUEST | NLM_F_ACK), Entry(address, prefixLength: prefixLength),
      interface, EADDRNOTAVAIL)
  }

  /// All IPv4 and IPv6 addresses of an interface.
  public static func list(on interface: NetworkInterface) throws(SystemError) -> [Entry] {
    let socket = try NetlinkSocket(NETLINK_ROUTE)
    var entries: [Entry] = []
    try socket.send(UInt16(RTM_GETADDR), UInt16(NLM_F_REQUEST | NLM_F_DUMP), ifaddrmsg())
    while try socket.receive({ type, body in
      guard type == RTM_NEWADDR, body.count >= MemoryLayout<ifaddrmsg>.size else { return }
      let message = body.loadUnaligned(as: ifaddrmsg.self)
      guard message.ifa_index == UInt32(interface.index) else { return }
      let family: IPAddress.Family
      switch Int32(message.ifa_family) {
      case AF_INET: family = .v4
      case AF_INET6: family = .v6
      default: return
      }
      var found: [UInt16: IPAddress] = [:]
      let attributes = UnsafeRawBufferPointer(rebasing: body[MemoryLayout<ifaddrmsg>.size...])
      attributes.forEachAttribute { kind, value in
        if value.count == (family == .v4 ? 4 : 16) { found[kind] = IPAddress(family, value, at: 0) }
      }
      // On a point-to-point link IFA_ADDRESS is the other end.
      if let address = found[UInt16(IFA_LOCAL)] ?? found[UInt16(IFA_ADDRESS)] {
        entries.append(Entry(address, prefixLength: message.ifa_prefixlen))
      }
    }) {}
    return entries
  }

  private static func change(
    _ type: UInt16, _ flags: UInt16, _ entry: Entry, _ interface: NetworkInterface, _ accepted: Int32
  ) throws(SystemError) {
    var header = ifaddrmsg()
    header.ifa_family = UInt8(entry.address.family == .v4 ? AF_INET : AF_INET6)
    header.ifa_prefixlen = entry.prefixLength
    header.ifa_index = UInt32(interface.index)
    if entry.address.family == .v6 { header.ifa_flags = UInt8(IFA_F_NODAD) }

    let socket = try NetlinkSocket(NETLINK_ROUTE)
    let attributes = [IFA_LOCAL, IFA_ADDRESS].map { (UInt16($0), entry.address.bytes) }
    try socket.send(type, flags, header, attributes)
    do throws(SystemError) {
      while try socket.receive({ _, _ in }) {}
    } catch {
      if error.code != accepted {
        throw SystemError(
          type == RTM_NEWADDR ? "rtnetlink(RTM_NEWADDR)" : "rtnetlink(RTM_DELADDR)", code: error.code,
          on: "\(entry) at \(interface.name)")
      }
    }
  }
}

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
// - IFA_F_NODAD spares an IPv6 address the detection of duplicates. Whether somebody else has it is the
//   arbiter's question, and was asked before. Even so the kernel makes the address known to its routing only
//   after it has answered, in a work queue that waits for the RTNL lock (addrconf_dad_start): mostly within
//   microseconds, but 13 ms were seen. What arrives before is dropped; where that is the answer to the
//   first neighbour solicitation, the next one comes a second later. So ``add`` waits for it.
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

  /// How long an address that was added is waited for, in milliseconds: less than a lease lasts.
  static let patience = 25
  /// Between two looks, in microseconds.
  private static let interval: UInt32 = 200

  /// Adds an address; it is no error if it is there already. Packets for it are delivered when this returns.
  ///
  /// - Parameter vrf: of which the interface is a port.
  public static func add(
    _ address: IPAddress, prefixLength: UInt8, to interface: NetworkInterface, in vrf: VRF? = nil
  ) throws(SystemError) {
    let flags = UInt16(NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
    try change(UInt16(RTM_NEWADDR), flags, Entry(address, prefixLength: prefixLength), interface, EEXIST)
    let looks = address.family == .v6 ? patience * 1000 / Int(interval) : 0
    for _ in 0..<looks {
      if try isLocal(address, in: vrf) { break }
      usleep(interval)
    }
  }

  /// Whether packets for `address` are for this machine.
  private static func isLocal(_ address: IPAddress, in vrf: VRF?) throws(SystemError) -> Bool {
    var query = rtmsg()
    query.rtm_family = UInt8(address.family == .v4 ? AF_INET : AF_INET6)
    query.rtm_dst_len = UInt8(address.byteCount * 8)
    let socket = try NetlinkSocket(NETLINK_ROUTE)
    var attributes = [(UInt16(RTA_DST.rawValue), address.bytes)]
    if let vrf { attributes.append((UInt16(RTA_OIF.rawValue), withUnsafeBytes(of: vrf.index) { Array($0) })) }
    try socket.send(UInt16(RTM_GETROUTE), UInt16(NLM_F_REQUEST), query, attributes)
    var isLocal = false
    do throws(SystemError) {
      // The answer is one message, without an end marker.
      _ = try socket.receive { type, body in
        guard type == RTM_NEWROUTE, body.count >= MemoryLayout<rtmsg>.size else { return }
        isLocal = body.loadUnaligned(as: rtmsg.self).rtm_type == UInt8(RTN_LOCAL)
      }
    } catch  where error.code == ENETUNREACH || error.code == EHOSTUNREACH || error.code == EINVAL {
      // No way there at all; EINVAL is what a prohibited one answers.
    }
    return isLocal
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
      try socket.awaitAcknowledgement()
    } catch {
      if error.code != accepted {
        throw SystemError(
          type == RTM_NEWADDR ? "rtnetlink(RTM_NEWADDR)" : "rtnetlink(RTM_DELADDR)", code: error.code,
          on: "\(entry) at \(interface.name)")
      }
    }
  }
}

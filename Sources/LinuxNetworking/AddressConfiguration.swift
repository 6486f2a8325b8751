// Theory of operation
//
// Addresses are added and removed through rtnetlink(7), in process: a switchover cannot wait for a program
// to be started. Each call opens a socket of its own, so that it acts on the network namespace of the
// calling thread.
//
// Relied on, from net/ipv4/devinet.c and net/ipv6/addrconf.c, each point tried:
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
    let socket = try openSocket()
    var entries: [Entry] = []
    try send(request(UInt16(RTM_GETADDR), UInt16(NLM_F_REQUEST | NLM_F_DUMP), ifaddrmsg(), []), on: socket)
    while try receive(on: socket, each: { type, body in
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
      var offset = MemoryLayout<ifaddrmsg>.size
      while offset + 4 <= body.count {
        let length = Int(body.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
        guard length >= 4, offset + length <= body.count else { break }
        if length - 4 == (family == .v4 ? 4 : 16) {
          let kind = body.loadUnaligned(fromByteOffset: offset + 2, as: UInt16.self)
          found[kind] = IPAddress(family, body, at: offset + 4)
        }
        offset += (length + 3) & ~3
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

    let socket = try openSocket()
    let attributes = [IFA_LOCAL, IFA_ADDRESS].map { (UInt16($0), entry.address.bytes) }
    try send(request(type, flags, header, attributes), on: socket)
    do throws(SystemError) {
      while try receive(on: socket, each: { _, _ in }) {}
    } catch {
      if error.code != accepted {
        throw SystemError(
          type == RTM_NEWADDR ? "rtnetlink(RTM_NEWADDR)" : "rtnetlink(RTM_DELADDR)", code: error.code,
          on: "\(entry) at \(interface.name)")
      }
    }
  }

  // MARK: - Netlink

  private static func openSocket() throws(SystemError) -> OwnedDescriptor {
    try OwnedDescriptor(
      returnedBy: "socket(AF_NETLINK)",
      socket(AF_NETLINK, Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue), NETLINK_ROUTE))
  }

  private static func request(
    _ type: UInt16, _ flags: UInt16, _ body: ifaddrmsg, _ attributes: [(UInt16, [UInt8])]
  ) -> [UInt8] {
    var bytes: [UInt8] = []
    func append<T: BitwiseCopyable>(_ value: T) { withUnsafeBytes(of: value) { bytes += $0 } }
    append(nlmsghdr(nlmsg_len: 0, nlmsg_type: type, nlmsg_flags: flags, nlmsg_seq: 1, nlmsg_pid: 0))
    append(body)
    for (kind, value) in attributes {
      append(UInt16(4 + value.count))
      append(kind)
      bytes += value
    }
    withUnsafeBytes(of: UInt32(bytes.count)) { bytes.replaceSubrange(0..<4, with: $0) }
    return bytes
  }

  private static func send(_ request: [UInt8], on socket: borrowing OwnedDescriptor) throws(SystemError) {
    guard Glibc.send(socket.rawValue, request, request.count, 0) == request.count else {
      throw SystemError("send(AF_NETLINK)")
    }
  }

  /// Reads one batch of messages; false after the last of an answer. Throws the error that an answer holds.
  private static func receive(
    on socket: borrowing OwnedDescriptor, each body: (UInt16, UnsafeRawBufferPointer) -> Void
  ) throws(SystemError) -> Bool {
    // The kernel fills at most 32 KiB at a time (netlink_dump, net/netlink/af_netlink.c).
    var buffer = [UInt8](repeating: 0, count: 64 << 10)
    let count = recv(socket.rawValue, &buffer, buffer.count, 0)
    guard count > 0 else { throw SystemError("recv(AF_NETLINK)") }

    var more = true
    var failure: Int32 = 0
    buffer.withUnsafeBytes { bytes in
      let headerSize = MemoryLayout<nlmsghdr>.size
      var offset = 0
      while offset + headerSize <= count {
        let header = bytes.loadUnaligned(fromByteOffset: offset, as: nlmsghdr.self)
        let length = Int(header.nlmsg_len)
        guard length >= headerSize, offset + length <= count else { break }
        let content = UnsafeRawBufferPointer(rebasing: bytes[(offset + headerSize)..<(offset + length)])
        switch Int32(header.nlmsg_type) {
        case NLMSG_DONE: more = false
        case NLMSG_ERROR:
          more = false
          if content.count >= 4 { failure = -content.loadUnaligned(as: Int32.self) }
        default: body(header.nlmsg_type, content)
        }
        offset += (length + 3) & ~3
      }
    }
    if failure != 0 { throw SystemError("rtnetlink", code: failure) }
    return more
  }
}

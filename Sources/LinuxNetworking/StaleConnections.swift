// Theory of operation
//
// sock_diag(7) lists the sockets of a network namespace and ends them, whoever holds them (SOCK_DESTROY,
// CONFIG_INET_DIAG_DESTROY): tcp_abort in net/ipv4/tcp.c makes every call of a holder fail with ECONNABORTED, and sends
// a reset to the peer; udp_abort in net/ipv4/udp.c does the first. The reset is why this is only for an RE whose fence is
// shut; tried: with the fence of `PacketFilter` shut, no reset is seen on the wire.

import CLinux
import Descriptors
import Glibc
import Packet

/// Connections, and UDP sockets, of a replicated address that this RE may no longer have.
///
/// An engine that loses mastership ends the sockets it knows. Others may be about: not replicated ones, and
/// those of an engine that was killed. Left alone they would keep sending into the fence, and stand in the
/// way when the same connection is to be merged here again.
public enum StaleConnections {
  /// Ends all TCP connections whose local address is `address`. Listening sockets are left alone.
  ///
  /// - Parameter isMeant: whether sockets that are bound to the device of this index are; 0 is for those bound to none.
  /// - Returns: how many there were.
  /// - Throws: `EOPNOTSUPP` if the kernel cannot end sockets, `EPERM` without CAP_NET_ADMIN.
  public static func destroy(
    local address: IPAddress, boundTo isMeant: (Int32) -> Bool = { _ in true }
  ) throws(SystemError) -> Int {
    try destroy(.tcp, local: address) { _, _, device in isMeant(device) }
  }

  /// Ends those of the connections and UDP sockets of `address` that belong to one of `flows`.
  public static func destroy(
    local address: IPAddress, among flows: Set<Flow>, boundTo isMeant: (Int32) -> Bool = { _ in true }
  ) throws(SystemError) -> Int {
    var count = 0
    for transport in [TransportProtocol.tcp, .udp] {
      let own = flows.filter { $0.local.address == address && $0.transport == transport }
      guard !own.isEmpty else { continue }
      let ports = Set(own.map { [$0.local.port, $0.remote.port] })
      count += try destroy(transport, local: address) { local, remote, device in
        ports.contains([local, remote]) && isMeant(device)
      }
    }
    return count
  }

  private static func destroy(
    _ transport: TransportProtocol, local address: IPAddress,
    where isMeant: (_ localPort: UInt16, _ remotePort: UInt16, _ device: Int32) -> Bool
  ) throws(SystemError) -> Int {
    switch address.family {
    case .v6: return try destroy(transport, AF_INET6, address, where: isMeant)
    case .v4:
      // A socket of a listener for both families has the address in its IPv6 form (RFC 4291, 2.5.5.2).
      let mapped = IPAddress(v6High: 0, low: 0xffff << 32 | UInt64(address.v4Value ?? 0))
      return try destroy(transport, AF_INET, address, where: isMeant)
        + destroy(transport, AF_INET6, mapped, where: isMeant)
    }
  }

  private static func destroy(
    _ transport: TransportProtocol, _ family: Int32, _ address: IPAddress,
    where isMeant: (UInt16, UInt16, Int32) -> Bool
  ) throws(SystemError) -> Int {
    var query = inet_diag_req_v2()
    query.sdiag_family = UInt8(family)
    query.sdiag_protocol = transport.rawValue
    query.idiag_states = ~(1 << listening)

    var found: [inet_diag_sockid] = []
    let listing = try NetlinkSocket(NETLINK_SOCK_DIAG)
    try listing.send(UInt16(SOCK_DIAG_BY_FAMILY), UInt16(NLM_F_REQUEST | NLM_F_DUMP), query)
    while try listing.receive({ _, body in
      guard body.count >= MemoryLayout<inet_diag_msg>.size else { return }
      let message = body.loadUnaligned(as: inet_diag_msg.self)
      let local = withUnsafeBytes(of: message.id.idiag_src) { IPAddress(address.family, $0, at: 0) }
      let ports = (UInt16(bigEndian: message.id.idiag_sport), UInt16(bigEndian: message.id.idiag_dport))
      guard local == address, isMeant(ports.0, ports.1, Int32(bitPattern: message.id.idiag_if)) else {
        return
      }
      found.append(message.id)
    }) {}

    for id in found {
      query.id = id
      let socket = try NetlinkSocket(NETLINK_SOCK_DIAG)
      try socket.send(UInt16(SOCK_DESTROY), UInt16(NLM_F_REQUEST | NLM_F_ACK), query)
      do throws(SystemError) {
        try socket.awaitAcknowledgement()
      } catch  where error.code == ENOENT {
        // It ended by itself meanwhile.
      }
    }
    return found.count
  }

  /// TCP_LISTEN (include/net/tcp_states.h).
  private static let listening: UInt32 = 10
}

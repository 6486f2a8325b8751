import CLinux
import Descriptors
import Glibc
import Packet

/// Whether the kernel still has a connection, whoever holds its socket, or nobody any more: sock_diag(7) looks up one
/// connection as an arriving packet would (inet_diag_find_one_icsk, net/ipv4/inet_diag.c), which finds a listening
/// socket where there is no connection.
public enum ConnectionLookup {
  /// Of the network namespace of the calling thread.
  ///
  /// - Throws: `EAFNOSUPPORT` for a flow that is not of IPv4, what netlink(7) says otherwise.
  public static func exists(_ flow: Flow) throws(SystemError) -> Bool {
    guard let local = flow.local.address.v4Value, let remote = flow.remote.address.v4Value else {
      throw SystemError("sock_diag", code: EAFNOSUPPORT, on: "\(flow)")
    }
    var query = inet_diag_req_v2()
    query.sdiag_family = UInt8(AF_INET)
    query.sdiag_protocol = UInt8(IPPROTO_TCP)
    query.idiag_states = .max
    query.id.idiag_sport = flow.local.port.bigEndian
    query.id.idiag_dport = flow.remote.port.bigEndian
    query.id.idiag_src.0 = local.bigEndian
    query.id.idiag_dst.0 = remote.bigEndian
    // INET_DIAG_NOCOOKIE: whichever it is.
    query.id.idiag_cookie = (.max, .max)
    let socket = try NetlinkSocket(NETLINK_SOCK_DIAG)
    try socket.send(UInt16(SOCK_DIAG_BY_FAMILY), UInt16(NLM_F_REQUEST | NLM_F_ACK), query)
    var isConnection = false
    do throws(SystemError) {
      while try socket.receive({ _, body in
        guard body.count >= MemoryLayout<inet_diag_msg>.size else { return }
        isConnection = body.loadUnaligned(as: inet_diag_msg.self).idiag_state != listening
      }) {}
    } catch {
      guard error.code == ENOENT else { throw error }
    }
    return isConnection
  }

  /// TCP_LISTEN (include/net/tcp_states.h).
  private static let listening: UInt8 = 10
}

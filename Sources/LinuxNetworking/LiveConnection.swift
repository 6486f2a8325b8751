import CLinux
import Descriptors
import Glibc
import Packet

/// What the kernel has of a TCP connection, whoever holds its socket, and if nobody does.
///
/// sock_diag(7) looks one connection up by its four-tuple (inet_diag_find_one_icsk, net/ipv4/inet_diag.c), also
/// one that has been closed by its last holder and is still saying good-bye to its peer. Where there is none, it
/// finds the listening socket that a SYN of that peer would reach.
public enum LiveConnection {
  /// Whether this network namespace has the TCP connection `flow`.
  ///
  /// - Throws: what the kernel says other than that there is none.
  public static func exists(_ flow: Flow) throws(SystemError) -> Bool {
    var query = inet_diag_req_v2()
    query.sdiag_family = UInt8(flow.local.address.family == .v4 ? AF_INET : AF_INET6)
    query.sdiag_protocol = UInt8(IPPROTO_TCP)
    query.idiag_states = ~0
    query.id.idiag_sport = flow.local.port.bigEndian
    query.id.idiag_dport = flow.remote.port.bigEndian
    withUnsafeMutableBytes(of: &query.id.idiag_src) { flow.local.address.store(in: $0, at: 0) }
    withUnsafeMutableBytes(of: &query.id.idiag_dst) { flow.remote.address.store(in: $0, at: 0) }
    // INET_DIAG_NOCOOKIE (include/uapi/linux/inet_diag.h): whichever socket it is.
    query.id.idiag_cookie = (.max, .max)

    let socket = try NetlinkSocket(NETLINK_SOCK_DIAG)
    try socket.send(UInt16(SOCK_DIAG_BY_FAMILY), UInt16(NLM_F_REQUEST), query)
    var state: UInt8?
    do throws(SystemError) {
      // The answer is one message, without an end marker.
      _ = try socket.receive { _, body in
        guard body.count >= MemoryLayout<inet_diag_msg>.size else { return }
        state = body.loadUnaligned(as: inet_diag_msg.self).idiag_state
      }
    } catch {
      if error.code == ENOENT { return false }
      throw error
    }
    return state != nil && state != listening
  }

  /// TCP_LISTEN (include/net/tcp_states.h).
  private static let listening: UInt8 = 10
}

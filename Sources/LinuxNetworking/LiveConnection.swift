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
  /// - Parameter vrf: to which its socket is bound.
  /// - Throws: what the kernel says other than that there is none.
  public static func exists(_ flow: Flow, in vrf: VRF? = nil) throws(SystemError) -> Bool {
    var state: UInt8?
    do throws(SystemError) {
      try query(flow, vrf) { message, _ in state = message.idiag_state }
    } catch {
      if error.code == ENOENT { return false }
      throw error
    }
    return state != nil && state != listening
  }

  /// The key that the TCP connection `flow` of this network namespace is signed with (TCP_MD5SIG, RFC 2385);
  /// `nil` if it is not signed. Needs CAP_NET_ADMIN, without which the kernel keeps keys to itself.
  ///
  /// - Throws: `ENOENT` if there is no such connection, or the kernel lacks CONFIG_INET_DIAG.
  public static func signingKey(of flow: Flow, in vrf: VRF? = nil) throws(SystemError) -> [UInt8]? {
    var best: (prefixLength: UInt8, key: [UInt8])?
    try query(flow, vrf) { _, attributes in
      attributes.forEachAttribute { kind, value in
        // INET_DIAG_MD5SIG (include/uapi/linux/inet_diag.h), an array.
        guard kind == 18 else { return }
        let size = MemoryLayout<jsr_signing_key>.size
        for start in stride(from: 0, through: value.count - size, by: size) {
          let entry = UnsafeRawBufferPointer(rebasing: value[start..<(start + size)])
          guard let candidate = SigningKeyEntry(entry), candidate.covers(flow.remote.address),
            best.map({ candidate.prefixLength >= $0.prefixLength }) ?? true
          else { continue }
          best = (candidate.prefixLength, candidate.key)
        }
      }
    }
    return best?.key
  }

  private static func query(
    _ flow: Flow, _ vrf: VRF?, _ found: (inet_diag_msg, UnsafeRawBufferPointer) -> Void
  ) throws(SystemError) {
    var query = inet_diag_req_v2()
    query.sdiag_family = UInt8(flow.local.address.family == .v4 ? AF_INET : AF_INET6)
    query.sdiag_protocol = UInt8(IPPROTO_TCP)
    query.idiag_states = ~0
    // INET_DIAG_INFO (include/uapi/linux/inet_diag.h), without which the kernel leaves the keys out.
    query.idiag_ext = 1 << (2 - 1)
    query.id.idiag_if = UInt32(bitPattern: vrf?.index ?? 0)
    query.id.idiag_sport = flow.local.port.bigEndian
    query.id.idiag_dport = flow.remote.port.bigEndian
    withUnsafeMutableBytes(of: &query.id.idiag_src) { flow.local.address.store(in: $0, at: 0) }
    withUnsafeMutableBytes(of: &query.id.idiag_dst) { flow.remote.address.store(in: $0, at: 0) }
    // INET_DIAG_NOCOOKIE (include/uapi/linux/inet_diag.h): whichever socket it is.
    query.id.idiag_cookie = (.max, .max)

    let socket = try NetlinkSocket(NETLINK_SOCK_DIAG)
    try socket.send(UInt16(SOCK_DIAG_BY_FAMILY), UInt16(NLM_F_REQUEST), query)
    // The answer is one message, without an end marker.
    _ = try socket.receive { _, body in
      let size = MemoryLayout<inet_diag_msg>.size
      guard body.count >= size else { return }
      found(body.loadUnaligned(as: inet_diag_msg.self), UnsafeRawBufferPointer(rebasing: body[size...]))
    }
  }

  /// TCP_LISTEN (include/net/tcp_states.h).
  private static let listening: UInt8 = 10
}

/// One of the keys of a socket, which may be for other peers (`jsr_signing_key`).
private struct SigningKeyEntry {
  let address: IPAddress
  let prefixLength: UInt8
  let key: [UInt8]

  init?(_ bytes: UnsafeRawBufferPointer) {
    let entry = bytes.loadUnaligned(as: jsr_signing_key.self)
    let family: IPAddress.Family
    switch Int32(entry.family) {
    case AF_INET: family = .v4
    case AF_INET6: family = .v6
    default: return nil
    }
    address = withUnsafeBytes(of: entry.address) { IPAddress(family, $0, at: 0) }
    prefixLength = entry.prefix_length
    key = withUnsafeBytes(of: entry.key) { Array($0.prefix(Int(entry.key_length))) }
  }

  func covers(_ peer: IPAddress) -> Bool {
    guard peer.family == address.family else { return false }
    let (own, other) = (address.bytes, peer.bytes)
    for bit in 0..<min(Int(prefixLength), own.count * 8) {
      let difference: UInt8 = own[bit / 8] ^ other[bit / 8]
      if difference << UInt8(bit % 8) & 0x80 != 0 { return false }
    }
    return true
  }
}

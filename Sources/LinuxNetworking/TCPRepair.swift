// Theory of operation
//
// TCP_REPAIR makes the kernel hand out, and take back, what it knows of a TCP connection. Relied on, from
// net/ipv4/tcp.c and tcp_output.c; what can be seen from outside
// is shown by the tests of this target:
//
// - In repair mode TCP_QUEUE_SEQ is write_seq for TCP_SEND_QUEUE and rcv_nxt for TCP_RECV_QUEUE, and recv
//   with MSG_PEEK reads either queue. Both numbers count a FIN.
// - Packets are processed in repair mode as always, so a reading made of several calls can be torn. It is
//   taken again until the numbers before and after agree. Segments of the connection should be held while
//   it is read.
// - Other holders of the socket must leave it alone meanwhile: their reads and writes fail with EPERM or
//   EINVAL.
// - recv(MSG_PEEK) on the send queue (tcp_peek_sndq) copies whole buffers and fails with EFAULT when the
//   last one does not fit. The first buffer may begin before snd_una: one that makes up a single segment
//   is not cut when a part of it is acknowledged (tcp_clean_rtx_queue). What counts are the last
//   write_seq - snd_una bytes.
// - TCP_REPAIR sets SO_REUSEADDR to a value of its own and leaving repair mode clears it: it is read before
//   and set again after.
// - Leaving with TCP_REPAIR_OFF_NO_WP (-1, Linux 4.19) sends nothing, where 0 sends a window probe.
// - connect(2) in repair mode goes straight to ESTABLISHED and sends nothing. bind(2) ignores conflicts.
// - send(2) in repair mode appends to the chosen queue. For the send queue the bytes count as sent and the
//   retransmission timer runs. For the receive queue the kernel allocates one buffer per call and enforces
//   the receive buffer, so large queues go in pieces.
// - tcp_select_window never moves the right edge (rcv_wup + rcv_wnd) back, so setting the two restores the
//   promise that was made to the peer. The receive buffer has to be large enough to keep it.
// - SO_SNDBUFFORCE and SO_RCVBUFFORCE end autotuning by setting a lock; SO_BUF_LOCK (Linux 5.14) takes it
//   off again.
// - tcp_v4_connect starts from an MSS of 536 bytes, tcp_v6_connect from 1220. TCP_REPAIR_OPTIONS raises the
//   clamp, but not the size in use, which then stays small as long as the path MTU does not change. A
//   TCP_MAXSEG set before connect(2) gives the size in use the right start (tcp_connect_init), and is taken
//   back at once.
// - connect(2) to AF_UNSPEC in repair mode (tcp_disconnect) ends the connection with neither FIN nor RST, and
//   gives every holder of the socket ECONNABORTED.
//
// - TCP_MD5SIG may be set in any state, in repair mode too. Set before connect(2), the restored socket takes
//   and sends nothing that is not signed. tcp_current_mss leaves room for the signature in every segment, and
//   signing takes segmentation offload away from the socket, since each segment on the wire has its own.
//
// Not covered: TCP-AO, and the urgent pointer.
//
// The facts about half-closed sockets were first collected by the CRIU project (soccr).

import CLinux
import Descriptors
import Glibc
import Packet

/// Reads and rebuilds TCP sockets. All of it needs CAP_NET_ADMIN in the socket's network namespace.
public enum TCPRepair {
  /// Readings that may disagree before a snapshot is given up.
  private static let attempts = 16

  // MARK: - Reading

  /// Throws unless `descriptor` is a TCP socket with a connection of which at least one direction is open.
  public static func validate(_ descriptor: Int32) throws(ReplicationRefusal) {
    let transport = try InternetSocket.transport(of: descriptor)
    guard transport == .tcp else { throw .unsupportedProtocol(Int32(transport.rawValue)) }

    // TCP_ULP_NAME_MAX is 16 (include/net/tcp.h); the kernel writes nothing if there is none.
    var name = [UInt8](repeating: 0, count: 16)
    var length = socklen_t(name.count)
    if getsockopt(descriptor, Int32(IPPROTO_TCP), TCP_ULP, &name, &length) == 0, name[0] != 0 {
      throw .upperLayerProtocol(String(decoding: name.prefix { $0 != 0 }, as: UTF8.self))
    }

    // struct tcp_ao_info_opt; a socket without keys has ENOENT, a kernel without TCP-AO ENOPROTOOPT.
    var authentication = [UInt8](repeating: 0, count: 56)
    length = socklen_t(authentication.count)
    if getsockopt(descriptor, Int32(IPPROTO_TCP), JSR_TCP_AO_INFO, &authentication, &length) == 0 {
      throw .authenticated
    }

    let info: TCPInfo
    do throws(SystemError) {
      info = try TCPInfo(of: descriptor)
    } catch {
      // SIOCOUTQ and SIOCINQ of a listening socket.
      if error.code == EINVAL { throw .listening }
      throw .system(error)
    }
    // include/net/tcp_states.h
    switch info.state {
    case 1, 4, 5, 8: return
    case 2, 3, 12: throw .connecting
    case 6, 9, 11: throw .closing
    default: throw .notConnected
    }
  }

  /// The two ends of the connection that ``validate(_:)`` let pass.
  public static func ends(
    of descriptor: Int32
  ) throws(SystemError) -> (local: Endpoint, remote: Endpoint, isIPv6Socket: Bool) {
    let address = try SocketAddress.local(of: descriptor)
    guard let local = address.endpoint, let remote = try SocketAddress.remote(of: descriptor).endpoint else {
      throw SystemError("getsockname", code: EAFNOSUPPORT)
    }
    return (local, remote, address.isOfIPv6Socket)
  }

  /// Reads everything about a connection and leaves it undisturbed.
  ///
  /// If the socket is in repair mode already, it stays in it.
  public static func snapshot(of descriptor: Int32) throws(TCPRepairError) -> TCPSnapshot {
    do throws(ReplicationRefusal) {
      try validate(descriptor)
    } catch {
      throw .refused(error)
    }
    do throws(SystemError) {
      let ends = try ends(of: descriptor)
      // Before repair mode, which changes SO_REUSEADDR.
      let options = SocketOptions(of: descriptor, family: ends.local.address.family)
      let mode = try RepairMode(descriptor)
      defer { mode.end() }

      for _ in 0..<attempts {
        let reading = try TCPReading(descriptor)
        guard let state = TCPSnapshot.State(rawValue: reading.info.state) else { continue }
        let sent = reading.sendSide(state)
        let received = reading.receiveSide(state)
        guard
          let sendQueue = try TCPQueue.send.peek(descriptor, count: sent.write - sent.unacknowledged),
          let receiveQueue = try TCPQueue.receive.peek(descriptor, count: Int(reading.info.unread))
        else { continue }
        let timestamp = reading.info.timestampsEnabled ? try timestamp(of: descriptor) : 0
        guard try TCPReading(descriptor).agrees(with: reading) else { continue }

        return TCPSnapshot(
          local: ends.local, remote: ends.remote, isIPv6Socket: ends.isIPv6Socket, state: state,
          sendUnacknowledged: sent.unacknowledged, sendNext: sent.next, writeSequence: sent.write,
          receiveNext: received.next, sendQueue: sendQueue, receiveQueue: receiveQueue,
          finReceived: received.fin, finSent: sent.fin, sendWindow: reading.window.snd_wnd,
          sendWindowUpdate: SequenceNumber(reading.window.snd_wl1),
          maximumSendWindow: reading.window.max_window, receiveAcknowledged: received.acknowledged,
          receiveWindow: received.window, sendWindowScale: reading.info.sendWindowScale,
          receiveWindowScale: reading.info.receiveWindowScale,
          maximumSegmentSize: UInt16(clamping: reading.maximumSegmentSize),
          sackPermitted: reading.info.sackPermitted, timestampsEnabled: reading.info.timestampsEnabled,
          timestamp: timestamp, options: options)
      }
    } catch {
      throw .system(error)
    }
    throw .unsettled
  }

  /// What the kernel says of the connection, without repair mode: the socket may be in use.
  public static func info(of descriptor: Int32) throws(SystemError) -> TCPInfo {
    try TCPInfo(of: descriptor)
  }

  /// The same, with numbers that belong together: an acknowledgement may arrive between two system calls.
  public static func settledInfo(of descriptor: Int32) throws(SystemError) -> TCPInfo {
    var info = try TCPInfo(of: descriptor)
    for _ in 0..<attempts {
      let again = try TCPInfo(of: descriptor)
      if again.bytesAcknowledged == info.bytesAcknowledged, again.unacknowledged == info.unacknowledged {
        return again
      }
      info = again
    }
    throw SystemError("getsockopt(TCP_INFO)", code: EAGAIN)
  }

  /// Where the socket's byte counters started, so that ``TCPInfo`` gives sequence numbers from now on. Uses
  /// repair mode, so the same rules hold as for a snapshot.
  public static func origin(of descriptor: Int32) throws(TCPRepairError) -> TCPSequenceOrigin {
    do throws(SystemError) {
      let mode = try RepairMode(descriptor)
      defer { mode.end() }
      for _ in 0..<attempts {
        let reading = try TCPReading(descriptor)
        guard try TCPReading(descriptor).agrees(with: reading) else { continue }
        let unacknowledged = reading.writeSequence - Int(reading.info.unacknowledged)
        return TCPSequenceOrigin(
          send: unacknowledged - Int(truncatingIfNeeded: reading.info.bytesAcknowledged),
          receive: reading.receiveNext - Int(truncatingIfNeeded: reading.info.bytesReceived))
      }
    } catch {
      throw .system(error)
    }
    throw .unsettled
  }

  /// The clock behind the TSval that the socket would send now (TCP_TIMESTAMP). The lowest bit tells its unit:
  /// see ``TCPSnapshot/timestamp``. Does not need repair mode.
  public static func timestamp(of descriptor: Int32) throws(SystemError) -> UInt32 {
    try socketOption(
      descriptor, Int32(IPPROTO_TCP), TCP_TIMESTAMP, into: UInt32(0), "getsockopt(TCP_TIMESTAMP)")
  }

  // MARK: - Rebuilding

  /// Makes a socket that is at the point where the snapshot was taken, and leaves it in repair mode: it sends
  /// nothing until ``activate(_:_:)``, except that its retransmission timer runs, and it is already
  /// found by packets that arrive.
  ///
  /// The socket is ESTABLISHED in any case. A FIN that stands in the snapshot is not restored: give the
  /// peer's to the socket again as a segment, and call `shutdown` for our own, after ``activate(_:_:)``.
  ///
  /// The local address must be there, and a route to the peer.
  ///
  /// - Parameters:
  ///   - vrf: to which the socket is bound.
  ///   - scope: index of the interface, needed for link-local IPv6 addresses only.
  ///   - signingKey: of a signed connection (RFC 2385), 1 to 80 bytes.
  ///   - defaults: of the network namespace that the calling thread is in.
  ///   - refused: told of each socket option that could not be set; the socket is good without it.
  /// - Throws: `EADDRNOTAVAIL` if the local address is missing, `ENETUNREACH` without a route,
  ///   `EADDRINUSE` or `EADDRNOTAVAIL` from connect if the connection exists here already.
  public static func restore(
    _ snapshot: TCPSnapshot, in vrf: VRF? = nil, scope: UInt32 = 0, signingKey: [UInt8]? = nil,
    defaults: SocketDefaults = SocketDefaults(), refused: (SystemError) -> Void = { _ in }
  ) throws(TCPRepairError) -> OwnedDescriptor {
    guard snapshot.sendQueue.count == snapshot.writeSequence - snapshot.sendUnacknowledged else {
      throw .inconsistent("the send queue does not hold what the sequence numbers say")
    }
    guard snapshot.sendUnacknowledged <= snapshot.sendNext, snapshot.sendNext <= snapshot.writeSequence else {
      throw .inconsistent("the send sequence numbers are out of order")
    }
    guard snapshot.maximumSendWindow >= snapshot.sendWindow else {
      throw .inconsistent("the send window is larger than its maximum")
    }
    guard snapshot.receiveAcknowledged <= snapshot.receiveNext else {
      throw .inconsistent("the window was advertised for bytes that have not arrived")
    }
    do throws(SystemError) {
      return try rebuild(
        snapshot, vrf, scope: scope, signingKey: signingKey, defaults: defaults, refused: refused)
    } catch {
      throw .system(error)
    }
  }

  private static func rebuild(
    _ snapshot: TCPSnapshot, _ vrf: VRF?, scope: UInt32, signingKey: [UInt8]?, defaults: SocketDefaults,
    refused: (SystemError) -> Void
  ) throws(SystemError) -> OwnedDescriptor {
    let family = snapshot.local.address.family
    let socket = try OwnedDescriptor(
      returnedBy: "socket",
      Glibc.socket(
        snapshot.isIPv6Socket ? AF_INET6 : AF_INET,
        Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0))
    let descriptor = socket.rawValue
    try vrf?.bind(descriptor)
    let present = defaults.options(
      of: descriptor,
      SocketDefaults.Kind(isIPv6Socket: snapshot.isIPv6Socket, family: family))
    try RepairMode.set(descriptor, TCP_REPAIR_ON)
    let isReserved = try reserveBuffers(descriptor, for: snapshot, present: present)
    snapshot.options.applyPlain(to: descriptor, family: family, present: present, refused: refused)

    // Sequence numbers can be set while the socket is closed only; the queues then move them on. The receive queue stays
    // the one that is chosen.
    try TCPQueue.send.setSequence(descriptor, snapshot.sendUnacknowledged)
    try TCPQueue.receive.setSequence(descriptor, snapshot.receiveNext - snapshot.receiveQueue.count)

    let mapped = snapshot.isIPv6Socket
    let local = SocketAddress(snapshot.local, mapped: mapped, scope: scope)
    guard local.withPointer({ bind(descriptor, $0, $1) }) == 0 else {
      throw SystemError("bind", on: "\(snapshot.local)")
    }
    // Between TCP_MIN_MSS and MAX_TCP_WINDOW (include/net/tcp.h).
    let segmentSize = min(max(Int32(snapshot.maximumSegmentSize), 88), 32767)
    try setSocketOption(
      descriptor, Int32(IPPROTO_TCP), TCP_MAXSEG, segmentSize, "setsockopt(TCP_MAXSEG)")
    let remote = SocketAddress(snapshot.remote, mapped: mapped, scope: scope)
    if let signingKey {
      let result = remote.withPointer {
        jsr_set_signing_key(descriptor, $0, $1, -1, signingKey, signingKey.count)
      }
      guard result == 0 else { throw SystemError("setsockopt(TCP_MD5SIG)") }
    }
    guard remote.withPointer({ connect(descriptor, $0, $1) }) == 0 else {
      throw SystemError("connect", on: "\(snapshot.local) - \(snapshot.remote)")
    }
    try setSocketOption(descriptor, Int32(IPPROTO_TCP), TCP_MAXSEG, Int32(0), "setsockopt(TCP_MAXSEG)")

    try setNegotiatedOptions(descriptor, snapshot)
    try TCPQueue.write(snapshot.receiveQueue[...], to: descriptor)
    try TCPQueue.send.append(snapshot.sendQueue.dropLast(snapshot.unsent.count), to: descriptor)
    try setSocketOption(
      descriptor, Int32(IPPROTO_TCP), TCP_REPAIR_WINDOW,
      tcp_repair_window(
        snd_wl1: snapshot.sendWindowUpdate.rawValue, snd_wnd: snapshot.sendWindow,
        max_window: snapshot.maximumSendWindow, rcv_wnd: snapshot.receiveWindow,
        rcv_wup: snapshot.receiveAcknowledged.rawValue),
      "setsockopt(TCP_REPAIR_WINDOW)")
    if isReserved, snapshot.unsent.isEmpty { try snapshot.options.applyBuffers(to: descriptor) }
    return socket
  }

  /// Lets a restored socket live: repair mode ends, silently, and bytes of the send queue that were never
  /// sent are written as an application would.
  public static func activate(_ descriptor: Int32, _ snapshot: TCPSnapshot) throws(SystemError) {
    try RepairMode.set(descriptor, TCP_REPAIR_OFF_NO_WP)
    if let reuse = snapshot.options[.reuseAddress], reuse != 0 {
      try setSocketOption(descriptor, SOL_SOCKET, SO_REUSEADDR, Int32(1), "setsockopt(SO_REUSEADDR)")
    }
    // A limit on unsent bytes (tcp_stream_memory_free in net/ipv4/tcp_ipv4.c) is the application's; these were taken.
    let low = snapshot.unsent.isEmpty ? 0 : snapshot.options[.notSentLowWater] ?? 0
    if low != 0 {
      try setSocketOption(
        descriptor, Int32(IPPROTO_TCP), TCP_NOTSENT_LOWAT, UInt32.max, "setsockopt(TCP_NOTSENT_LOWAT)")
    }
    try TCPQueue.write(snapshot.unsent, to: descriptor)
    if low != 0 {
      try setSocketOption(
        descriptor, Int32(IPPROTO_TCP), TCP_NOTSENT_LOWAT, low, "setsockopt(TCP_NOTSENT_LOWAT)")
    }
    if !snapshot.unsent.isEmpty { try snapshot.options.applyBuffers(to: descriptor) }
    if snapshot.options[.nonBlocking] == 0 {
      let flags = fcntl(descriptor, F_GETFL)
      guard flags >= 0, fcntl(descriptor, F_SETFL, flags & ~O_NONBLOCK) == 0 else {
        throw SystemError("fcntl(F_SETFL)")
      }
    }
  }

  /// Ends a connection for every holder of its socket, with neither FIN nor RST: the peer hears nothing. A
  /// holder that waits in a call is woken, with `EPIPE`; the next call fails with `ECONNABORTED`.
  ///
  /// From Linux 6.4 to 6.6 the call itself fails with `EBUSY` while a holder waits inside the kernel.
  public static func disconnectSilently(_ descriptor: Int32) throws(SystemError) {
    let reuse = try socketOption(
      descriptor, SOL_SOCKET, SO_REUSEADDR, into: Int32(0), "getsockopt(SO_REUSEADDR)")
    try RepairMode.set(descriptor, TCP_REPAIR_ON)
    var address = sockaddr()
    address.sa_family = sa_family_t(AF_UNSPEC)
    let result = connect(descriptor, &address, socklen_t(MemoryLayout<sockaddr>.size))
    let failure = SystemError("connect(AF_UNSPEC)")
    try RepairMode.set(descriptor, TCP_REPAIR_OFF_NO_WP)
    if reuse == 1 {
      try setSocketOption(descriptor, SOL_SOCKET, SO_REUSEADDR, reuse, "setsockopt(SO_REUSEADDR)")
    }
    if result != 0 { throw failure }
  }

  // MARK: - Parts of a restoration

  private static func setNegotiatedOptions(
    _ descriptor: Int32, _ snapshot: TCPSnapshot
  ) throws(SystemError) {
    // Kinds of TCP options, with what TCP_REPAIR_OPTIONS makes of their values (tcp_repair_options_est).
    var options = [
      tcp_repair_opt(
        opt_code: UInt32(TCPOption.maximumSegmentSize), opt_val: UInt32(snapshot.maximumSegmentSize))
    ]
    if let send = snapshot.sendWindowScale, let receive = snapshot.receiveWindowScale {
      options.append(
        tcp_repair_opt(
          opt_code: UInt32(TCPOption.windowScale), opt_val: UInt32(send) | UInt32(receive) << 16))
    }
    if snapshot.sackPermitted {
      options.append(tcp_repair_opt(opt_code: UInt32(TCPOption.sackPermitted), opt_val: 0))
    }
    if snapshot.timestampsEnabled {
      options.append(tcp_repair_opt(opt_code: UInt32(TCPOption.timestamps), opt_val: 0))
    }
    let size = socklen_t(options.count * MemoryLayout<tcp_repair_opt>.stride)
    guard setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_REPAIR_OPTIONS, &options, size) == 0 else {
      throw SystemError("setsockopt(TCP_REPAIR_OPTIONS)")
    }
    if snapshot.timestampsEnabled {
      try setSocketOption(
        descriptor, Int32(IPPROTO_TCP), TCP_TIMESTAMP, snapshot.timestamp, "setsockopt(TCP_TIMESTAMP)")
    }
  }

  /// Room for both queues and for all that the peer may still send; the kernel doubles what it is given, for
  /// its own overhead.
  ///
  /// - Parameter present: what the socket has, which mostly is room enough.
  /// - Returns: whether anything was changed, or has to be.
  private static func reserveBuffers(
    _ descriptor: Int32, for snapshot: TCPSnapshot, present: SocketOptions
  ) throws(SystemError) -> Bool {
    let promised = max(0, snapshot.receiveEdge - snapshot.receiveNext)
    // A quarter, since small pieces cost the kernel more than they hold. Half of a receive buffer is what it would promise
    // itself (tcp_win_from_space).
    if snapshot.unsent.isEmpty, (snapshot.options[.bufferLocks] ?? 0) == (present[.bufferLocks] ?? 0),
      snapshot.sendQueue.count <= Int(present[.sendBuffer] ?? 0) / 4,
      snapshot.receiveQueue.count + promised <= Int(present[.receiveBuffer] ?? 0) / 2
    {
      return false
    }
    let slack = 64 << 10
    let send = max(
      Int(snapshot.options[.sendBuffer] ?? 0) / 2, snapshot.sendQueue.count + slack)
    let receive = max(
      Int(snapshot.options[.receiveBuffer] ?? 0) / 2, snapshot.receiveQueue.count + promised + slack)
    try setSocketOption(
      descriptor, SOL_SOCKET, SO_SNDBUFFORCE, Int32(clamping: send), "setsockopt(SO_SNDBUFFORCE)")
    try setSocketOption(
      descriptor, SOL_SOCKET, SO_RCVBUFFORCE, Int32(clamping: receive), "setsockopt(SO_RCVBUFFORCE)")
    return true
  }
}

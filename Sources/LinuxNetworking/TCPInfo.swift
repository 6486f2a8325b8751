import CLinux
import Descriptors
import Packet

/// What the kernel says of a TCP connection, without disturbing it (TCP_INFO, tcp(7)).
public struct TCPInfo: Sendable, Hashable {
  /// By the kernel's numbers (include/net/tcp_states.h).
  public var state: UInt8
  /// `nil` if window scaling is off.
  public var sendWindowScale: UInt8?
  /// `nil` if window scaling is off.
  public var receiveWindowScale: UInt8?
  public var sackPermitted: Bool
  public var timestampsEnabled: Bool
  /// Bytes of payload in the segments that are sent now.
  public var sendMSS: UInt32
  public var advertisedMSS: UInt32
  public var pathMTU: UInt32
  /// Microseconds; 0 if not measured yet.
  public var roundTripTime: UInt32
  /// Microseconds.
  public var roundTripVariance: UInt32
  /// Microseconds.
  public var retransmissionTimeout: UInt32
  /// Segments.
  public var congestionWindow: UInt32
  /// Segments sent more than once, since the socket was made.
  public var totalRetransmitted: UInt32
  /// Bytes written but not sent yet, a FIN among them.
  public var notSent: UInt32
  /// Bytes written but not acknowledged yet, a FIN among them (SIOCOUTQ).
  public var unacknowledged: UInt32
  /// Bytes received but not read yet (SIOCINQ).
  public var unread: UInt32
  /// The peer's window, bytes.
  public var sendWindow: UInt32
  /// Our window, bytes; 0 before Linux 6.2.
  public var receiveWindow: UInt32
  /// How far SND.UNA and RCV.NXT have moved in sequence space since the socket was made.
  public var bytesAcknowledged: UInt64
  public var bytesReceived: UInt64

  init(of descriptor: Int32) throws(SystemError) {
    var info = jsr_tcp_info()
    guard jsr_tcp_info(descriptor, &info) == 0 else { throw SystemError("getsockopt(TCP_INFO)") }
    let unacknowledged = jsr_queued_unacknowledged(descriptor)
    guard unacknowledged >= 0 else { throw SystemError("ioctl(SIOCOUTQ)") }
    let unread = jsr_queued_unread(descriptor)
    guard unread >= 0 else { throw SystemError("ioctl(SIOCINQ)") }

    state = info.state
    // TCPI_OPT_TIMESTAMPS, _SACK and _WSCALE (include/uapi/linux/tcp.h).
    timestampsEnabled = info.options & 1 != 0
    sackPermitted = info.options & 2 != 0
    let scaled = info.options & 4 != 0
    sendWindowScale = scaled ? info.send_window_scale : nil
    receiveWindowScale = scaled ? info.receive_window_scale : nil
    sendMSS = info.send_mss
    advertisedMSS = info.advertised_mss
    pathMTU = info.path_mtu
    roundTripTime = info.round_trip_time
    roundTripVariance = info.round_trip_variance
    retransmissionTimeout = info.retransmission_timeout
    congestionWindow = info.congestion_window
    totalRetransmitted = info.total_retransmitted
    notSent = info.not_sent
    self.unacknowledged = UInt32(unacknowledged)
    self.unread = UInt32(unread)
    sendWindow = info.send_window
    receiveWindow = info.receive_window
    bytesAcknowledged = info.bytes_acknowledged
    bytesReceived = info.bytes_received
  }

  /// Where the counters began, if nothing has been written since `snapshot`.
  public func origin(of snapshot: TCPSnapshot) -> TCPSequenceOrigin {
    let written = snapshot.writeSequence + (snapshot.finSent ? 1 : 0)
    let received = snapshot.receiveNext + (snapshot.finReceived ? 1 : 0)
    return TCPSequenceOrigin(
      send: written - Int(unacknowledged) - Int(truncatingIfNeeded: bytesAcknowledged),
      receive: received - Int(truncatingIfNeeded: bytesReceived))
  }

  /// The connection's place in sequence space, as the kernel counts it (a FIN is one), for a socket whose
  /// `origin` is known.
  public func sequenceNumbers(from origin: TCPSequenceOrigin) -> (
    sendUnacknowledged: SequenceNumber, sendNext: SequenceNumber, writeSequence: SequenceNumber,
    receiveNext: SequenceNumber
  ) {
    let acknowledged = origin.send + Int(truncatingIfNeeded: bytesAcknowledged)
    let written = acknowledged + Int(unacknowledged)
    return (
      acknowledged, written - Int(notSent), written,
      origin.receive + Int(truncatingIfNeeded: bytesReceived)
    )
  }
}

/// Where a socket's byte counters started in sequence space: constant as long as the socket lives. With it,
/// ``TCPInfo`` gives the connection's sequence numbers without repair mode.
public struct TCPSequenceOrigin: Sendable, Hashable {
  /// SND.UNA when `bytesAcknowledged` was 0.
  public var send: SequenceNumber
  /// RCV.NXT when `bytesReceived` was 0.
  public var receive: SequenceNumber
}

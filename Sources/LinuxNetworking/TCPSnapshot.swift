import Packet

/// Everything it takes to rebuild a TCP socket, as one reading of the kernel.
///
/// Sequence numbers never count a FIN: the kernel counts one that it received in `rcv_nxt`, and one that was
/// sent or queued in `write_seq`; here they stand in ``finReceived`` and ``finSent``. Names follow
/// RFC 9293, section 3.3.1. Windows are bytes, not shifted.
public struct TCPSnapshot: Sendable, Hashable {
  /// The states that a socket with two ends can be in, by the kernel's numbers (include/net/tcp_states.h).
  public enum State: UInt8, Sendable, Hashable {
    case established = 1
    case finWait1 = 4
    case finWait2 = 5
    case closeWait = 8
    case lastAck = 9
    case closing = 11
  }

  public var local: Endpoint
  public var remote: Endpoint
  /// Whether the socket is an IPv6 socket. One that speaks IPv4 has endpoints of that family.
  public var isIPv6Socket: Bool
  public var state: State

  /// SND.UNA: the first byte that the peer has not acknowledged, and the first of ``sendQueue``.
  public var sendUnacknowledged: SequenceNumber
  /// SND.NXT: behind the last byte that was sent.
  public var sendNext: SequenceNumber
  /// Behind the last byte of ``sendQueue``.
  public var writeSequence: SequenceNumber
  /// RCV.NXT: behind the last byte received in order, and the last of ``receiveQueue``.
  public var receiveNext: SequenceNumber

  /// The bytes from ``sendUnacknowledged`` to ``writeSequence``; empty if the queues were not read.
  public var sendQueue: [UInt8]
  /// The bytes that the application has not read, up to ``receiveNext``; empty if the queues were not read.
  public var receiveQueue: [UInt8]

  /// The peer has sent its FIN, at ``receiveNext``.
  public var finReceived: Bool
  /// The application has ended its direction, at ``writeSequence``. The FIN itself may still wait behind data.
  public var finSent: Bool
  /// The peer has acknowledged the FIN.
  public var finAcknowledged: Bool { state == .finWait2 }

  /// SND.WND: what the peer last advertised.
  public var sendWindow: UInt32
  /// SND.WL1: the segment that ``sendWindow`` comes from.
  public var sendWindowUpdate: SequenceNumber
  /// The largest window that the peer ever advertised.
  public var maximumSendWindow: UInt32
  /// The kernel's `rcv_wup`: RCV.NXT when the window was last advertised.
  public var receiveAcknowledged: SequenceNumber
  /// RCV.WND, counted from ``receiveAcknowledged``.
  public var receiveWindow: UInt32

  /// How far the peer's window field is shifted; `nil` if window scaling is off.
  public var sendWindowScale: UInt8?
  /// How far our window field is shifted; `nil` if window scaling is off.
  public var receiveWindowScale: UInt8?
  /// The peer's maximum segment size, bytes.
  public var maximumSegmentSize: UInt16
  public var sackPermitted: Bool
  public var timestampsEnabled: Bool
  /// The clock behind TSval at the time of reading (TCP_TIMESTAMP); 0 without timestamps.
  ///
  /// The lowest bit is not part of the clock: it says that the clock ticks in microseconds instead of
  /// milliseconds (tcp_usec_ts, Linux 6.7). Keep it when the value is moved on.
  public var timestamp: UInt32

  public var options: SocketOptions

  public init(
    local: Endpoint, remote: Endpoint, isIPv6Socket: Bool? = nil, state: State = .established,
    sendUnacknowledged: SequenceNumber, sendNext: SequenceNumber, writeSequence: SequenceNumber,
    receiveNext: SequenceNumber, sendQueue: [UInt8] = [], receiveQueue: [UInt8] = [],
    finReceived: Bool = false, finSent: Bool = false, sendWindow: UInt32,
    sendWindowUpdate: SequenceNumber, maximumSendWindow: UInt32, receiveAcknowledged: SequenceNumber,
    receiveWindow: UInt32, sendWindowScale: UInt8?, receiveWindowScale: UInt8?,
    maximumSegmentSize: UInt16, sackPermitted: Bool, timestampsEnabled: Bool, timestamp: UInt32,
    options: SocketOptions
  ) {
    self.local = local
    self.remote = remote
    self.isIPv6Socket = isIPv6Socket ?? (local.address.family == .v6)
    self.state = state
    self.sendUnacknowledged = sendUnacknowledged
    self.sendNext = sendNext
    self.writeSequence = writeSequence
    self.receiveNext = receiveNext
    self.sendQueue = sendQueue
    self.receiveQueue = receiveQueue
    self.finReceived = finReceived
    self.finSent = finSent
    self.sendWindow = sendWindow
    self.sendWindowUpdate = sendWindowUpdate
    self.maximumSendWindow = maximumSendWindow
    self.receiveAcknowledged = receiveAcknowledged
    self.receiveWindow = receiveWindow
    self.sendWindowScale = sendWindowScale
    self.receiveWindowScale = receiveWindowScale
    self.maximumSegmentSize = maximumSegmentSize
    self.sackPermitted = sackPermitted
    self.timestampsEnabled = timestampsEnabled
    self.timestamp = timestamp
    self.options = options
  }

  /// Behind the last byte that the peer may send.
  public var receiveEdge: SequenceNumber { receiveAcknowledged + Int(receiveWindow) }

  /// The part of ``sendQueue`` that was never sent.
  public var unsent: ArraySlice<UInt8> { sendQueue.dropFirst(max(0, sendNext - sendUnacknowledged)) }

  // MARK: - Encoding

  private static let version: UInt8 = 1

  /// Version 1: all fields in the order of their declaration, integers in network byte order; queues and
  /// options with their length in 32 bits in front; a window scale that is off is 255.
  public func encode() -> [UInt8] {
    var bytes: [UInt8] = [Self.version, local.address.family.rawValue]
    bytes.reserveCapacity(256 + sendQueue.count + receiveQueue.count)
    for endpoint in [local, remote] {
      bytes += endpoint.address.bytes
      bytes.appendBigEndian(endpoint.port)
    }
    bytes += [isIPv6Socket ? 1 : 0, state.rawValue]
    for number in [sendUnacknowledged, sendNext, writeSequence, receiveNext] {
      bytes.appendBigEndian(number.rawValue)
    }
    for queue in [sendQueue, receiveQueue] {
      bytes.appendBigEndian(UInt32(queue.count))
      bytes += queue
    }
    bytes += [finReceived ? 1 : 0, finSent ? 1 : 0]
    for value in [
      sendWindow, sendWindowUpdate.rawValue, maximumSendWindow, receiveAcknowledged.rawValue,
      receiveWindow,
    ] { bytes.appendBigEndian(value) }
    bytes += [sendWindowScale ?? 255, receiveWindowScale ?? 255]
    bytes.appendBigEndian(maximumSegmentSize)
    bytes += [sackPermitted ? 1 : 0, timestampsEnabled ? 1 : 0]
    bytes.appendBigEndian(timestamp)
    let options = options.encode()
    bytes.appendBigEndian(UInt32(options.count))
    bytes += options
    return bytes
  }

  /// Reads what ``encode()`` wrote, and checks that it can be a socket.
  public init(decoding bytes: some Collection<UInt8>) throws(SnapshotDecodingError) {
    var reader = SnapshotReader(bytes)
    let version: UInt8 = try reader.integer()
    guard version == Self.version else { throw .unknownVersion(version) }
    guard let family = IPAddress.Family(rawValue: try reader.integer()) else {
      throw .invalidField("address family")
    }
    func endpoint() throws(SnapshotDecodingError) -> Endpoint {
      let address = Array(try reader.bytes(family == .v4 ? 4 : 16))
      return Endpoint(address.withUnsafeBytes { IPAddress(family, $0, at: 0) }, try reader.integer())
    }
    func sequence() throws(SnapshotDecodingError) -> SequenceNumber {
      SequenceNumber(try reader.integer())
    }
    func queue() throws(SnapshotDecodingError) -> [UInt8] {
      let count: UInt32 = try reader.integer()
      return Array(try reader.bytes(Int(count)))
    }
    func scale() throws(SnapshotDecodingError) -> UInt8? {
      let value: UInt8 = try reader.integer()
      if value == 255 { return nil }
      // RFC 7323, section 2.3.
      guard value <= 14 else { throw .invalidField("window scale") }
      return value
    }

    local = try endpoint()
    remote = try endpoint()
    isIPv6Socket = try reader.boolean()
    guard let state = State(rawValue: try reader.integer()) else { throw .invalidField("state") }
    self.state = state
    sendUnacknowledged = try sequence()
    sendNext = try sequence()
    writeSequence = try sequence()
    receiveNext = try sequence()
    sendQueue = try queue()
    receiveQueue = try queue()
    finReceived = try reader.boolean()
    finSent = try reader.boolean()
    sendWindow = try reader.integer()
    sendWindowUpdate = try sequence()
    maximumSendWindow = try reader.integer()
    receiveAcknowledged = try sequence()
    receiveWindow = try reader.integer()
    sendWindowScale = try scale()
    receiveWindowScale = try scale()
    maximumSegmentSize = try reader.integer()
    sackPermitted = try reader.boolean()
    timestampsEnabled = try reader.boolean()
    timestamp = try reader.integer()
    options = try SocketOptions(decoding: try queue())
    try reader.finish()

    guard sendUnacknowledged <= sendNext, sendNext <= writeSequence,
      sendQueue.isEmpty || sendQueue.count == writeSequence - sendUnacknowledged
    else { throw .invalidField("send sequence") }
    guard maximumSendWindow >= sendWindow else { throw .invalidField("send window") }
    guard receiveAcknowledged <= receiveNext else { throw .invalidField("receive window") }
  }
}

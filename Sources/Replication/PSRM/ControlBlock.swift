import Packet

/// The state of one TCP connection as its packets show it: what it takes, beside the bytes themselves, to
/// rebuild the socket on the other RE. Names as in RFC 9293, section 3.3.1; sequence numbers count SYN and
/// FIN, windows are bytes.
///
/// Both REs keep one per replicated socket and feed it the same segments: the primary as they pass, the
/// secondary from the log. What passes without leaving a record (a pure acknowledgement, a retransmission)
/// reaches the secondary as a PSRM update.
public struct ControlBlock: Hashable, Sendable {
  /// SND.UNA: the first byte that the peer has not acknowledged.
  public var sendUnacknowledged: SequenceNumber
  /// SND.NXT: behind the last byte that was sent.
  public var sendNext: SequenceNumber
  /// SND.WND: what the peer last advertised.
  public var sendWindow: UInt32
  /// SND.WL1: the segment that `sendWindow` comes from.
  public var sendWindowUpdate: SequenceNumber
  /// The largest window that the peer ever advertised.
  public var maximumSendWindow: UInt32
  /// RCV.NXT as last acknowledged by a segment of ours (the kernel's `rcv_wup`).
  public var receiveAcknowledged: SequenceNumber
  /// RCV.NXT: behind the last byte received in order.
  public var receiveNext: SequenceNumber
  /// RCV.WND as last advertised, counted from `receiveAcknowledged`.
  public var receiveWindow: UInt32
  /// The furthest right edge of the receive window that was ever advertised, or may have been.
  public var receiveEdge: SequenceNumber
  /// TS.Recent (RFC 7323, section 4.3): the peer's clock.
  public var timestampRecent: UInt32
  /// The last TSval sent.
  public var timestampSent: UInt32

  /// The negotiated part, which never changes.
  public var negotiated: NegotiatedOptions

  public init(
    sendUnacknowledged: SequenceNumber, sendNext: SequenceNumber, sendWindow: UInt32,
    sendWindowUpdate: SequenceNumber, maximumSendWindow: UInt32, receiveAcknowledged: SequenceNumber,
    receiveNext: SequenceNumber, receiveWindow: UInt32, timestampRecent: UInt32, timestampSent: UInt32,
    negotiated: NegotiatedOptions
  ) {
    self.sendUnacknowledged = sendUnacknowledged
    self.sendNext = sendNext
    self.sendWindow = sendWindow
    self.sendWindowUpdate = sendWindowUpdate
    self.maximumSendWindow = maximumSendWindow
    self.receiveAcknowledged = receiveAcknowledged
    self.receiveNext = receiveNext
    self.receiveWindow = receiveWindow
    self.receiveEdge = receiveAcknowledged + Int(receiveWindow)
    self.timestampRecent = timestampRecent
    self.timestampSent = timestampSent
    self.negotiated = negotiated
  }

  /// The right edge that the last advertisement came to.
  public var advertisedEdge: SequenceNumber { receiveAcknowledged + Int(receiveWindow) }

  /// Takes in what the header of a segment of ours says. `window` is in bytes.
  mutating func noteSent(
    end: SequenceNumber, acknowledgment: SequenceNumber, window: UInt32, timestamps: TCPTimestamps?
  ) {
    sendNext = .later(sendNext, end)
    // A retransmission carries a current acknowledgement; an older one was overtaken on its way here.
    if acknowledgment >= receiveAcknowledged {
      receiveAcknowledged = acknowledgment
      receiveWindow = window
      receiveEdge = .later(receiveEdge, advertisedEdge)
    }
    if let timestamps, Int32(truncatingIfNeeded: timestamps.value &- timestampSent) > 0 {
      timestampSent = timestamps.value
    }
  }

  /// Takes in what the header of a segment from the peer says. `window` is in bytes.
  mutating func noteReceived(
    sequence: SequenceNumber, acknowledgment: SequenceNumber, window: UInt32, timestamps: TCPTimestamps?
  ) {
    // RFC 7323, section 4.3, rule 2: only a segment that starts at or before the last acknowledgement
    // sent may move TS.Recent. Nor does the kernel believe one that acknowledges less than others did.
    if let timestamps, sequence <= receiveAcknowledged, acknowledgment >= sendUnacknowledged,
      Int32(truncatingIfNeeded: timestamps.value &- timestampRecent) >= 0
    {
      timestampRecent = timestamps.value
    }
    guard acknowledgment >= sendUnacknowledged, acknowledgment <= sendNext else { return }
    // The order of tcp_may_update_window in net/ipv4/tcp_input.c.
    if acknowledgment > sendUnacknowledged || sequence > sendWindowUpdate
      || (sequence == sendWindowUpdate && (window > sendWindow || window == 0))
    {
      sendWindow = window
      sendWindowUpdate = sequence
      maximumSendWindow = max(maximumSendWindow, window)
    }
    sendUnacknowledged = acknowledgment
  }

  /// Whether the kernel takes in what a segment from the peer brings: it touches the window (`tcp_sequence`
  /// in net/ipv4/tcp_input.c), and what it acknowledges was sent, and not too long ago (`tcp_ack` there;
  /// RFC 5961, section 5.2).
  func accepts(_ segment: TCPSegment) -> Bool {
    segment.end >= receiveAcknowledged && segment.sequence <= receiveEdge
      && segment.acknowledgment <= sendNext
      && segment.acknowledgment >= sendUnacknowledged - Int(maximumSendWindow)
  }

  /// Whether a segment with these timestamps is an old duplicate (PAWS, RFC 7323, section 5), which the
  /// kernel discards: older by more than one tick (`TCP_PAWS_WINDOW` in include/net/tcp.h).
  func isOldDuplicate(_ timestamps: TCPTimestamps?) -> Bool {
    guard negotiated.timestamps, let timestamps, timestampRecent != 0 else { return false }
    return Int32(truncatingIfNeeded: timestamps.value &- timestampRecent) < -1
  }
}

/// What the two ends agreed on in their SYNs.
public struct NegotiatedOptions: Hashable, Sendable {
  /// The peer's maximum segment size, in bytes.
  public var maximumSegmentSize: UInt16
  /// How far the peer's window field is shifted; `nil` if window scaling is off.
  public var sendWindowScale: UInt8?
  /// How far our window field is shifted; `nil` if window scaling is off.
  public var receiveWindowScale: UInt8?
  public var sackPermitted: Bool
  public var timestamps: Bool

  public init(
    maximumSegmentSize: UInt16, sendWindowScale: UInt8?, receiveWindowScale: UInt8?, sackPermitted: Bool,
    timestamps: Bool
  ) {
    self.maximumSegmentSize = maximumSegmentSize
    self.sendWindowScale = sendWindowScale
    self.receiveWindowScale = receiveWindowScale
    self.sackPermitted = sackPermitted
    self.timestamps = timestamps
  }
}

extension ControlBlock {
  func write(to writer: inout ByteWriter) {
    for number in [
      sendUnacknowledged, sendNext, sendWindowUpdate, receiveAcknowledged, receiveNext, receiveEdge,
    ] {
      writer.sequence(number)
    }
    for value in [sendWindow, maximumSendWindow, receiveWindow, timestampRecent, timestampSent] {
      writer.integer(value)
    }
    writer.integer(negotiated.maximumSegmentSize)
    writer.integer(negotiated.sendWindowScale ?? 255)
    writer.integer(negotiated.receiveWindowScale ?? 255)
    writer.boolean(negotiated.sackPermitted)
    writer.boolean(negotiated.timestamps)
  }

  init(_ reader: inout ByteReader) throws(RecordError) {
    sendUnacknowledged = try reader.sequence()
    sendNext = try reader.sequence()
    sendWindowUpdate = try reader.sequence()
    receiveAcknowledged = try reader.sequence()
    receiveNext = try reader.sequence()
    receiveEdge = try reader.sequence()
    sendWindow = try reader.integer()
    maximumSendWindow = try reader.integer()
    receiveWindow = try reader.integer()
    timestampRecent = try reader.integer()
    timestampSent = try reader.integer()
    let segmentSize: UInt16 = try reader.integer()
    func scale(_ value: UInt8) throws(RecordError) -> UInt8? {
      if value == 255 { return nil }
      // RFC 7323, section 2.3.
      guard value <= 14 else { throw .invalidField("window scale") }
      return value
    }
    let sendScale = try scale(reader.integer())
    let receiveScale = try scale(reader.integer())
    negotiated = NegotiatedOptions(
      maximumSegmentSize: segmentSize, sendWindowScale: sendScale, receiveWindowScale: receiveScale,
      sackPermitted: try reader.boolean(), timestamps: try reader.boolean())
    guard sendUnacknowledged <= sendNext, receiveAcknowledged <= receiveNext, advertisedEdge <= receiveEdge
    else { throw .invalidField("control block") }
  }
}

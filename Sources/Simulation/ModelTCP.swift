// Theory of operation
//
// A TCP between the end of its handshake and its end, as a value: segments, writes, reads and moments go in,
// segments and a deadline come out. The peer's TCP in a simulation, and the kernel's on both REs.
//
// It follows RFC 9293, RFC 6298 (its timer, without measuring), RFC 7323 and RFC 5961, and where these leave
// a choice, Linux 6.18, since what is under test mirrors that kernel. From net/ipv4/tcp_input.c:
//
// - Which segments are acceptable (tcp_sequence): one that ends before the last acknowledgement sent
//   (rcv_wup) is old. One that ends beyond the window is discarded as a whole, or, if the receive queue is
//   empty and it starts inside, taken as a whole: that kernel never trims to the window (before 6.17 it took
//   it in either case). A FIN alone may stand outside.
// - What is answered, and how often (tcp_oow_rate_limited, tcp_send_challenge_ack): unacceptable segments
//   that carry bytes, always; others, every 500 ms. Two ends that disagree would answer each other for ever.
// - Timestamps (tcp_paws_check, TCP_PAWS_WINDOW): a segment that is older by more than one tick is an old
//   duplicate, except an acknowledgement that changes nothing (tcp_disordered_ack_check). TS.Recent moves
//   with segments that start at or before rcv_wup (tcp_replace_ts_recent), but not with an acknowledgement
//   older than SND.UNA, unless the segment takes the fast path (tcp_rcv_established).
// - Acknowledgements (tcp_ack): of what was never sent, or older than the largest window that the peer ever
//   had or than anything acknowledged so far, discard the whole segment and are answered.
// - The window that the peer advertises (tcp_may_update_window).
//
// And from tcp_output.c and tcp.c:
//
// - The window to advertise (__tcp_select_window): closed while little is free, rounded up to the scale, its
//   right edge never moved back. A read opens it at once if that at least doubles it (__tcp_cleanup_rbuf).
// - A segment without bytes is numbered SND.NXT unless the peer would find that outside of its window
//   (tcp_acceptable_seq).
// - A closed window is probed with SND.UNA - 1 and no bytes (tcp_xmit_probe_skb); if it was closed over bytes
//   that had been sent, the first segment of these is the probe (__tcp_retransmit_skb).
//
// Not modelled: the handshake, congestion control, SACK, urgent data, Nagle's algorithm, measuring round
// trips, autotuning of buffers, keepalive, and TIME-WAIT (a TCP that has ended goes on answering).

import Packet
import Replication

/// One end of one TCP connection.
///
/// Nothing leaves by itself. After each write, read, close or received segment ask for ``output(now:)``, and
/// when ``deadline`` has come, for ``expire(now:)``. `now` is the clock of the machine that it runs on.
public struct ModelTCP: Sendable {
  /// What differs from one TCP to another, and what the two ends agreed on in their SYNs.
  public struct Options: Sendable {
    /// The most bytes of payload in one segment.
    public var segmentSize = 100
    /// How far the windows that this end advertises are shifted (Rcv.Wind.Shift).
    public var windowScale: UInt8 = 2
    /// How far those of the other end are shifted (Snd.Wind.Shift); `nil`: as far as its own.
    public var sendWindowScale: UInt8?
    /// The receive buffer, in bytes.
    public var capacity = 1_000
    /// The other end's receive buffer when the conversation begins; `nil`: as large as its own.
    public var initialSendWindow: Int?
    /// The send buffer, in bytes.
    public var sendCapacity = 4_000
    /// How long the acknowledgement of a segment may wait for another; `nil`: not at all.
    public var delayedAck: Nanoseconds?
    /// The first retransmission timeout, which every further one doubles.
    public var initialTimeout = Nanoseconds.milliseconds(200)
    public var maximumTimeout = Nanoseconds.seconds(4)
    public var timestamps = true
    /// Takes back part of an open window when more than half of the receive buffer is in use (Linux:
    /// net.ipv4.tcp_shrink_window).
    public var shrinksWindow = false
    /// Sends a FIN that nothing stands before even if the window is closed, as BSD does.
    public var sendsFINBeyondWindow = false

    public init() {}
  }

  /// A segment to be sent.
  public struct Output: Sendable, Hashable {
    public var sequence: SequenceNumber
    public var acknowledgment: SequenceNumber
    public var flags: TCPFlags
    /// The window field as it stands on the wire, shifted.
    public var window: UInt16
    public var timestamps: TCPTimestamps?
    public var payload: [UInt8]

    public init(
      sequence: SequenceNumber, acknowledgment: SequenceNumber, flags: TCPFlags, window: UInt16,
      timestamps: TCPTimestamps?, payload: [UInt8]
    ) {
      self.sequence = sequence
      self.acknowledgment = acknowledgment
      self.flags = flags
      self.window = window
      self.timestamps = timestamps
      self.payload = payload
    }
  }

  enum Timer: Sendable {
    case retransmission
    case probe
  }

  public let options: Options

  // MARK: Sending

  /// Sequence number of the first byte of the send queue: SND.UNA, not counting a FIN.
  public internal(set) var sendStart: SequenceNumber
  var sendQueue: ModelTCPQueue
  /// SND.NXT, counts a FIN.
  public internal(set) var sendNext: SequenceNumber
  /// The application has ended its direction.
  public internal(set) var isClosed = false
  public internal(set) var finIsAcknowledged = false
  /// SND.WND.
  public internal(set) var sendWindow: Int
  var maximumSendWindow: Int
  /// SND.WL1.
  var windowSequence: SequenceNumber
  /// Acknowledged in all, not counting a FIN (the kernel's `bytes_acked`).
  var bytesAcknowledged = 0

  var timer: (kind: Timer, deadline: Instant)?
  /// Timeouts since the last progress.
  var backoff = 0
  var duplicateAcknowledgments = 0
  /// SND.NXT when a loss was noticed: an acknowledgement below it shows the next one.
  var recovery: SequenceNumber?
  var mustResend = false
  var mustSendFIN = false

  // MARK: Receiving

  /// Behind the last byte received in order, not counting a FIN.
  public internal(set) var receiveNext: SequenceNumber
  /// Where the peer's FIN stands, once it is known.
  public internal(set) var peerFIN: SequenceNumber?
  var receiveQueue: ModelTCPQueue
  var islands = ModelTCPIslands()
  /// The acknowledgement number last sent (the kernel's `rcv_wup`).
  var acknowledged: SequenceNumber
  /// The right edge of the window last advertised.
  public internal(set) var edge: SequenceNumber

  var mustAcknowledge = false
  /// When an acknowledgement that waits has to leave.
  var acknowledgmentDeadline: Instant?
  var segmentsUnacknowledged = 0
  /// When something was last answered that must not be answered too often.
  var lastLimitedAnswer: Instant?

  var timestampOffset: UInt32
  /// TS.Recent; 0 if none has been heard.
  var timestampRecent: UInt32 = 0

  // MARK: For checks

  /// A valid RST came: the connection is gone.
  public internal(set) var isReset = false
  /// The application gave the connection up.
  public internal(set) var isAborted = false
  /// The other side acknowledged bytes that were never sent here.
  public internal(set) var heardOfTheUnsent = false
  /// Segments that were discarded for a timestamp that had gone back.
  public internal(set) var oldTimestamps = 0
  /// Segments sent again, not counting probes.
  public internal(set) var resentSegments = 0

  /// A connection whose handshake has just ended.
  ///
  /// - Parameter timestampOffset: TSval is the clock in milliseconds plus this.
  public init(
    sendFrom: SequenceNumber, receiveFrom: SequenceNumber, options: Options, timestampOffset: UInt32,
    now: Instant
  ) {
    self.options = options
    sendStart = sendFrom
    sendQueue = ModelTCPQueue()
    sendNext = sendFrom
    receiveQueue = ModelTCPQueue()
    receiveNext = receiveFrom
    acknowledged = receiveFrom
    edge = receiveFrom + options.capacity
    sendWindow = options.initialSendWindow ?? options.capacity
    maximumSendWindow = sendWindow
    windowSequence = receiveFrom
    self.timestampOffset = timestampOffset
  }

  /// The socket that a merge makes, as TCP_REPAIR rebuilds it.
  ///
  /// What of the send queue may have been sent counts as sent, and its timer runs; the rest is written anew. What cannot be given to a kernel is unknown:
  /// TS.Recent, and how much was ever acknowledged. The FIN of this side is sent anew if the window allows;
  /// that of the other is given to the socket as the segment that it was.
  ///
  /// - Parameters:
  ///   - unread: what the application had not read of the peer's bytes; they end at `plan.receiveNext`.
  ///   - options: whatever the two ends agreed on in their SYNs is taken from `plan` instead.
  public init(_ plan: StreamMergePlan, unread: [UInt8], options: Options, now: Instant) {
    let block = plan.block
    var options = options
    options.segmentSize = Int(block.negotiated.maximumSegmentSize)
    options.windowScale = block.negotiated.receiveWindowScale ?? 0
    options.sendWindowScale = block.negotiated.sendWindowScale ?? 0
    options.timestamps = block.negotiated.timestamps
    self.options = options
    sendStart = plan.sendUnacknowledged
    sendQueue = ModelTCPQueue(plan.sendQueue)
    sendNext = plan.sendUnacknowledged + plan.sentCount
    sendWindow = Int(block.sendWindow)
    maximumSendWindow = Int(max(block.maximumSendWindow, block.sendWindow))
    windowSequence = .earlier(block.sendWindowUpdate, plan.receiveNext)
    receiveQueue = ModelTCPQueue(unread)
    receiveNext = plan.receiveNext
    acknowledged = plan.receiveNext
    edge = plan.receiveNext + Int(plan.receiveWindow)
    timestampOffset = plan.timestamp &- Self.ticks(now)
    if plan.finSent {
      isClosed = true
      mustSendFIN = sendNext == dataEnd && finFitsInWindow
      if mustSendFIN { sendNext += 1 }
    }
    if plan.finReceived {
      peerFIN = plan.receiveNext
      timestampRecent = options.timestamps ? block.timestampRecent : 0
      mustAcknowledge = true
    }
    setTimer(now)
  }

  // MARK: Where it stands

  /// Behind the last byte of the send queue, where the FIN is or will be.
  public var dataEnd: SequenceNumber { sendStart + sendQueue.count }
  public var finIsSent: Bool { isClosed && sendNext > dataEnd }
  /// SND.UNA, counts a FIN.
  public var sendUnacknowledged: SequenceNumber { sendStart + (finIsAcknowledged ? 1 : 0) }
  /// Bytes in the send queue, sent or not.
  public var unacknowledgedByteCount: Int { sendQueue.count }
  /// The peer has ended its direction, and everything before its FIN is here.
  public var peerHasClosed: Bool { peerFIN == receiveNext }
  /// RCV.NXT, counts a FIN.
  public var acknowledgment: SequenceNumber { receiveNext + (peerHasClosed ? 1 : 0) }
  /// Neither sends nor receives any more: reset or aborted.
  public var isDead: Bool { isReset || isAborted }
  /// Both directions have ended in order, and both ends know.
  public var hasEnded: Bool { finIsAcknowledged && peerHasClosed && acknowledged == acknowledgment }

  /// When ``expire(now:)`` has something to do; `nil` if there is nothing to wait for.
  public var deadline: Instant? {
    guard let timer else { return acknowledgmentDeadline }
    guard let acknowledgmentDeadline else { return timer.deadline }
    return min(timer.deadline, acknowledgmentDeadline)
  }

  // MARK: The application's side

  /// How many bytes ``write(_:)`` would take now.
  public var writableByteCount: Int {
    isClosed || isDead ? 0 : max(0, options.sendCapacity - sendQueue.count)
  }

  /// Puts bytes at the end of the stream. They must fit, and the direction must not have been closed.
  public mutating func write(_ bytes: some Collection<UInt8>) {
    precondition(bytes.count <= writableByteCount, "more bytes than the send buffer takes")
    sendQueue.append(bytes)
  }

  /// How many bytes there are to read.
  public var readableByteCount: Int { receiveQueue.count }

  /// Takes bytes from the front of the stream. A window that was closed opens again.
  public mutating func read(atMost limit: Int = .max) -> [UInt8] {
    let count = min(limit, receiveQueue.count)
    guard count > 0 else { return [] }
    let bytes = receiveQueue.bytes(0..<count)
    receiveQueue.removeFirst(count)
    noteRead()
    return bytes
  }

  /// Ends this direction behind everything written; the other one stays open.
  public mutating func close() { isClosed = true }

  /// Gives the connection up. What is returned is the last that this socket sends.
  public mutating func abort(now: Instant) -> Output {
    let reset = segment(acceptableSequence, [], flags: [.rst, .ack], now: now)
    isAborted = true
    end()
    return reset
  }

  /// The connection is gone, with all that waits for it.
  mutating func end() {
    timer = nil
    acknowledgmentDeadline = nil
    mustAcknowledge = false
  }

  // MARK: What the handshake reads

  /// What TCP_REPAIR gives out. It does not tell TS.Recent.
  public func snapshot(now: Instant) -> SocketSnapshot {
    let block = ControlBlock(
      sendUnacknowledged: sendUnacknowledged, sendNext: sendNext, sendWindow: UInt32(sendWindow),
      sendWindowUpdate: windowSequence, maximumSendWindow: UInt32(maximumSendWindow),
      receiveAcknowledged: acknowledged, receiveNext: acknowledgment,
      receiveWindow: UInt32(max(0, edge - acknowledged)), timestampRecent: 0, timestampSent: timestamp(now),
      negotiated: NegotiatedOptions(
        maximumSegmentSize: UInt16(options.segmentSize),
        sendWindowScale: options.sendWindowScale ?? options.windowScale,
        receiveWindowScale: options.windowScale, sackPermitted: true, timestamps: options.timestamps))
    return SocketSnapshot(
      block: block, sendQueue: sendQueue.bytes, receiveQueue: receiveQueue.bytes, finSent: isClosed,
      finAcknowledged: finIsAcknowledged, finReceived: peerHasClosed, options: [1, 2, 3])
  }
}

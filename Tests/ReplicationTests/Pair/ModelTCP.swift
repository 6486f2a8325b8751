import Packet
import Replication

/// As much of a TCP as it takes to hold a conversation: sends within the peer's window, acknowledges what
/// comes, puts segments in order, sends again when told to. Serves as the peer's and as the RE's kernel.
///
/// What it is strict about is what the promises are about: it never takes back an acknowledgement or a
/// window, it keeps what is not acknowledged, it discards old timestamps (RFC 7323, section 5), and it
/// remembers if somebody acknowledged what it never sent.
struct ModelTCP {
  static let segmentSize = 100
  static let scale: UInt8 = 2

  struct Output {
    var sequence: SequenceNumber
    var acknowledgment: SequenceNumber
    var flags: TCPFlags
    var window: UInt16
    var timestamps: TCPTimestamps
    var payload: [UInt8]
  }

  /// Sequence number of the first byte of `sendBuffer`.
  private(set) var sendStart: SequenceNumber
  private(set) var sendBuffer: [UInt8] = []
  /// SND.NXT, counts a FIN.
  private(set) var sendNext: SequenceNumber
  private(set) var isClosed = false
  private(set) var finIsAcknowledged = false
  private var sendWindow: Int
  private var maximumSendWindow: Int
  private var windowSequence: SequenceNumber

  /// Behind the last byte received in order, not counting a FIN.
  private(set) var receiveNext: SequenceNumber
  private(set) var peerFIN: SequenceNumber?
  private(set) var unread: [UInt8] = []
  private var early: [(start: SequenceNumber, bytes: [UInt8])] = []
  private var acknowledged: SequenceNumber
  private var edge: SequenceNumber
  var capacity: Int

  private var timestampOffset: UInt32
  private var timestampRecent: UInt32 = 0
  private var mustAcknowledge = false

  /// The other side acknowledged bytes that were never sent here.
  private(set) var heardOfTheUnsent = false
  /// Segments with timestamps that had gone back.
  private(set) var oldTimestamps = 0

  init(sendFrom: SequenceNumber, receiveFrom: SequenceNumber, capacity: Int, timestampOffset: UInt32) {
    sendStart = sendFrom
    sendNext = sendFrom
    receiveNext = receiveFrom
    acknowledged = receiveFrom
    self.capacity = capacity
    edge = receiveFrom + capacity
    sendWindow = capacity
    maximumSendWindow = capacity
    windowSequence = receiveFrom
    self.timestampOffset = timestampOffset
  }

  /// The socket that a merge makes.
  init(_ plan: MergePlan, capacity: Int, now: Instant) {
    sendStart = plan.sendUnacknowledged
    sendBuffer = plan.sendQueue
    sendNext = plan.sendUnacknowledged + plan.sendQueue.count + (plan.finSent ? 1 : 0)
    isClosed = plan.finSent
    finIsAcknowledged = plan.finSent && plan.block.sendUnacknowledged == sendNext
    sendWindow = Int(plan.block.sendWindow)
    maximumSendWindow = Int(plan.block.maximumSendWindow)
    windowSequence = plan.block.sendWindowUpdate
    receiveNext = plan.receiveNext
    peerFIN = plan.finReceived ? plan.receiveNext : nil
    acknowledged = plan.receiveNext + (plan.finReceived ? 1 : 0)
    edge = plan.receiveNext + Int(plan.receiveWindow)
    self.capacity = capacity
    timestampRecent = plan.block.timestampRecent
    timestampOffset = plan.timestamp &- UInt32(truncatingIfNeeded: now.nanoseconds / 1_000_000)
  }

  var dataEnd: SequenceNumber { sendStart + sendBuffer.count }
  var finIsSent: Bool { isClosed && sendNext > dataEnd }
  var sendUnacknowledged: SequenceNumber { sendStart + (finIsAcknowledged ? 1 : 0) }
  var peerHasClosed: Bool { peerFIN == receiveNext }
  var acknowledgment: SequenceNumber { receiveNext + (peerHasClosed ? 1 : 0) }

  // MARK: The application's side

  mutating func write(_ bytes: [UInt8]) {
    precondition(!isClosed)
    sendBuffer += bytes
  }

  /// Everything that is there to read. A window that was closed opens again.
  mutating func read() -> [UInt8] {
    defer { unread = [] }
    if edge - acknowledgment < capacity / 2, !unread.isEmpty { mustAcknowledge = true }
    return unread
  }

  mutating func close() { isClosed = true }

  // MARK: The wire's side

  private func timestamp(_ now: Instant) -> UInt32 {
    UInt32(truncatingIfNeeded: now.nanoseconds / 1_000_000) &+ timestampOffset
  }

  private mutating func segment(
    _ sequence: SequenceNumber, _ payload: [UInt8], fin: Bool, now: Instant
  ) -> Output {
    let ack = acknowledgment
    let wanted = SequenceNumber.later(edge, ack + max(0, capacity - unread.count)) - ack
    let unit = 1 << Int(Self.scale)
    let field = (wanted + unit - 1) / unit
    edge = ack + field * unit
    acknowledged = ack
    mustAcknowledge = false
    return Output(
      sequence: sequence, acknowledgment: ack,
      flags: fin ? [.ack, .fin] : payload.isEmpty ? .ack : [.ack, .psh], window: UInt16(field),
      timestamps: TCPTimestamps(value: timestamp(now), echo: timestampRecent), payload: payload)
  }

  private func bytes(from start: SequenceNumber, to end: SequenceNumber) -> [UInt8] {
    Array(sendBuffer[(start - sendStart)..<(end - sendStart)])
  }

  /// What can be sent now.
  mutating func output(now: Instant) -> [Output] {
    var result: [Output] = []
    while sendNext < dataEnd {
      let room = sendUnacknowledged + sendWindow - sendNext
      guard room > 0 else { break }
      let start = sendNext
      let end = start + min(room, Self.segmentSize, dataEnd - start)
      let fin = isClosed && end == dataEnd
      sendNext = end + (fin ? 1 : 0)
      result.append(segment(start, bytes(from: start, to: end), fin: fin, now: now))
    }
    if isClosed, sendNext == dataEnd, !finIsAcknowledged {
      sendNext += 1
      result.append(segment(dataEnd, [], fin: true, now: now))
    }
    if mustAcknowledge { result.append(segment(sendNext, [], fin: false, now: now)) }
    return result
  }

  /// What a timer would send: the first segment that is not acknowledged, or a probe of a closed window.
  mutating func retransmission(now: Instant) -> [Output] {
    if sendUnacknowledged < sendNext {
      let end = SequenceNumber.earlier(sendStart + Self.segmentSize, .earlier(dataEnd, sendNext))
      let fin = finIsSent && end == dataEnd
      return [segment(sendStart, bytes(from: sendStart, to: end), fin: fin, now: now)]
    }
    if sendNext < dataEnd { return [segment(sendNext - 1, [], fin: false, now: now)] }
    return []
  }

  mutating func receive(_ segment: TCPSegment, _ payload: [UInt8]) {
    if let value = segment.timestamps?.value, timestampRecent != 0,
      Int32(truncatingIfNeeded: value &- timestampRecent) < 0
    {
      oldTimestamps += 1
      mustAcknowledge = true
      return
    }
    if !payload.isEmpty || segment.flags.contains(.fin) || segment.sequence < acknowledgment {
      mustAcknowledge = true
    }
    guard segment.end >= acknowledged, segment.sequence <= edge else { return }
    if segment.acknowledgment > sendNext {
      heardOfTheUnsent = true
      return
    }
    guard segment.acknowledgment >= sendUnacknowledged - maximumSendWindow else { return }
    if let value = segment.timestamps?.value, segment.sequence <= acknowledged { timestampRecent = value }
    takeAcknowledgment(segment)

    let cut = min(payload.count, max(0, edge - segment.sequence))
    take(Array(payload[..<cut]), at: segment.sequence)
    if segment.flags.contains(.fin), cut == payload.count, segment.payloadEnd >= receiveNext {
      peerFIN = segment.payloadEnd
    }
  }

  private mutating func takeAcknowledgment(_ segment: TCPSegment) {
    let ack = segment.acknowledgment
    guard ack >= sendUnacknowledged else { return }
    let window = Int(segment.window) << Int(Self.scale)
    if ack > sendUnacknowledged || segment.sequence > windowSequence
      || (segment.sequence == windowSequence && (window > sendWindow || window == 0))
    {
      sendWindow = window
      windowSequence = segment.sequence
      maximumSendWindow = max(maximumSendWindow, window)
    }
    finIsAcknowledged = finIsAcknowledged || (finIsSent && ack > dataEnd)
    let count = min(max(0, ack - sendStart), sendBuffer.count)
    sendBuffer.removeFirst(count)
    sendStart += count
  }

  private mutating func take(_ bytes: [UInt8], at start: SequenceNumber) {
    guard start + bytes.count > receiveNext else { return }
    early.append((start, bytes))
    while let index = early.firstIndex(where: {
      $0.start <= receiveNext && $0.start + $0.bytes.count > receiveNext
    }) {
      let piece = early.remove(at: index)
      unread += piece.bytes[(receiveNext - piece.start)...]
      receiveNext = piece.start + piece.bytes.count
    }
    early.removeAll { $0.start + $0.bytes.count <= receiveNext }
  }

  // MARK: What the handshake reads

  func snapshot(now: Instant) -> SocketSnapshot {
    let block = ControlBlock(
      sendUnacknowledged: sendUnacknowledged, sendNext: sendNext, sendWindow: UInt32(sendWindow),
      sendWindowUpdate: windowSequence, maximumSendWindow: UInt32(maximumSendWindow),
      receiveAcknowledged: acknowledged, receiveNext: acknowledgment,
      receiveWindow: UInt32(edge - acknowledged), timestampRecent: timestampRecent,
      timestampSent: timestamp(now),
      negotiated: NegotiatedOptions(
        maximumSegmentSize: UInt16(Self.segmentSize), sendWindowScale: Self.scale,
        receiveWindowScale: Self.scale, sackPermitted: true, timestamps: true))
    return SocketSnapshot(
      block: block, sendQueue: sendBuffer, receiveQueue: unread, finSent: finIsSent,
      finReceived: peerHasClosed, options: [1, 2, 3])
  }
}

import Packet
import Replication

// What leaves, and when.
extension ModelTCP {
  // MARK: Segments

  static func ticks(_ now: Instant) -> UInt32 { UInt32(truncatingIfNeeded: now.nanoseconds / 1_000_000) }

  func timestamp(_ now: Instant) -> UInt32 {
    options.timestamps ? Self.ticks(now) &+ timestampOffset : 0
  }

  /// Bytes of window that the peer may be told of, if nothing had been promised yet (`__tcp_select_window`).
  var freeWindow: Int {
    let capacity = options.capacity
    let free = capacity - receiveQueue.count
    guard free > 0 else { return 0 }
    if free < capacity / 2, free < capacity / 16 || free < min(options.segmentSize, capacity) { return 0 }
    return free
  }

  /// The window field of a segment that leaves now. From then on the peer relies on it.
  private mutating func advertise() -> UInt16 {
    let unit = 1 << Int(options.windowScale)
    let window: Int
    if options.shrinksWindow, receiveQueue.count > options.capacity / 2 {
      window = max(0, options.capacity - receiveQueue.count) / 2
      acknowledged = acknowledgment
      let field = min(window / unit, 65_535)
      edge = acknowledged + field * unit
      return UInt16(field)
    }
    acknowledged = acknowledgment
    window = max(edge - acknowledged, freeWindow)
    let field = min((window + unit - 1) / unit, 65_535)
    edge = acknowledged + field * unit
    return UInt16(field)
  }

  mutating func segment(
    _ sequence: SequenceNumber, _ payload: [UInt8], flags: TCPFlags, now: Instant
  ) -> Output {
    let window = advertise()
    mustAcknowledge = false
    acknowledgmentDeadline = nil
    segmentsUnacknowledged = 0
    return Output(
      sequence: sequence, acknowledgment: acknowledged, flags: flags, window: window,
      timestamps: options.timestamps
        ? TCPTimestamps(value: timestamp(now), echo: timestampRecent) : nil, payload: payload)
  }

  private mutating func segment(
    from start: SequenceNumber, to end: SequenceNumber, fin: Bool, now: Instant
  ) -> Output {
    let payload = sendQueue.bytes((start - sendStart)..<(end - sendStart))
    return segment(
      start, payload, flags: fin ? [.ack, .fin] : payload.isEmpty ? .ack : [.ack, .psh], now: now)
  }

  private var windowEnd: SequenceNumber { sendUnacknowledged + sendWindow }

  /// Where a segment without bytes is put (`tcp_acceptable_seq`).
  var acceptableSequence: SequenceNumber {
    sendNext - windowEnd < 1 << Int(options.windowScale) ? sendNext : windowEnd
  }

  var finFitsInWindow: Bool { dataEnd < windowEnd }

  private var finMayLeave: Bool {
    isClosed && sendNext == dataEnd && !finIsAcknowledged
      && (finFitsInWindow || options.sendsFINBeyondWindow)
  }

  // MARK: What may leave now

  /// What may be sent now: what is to be sent again, bytes and FIN within the peer's window, an
  /// acknowledgement that is due.
  public mutating func output(now: Instant) -> [Output] {
    guard !isDead else { return [] }
    var result: [Output] = []
    if mustResend {
      mustResend = false
      resend(into: &result, now: now)
    }
    while sendNext < dataEnd {
      let room = windowEnd - sendNext
      guard room > 0 else { break }
      let start = sendNext
      let end = start + min(room, options.segmentSize, dataEnd - start)
      let fin = isClosed && end == dataEnd && end - start < room
      sendNext = end + (fin ? 1 : 0)
      result.append(segment(from: start, to: end, fin: fin, now: now))
    }
    if finMayLeave {
      sendNext += 1
      mustSendFIN = true
    }
    if mustSendFIN {
      mustSendFIN = false
      result.append(segment(from: dataEnd, to: dataEnd, fin: true, now: now))
    }
    if let acknowledgmentDeadline, acknowledgmentDeadline <= now { mustAcknowledge = true }
    if mustAcknowledge { result.append(segment(acceptableSequence, [], flags: .ack, now: now)) }
    setTimer(now)
    return result
  }

  /// The first segment that is not acknowledged, if there is one.
  private mutating func resend(into result: inout [Output], now: Instant) {
    guard sendUnacknowledged < sendNext else { return }
    let room = windowEnd - sendStart
    let size = room > 0 ? min(options.segmentSize, room) : options.segmentSize
    let end = SequenceNumber.earlier(sendStart + size, .earlier(dataEnd, sendNext))
    resentSegments += 1
    result.append(segment(from: sendStart, to: end, fin: finIsSent && end == dataEnd, now: now))
  }

  // MARK: Timers

  /// Bytes or a FIN wait for the peer's window to open.
  private var isBlocked: Bool {
    sendNext < dataEnd || (isClosed && sendNext == dataEnd && !finIsAcknowledged)
  }

  /// Sees to it that a timer runs if there is something to wait for.
  mutating func setTimer(_ now: Instant) {
    let kind: Timer
    if sendUnacknowledged < sendNext {
      kind = .retransmission
    } else if isBlocked {
      kind = .probe
    } else {
      timer = nil
      backoff = 0
      return
    }
    if timer?.kind == kind { return }
    if timer != nil { backoff = 0 }
    timer = (kind, now + timeout)
  }

  private var timeout: Nanoseconds {
    // 2¹⁶ times the first is beyond any limit.
    min(options.initialTimeout * (1 << Int64(min(backoff, 16))), options.maximumTimeout)
  }

  /// Does what is due by now, and sends whatever else may leave.
  public mutating func expire(now: Instant) -> [Output] {
    guard !isDead else { return [] }
    guard let timer, timer.deadline <= now else { return output(now: now) }
    backoff += 1
    self.timer = (timer.kind, now + timeout)
    switch timer.kind {
    case .retransmission:
      recovery = sendNext
      duplicateAcknowledgments = 0
      mustResend = true
      return output(now: now)
    case .probe:
      var result = output(now: now)
      if result.isEmpty { result = retransmission(now: now) }
      return result
    }
  }

  /// What a timer would send: the first segment that is not acknowledged, or a probe of a closed window.
  public mutating func retransmission(now: Instant) -> [Output] {
    guard !isDead else { return [] }
    var result: [Output] = []
    if sendUnacknowledged < sendNext {
      resend(into: &result, now: now)
    } else if isBlocked {
      result.append(segment(sendUnacknowledged - 1, [], flags: .ack, now: now))
    }
    return result
  }
}

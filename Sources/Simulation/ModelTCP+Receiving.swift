import Packet
import Replication

// What arrives. The steps, and their order, are those of tcp_rcv_established and tcp_validate_incoming in
// net/ipv4/tcp_input.c of Linux 6.18.
extension ModelTCP {
  /// How long it takes before a segment without bytes that is not acceptable is answered again
  /// (net.ipv4.tcp_invalid_ratelimit).
  static let answerInterval = Nanoseconds.milliseconds(500)

  /// Takes in a segment. Ask for ``output(now:)`` afterwards: there may be an answer.
  ///
  /// - Parameter payload: the bytes that the segment carries.
  public mutating func receive(_ segment: TCPSegment, _ payload: UnsafeRawBufferPointer, now: Instant) {
    guard !isDead else { return }
    let flags = segment.flags
    guard flags.contains(.ack) || flags.contains(.rst) || flags.contains(.syn) else { return }
    let carriesBytes = !payload.isEmpty || flags.contains(.fin)
    let next = acknowledgment

    // PAWS (RFC 7323, section 5). A reset needs no timestamp.
    if !flags.contains(.rst), isOld(segment.timestamps), !isHarmless(segment, carriesBytes) {
      oldTimestamps += 1
      // Old acknowledgements are common.
      if !carriesBytes, segment.sequence < next { return }
      return answer(carriesBytes, now)
    }

    // RFC 5961, section 3.2. Some number a reset after their FIN as if it had not been (tcp_reset_check).
    if flags.contains(.rst),
      segment.sequence == next || (segment.sequence == receiveNext && !finIsAcknowledged)
    {
      isReset = true
      return end()
    }
    guard isAcceptable(segment, payload.count) else {
      if !flags.contains(.rst) { answer(carriesBytes, now) }
      return
    }
    if flags.contains(.rst) { return answer(false, now) }
    // RFC 5961, section 4.2.
    if flags.contains(.syn) { return answer(false, now) }

    guard takeAcknowledgment(segment, carriesBytes: carriesBytes, now) else { return }
    if carriesBytes { take(segment, payload, now) }
    setTimer(now)
  }

  // MARK: Acceptable or not

  private func isOld(_ timestamps: TCPTimestamps?) -> Bool {
    guard options.timestamps, let timestamps, timestampRecent != 0 else { return false }
    return Int32(truncatingIfNeeded: timestamps.value &- timestampRecent) < -1
  }

  /// An acknowledgement that says nothing new may be overtaken (`tcp_disordered_ack_check`).
  private func isHarmless(_ segment: TCPSegment, _ carriesBytes: Bool) -> Bool {
    guard let timestamps = segment.timestamps, !carriesBytes, segment.sequence == acknowledgment,
      segment.acknowledgment == sendUnacknowledged, !mayUpdateWindow(segment)
    else { return false }
    // 1.2 timeouts of the other end, in its ticks; its timeout is taken to be ours.
    let age = Int32(truncatingIfNeeded: timestampRecent &- timestamps.value)
    return Int64(age) * 1_000_000 <= options.initialTimeout.count * 12 / 10
  }

  /// The first sequence number beyond the receive window.
  private var limit: SequenceNumber { .later(edge, acknowledgment) }

  /// `tcp_sequence`.
  private func isAcceptable(_ segment: TCPSegment, _ payloadByteCount: Int) -> Bool {
    guard segment.end >= acknowledged else { return false }
    let limit = limit
    return segment.sequence + payloadByteCount <= limit
      || (segment.sequence <= limit && receiveQueue.isEmpty)
  }

  /// Something came that cannot be right, or is not new: says where we stand.
  private mutating func answer(_ carriesBytes: Bool, _ now: Instant) {
    if !carriesBytes {
      if let last = lastLimitedAnswer, now - last < Self.answerInterval { return }
      lastLimitedAnswer = now
    }
    mustAcknowledge = true
  }

  // MARK: Acknowledgements

  /// `tcp_may_update_window`.
  private func mayUpdateWindow(_ segment: TCPSegment) -> Bool {
    let window = window(of: segment)
    return segment.acknowledgment > sendUnacknowledged || segment.sequence > windowSequence
      || (segment.sequence == windowSequence && (window > sendWindow || window == 0))
  }

  private func window(of segment: TCPSegment) -> Int {
    Int(segment.window) << Int(options.sendWindowScale ?? options.windowScale)
  }

  /// `tcp_ack`: false if the segment is to be discarded.
  private mutating func takeAcknowledgment(
    _ segment: TCPSegment, carriesBytes: Bool, _ now: Instant
  ) -> Bool {
    let ack = segment.acknowledgment
    let before = sendUnacknowledged
    if ack < before {
      if ack < before - min(maximumSendWindow, bytesAcknowledged) {
        answer(false, now)
        return false
      }
      if takesFastPath(segment) { takeTimestamp(segment) }
      return true
    }
    if ack > sendNext {
      heardOfTheUnsent = true
      answer(false, now)
      return false
    }
    takeTimestamp(segment)

    let updatesWindow = mayUpdateWindow(segment)
    if updatesWindow {
      sendWindow = window(of: segment)
      windowSequence = segment.sequence
      maximumSendWindow = max(maximumSendWindow, sendWindow)
    }
    if ack > before {
      takeProgress(to: ack)
    } else if !carriesBytes, !updatesWindow, before < sendNext {
      duplicateAcknowledgments += 1
      // RFC 5681, section 3.2: the third is taken for a loss.
      if duplicateAcknowledgments == 3, recovery == nil {
        recovery = sendNext
        mustResend = true
      }
    }
    return true
  }

  private mutating func takeProgress(to ack: SequenceNumber) {
    if finIsSent, ack > dataEnd { finIsAcknowledged = true }
    let count = min(ack - sendStart, sendQueue.count)
    sendQueue.removeFirst(count)
    sendStart += count
    bytesAcknowledged += count
    mustSendFIN = mustSendFIN && !finIsAcknowledged
    timer = nil
    backoff = 0
    duplicateAcknowledgments = 0
    guard let recovery else { return }
    if ack >= recovery {
      self.recovery = nil
      mustResend = false
    } else {
      // RFC 6582, section 3.2: the next one is missing as well.
      mustResend = true
    }
  }

  /// `tcp_replace_ts_recent`.
  private mutating func takeTimestamp(_ segment: TCPSegment) {
    guard options.timestamps, let value = segment.timestamps?.value, segment.sequence <= acknowledged,
      timestampRecent == 0 || Int32(truncatingIfNeeded: value &- timestampRecent) >= 0
    else { return }
    timestampRecent = value
  }

  /// Whether header prediction holds (`tcp_rcv_established`): all is as with the segment before.
  private func takesFastPath(_ segment: TCPSegment) -> Bool {
    !isClosed && peerFIN == nil && islands.isEmpty && segment.flags.isSubset(of: [.ack, .psh])
      && segment.sequence == receiveNext && receiveNext == acknowledged && edge > receiveNext
      && segment.end <= edge && window(of: segment) == sendWindow
  }

  // MARK: Bytes

  /// `tcp_data_queue`.
  private mutating func take(_ segment: TCPSegment, _ payload: UnsafeRawBufferPointer, _ now: Instant) {
    let start = segment.sequence
    let fin = segment.flags.contains(.fin)
    // Nothing follows a FIN. Whatever else comes again was not heard of at the other end.
    if peerHasClosed || segment.end <= acknowledgment {
      mustAcknowledge = true
      return
    }
    let isClosedWindow = limit == receiveNext
    guard start <= receiveNext ? !isClosedWindow || (payload.isEmpty && fin) : start < limit,
      receiveQueue.count <= 2 * options.capacity
    else {
      mustAcknowledge = true
      return
    }

    let isInOrder = start == receiveNext && islands.isEmpty
    if fin, peerFIN == nil { peerFIN = start + payload.count }
    var end = start + payload.count
    if let peerFIN { end = .earlier(end, peerFIN) }
    if start > receiveNext {
      if end > start {
        islands.insert(UnsafeRawBufferPointer(rebasing: payload[..<(end - start)]), at: start)
      }
    } else if end > receiveNext {
      receiveQueue.append(UnsafeRawBufferPointer(rebasing: payload[(receiveNext - start)..<(end - start)]))
      receiveNext = end
      if !islands.isEmpty { islands.drain(into: &receiveQueue, next: &receiveNext) }
    }

    segmentsUnacknowledged += 1
    guard let delay = options.delayedAck, isInOrder, !fin, segmentsUnacknowledged < 2,
      receiveNext - acknowledged <= options.segmentSize
    else {
      mustAcknowledge = true
      return
    }
    if acknowledgmentDeadline == nil { acknowledgmentDeadline = now + delay }
  }

  /// `__tcp_cleanup_rbuf`: tells the peer at once if a read has opened the window by a lot.
  mutating func noteRead() {
    guard !isDead, !peerHasClosed else { return }
    let window = max(0, edge - acknowledgment)
    guard 2 * window <= options.capacity else { return }
    let free = freeWindow
    if free > 0, free >= 2 * window { mustAcknowledge = true }
  }
}

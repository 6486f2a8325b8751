import Glibc
import JSR

// The secondary's side: following connections, and taking them over.
extension EchoServer {
  /// How long after the end of both directions the reason is awaited, in nanoseconds.
  private static var reasonTime: UInt64 { 1_000_000_000 }

  // MARK: Attaching

  func offered(_ offer: OfferMessage) {
    switch offer.kind {
    case .offer:
      guard let session else {
        return send(AnswerMessage(slot: slot ?? 0, primary: offer.primary, pair: nil).bytes)
      }
      engine.attach(session, primary: offer.primary, at: offer.resumePoint)
    case .withdrawal:
      for pair in pairs.values where pair.primary == offer.primary && !pair.isMerged {
        drop(pair, "the primary could not replicate it")
      }
    }
  }

  /// The other instance asks through the engines.
  func requested(_ request: RequestedReplication) {
    guard let session else { return }
    let parsed = request.note.withUnsafeBytes { note in try? OfferMessage.parse(note)?.message }
    guard let offer = parsed, part == .secondary, !isEnding else {
      return engine.decline(session, request, reason: "this instance is not the secondary one")
    }
    engine.accept(session, request, at: offer.resumePoint)
  }

  func attached(_ primary: Handle, _ point: ResumePoint, _ result: Result<AnswerMessage.Pair, JSRError>) {
    let slot = slot ?? 0
    switch result {
    case .failure(let error):
      line("ATTACH to handle \(primary): \(error)")
      send(AnswerMessage(slot: slot, primary: primary, pair: nil).bytes)
    case .success(let descriptors):
      guard part == .secondary, channel != nil || options.usesRendezvous, !isEnding,
        let conversation = Conversation(
          resumingAt: point, slot: slot, verifiesPayload: options.verifiesPayload)
      else {
        _ = Glibc.close(descriptors.rcv)
        _ = Glibc.close(descriptors.snd)
        if let session { engine.letGo(session, pair: descriptors.secondary) }
        send(AnswerMessage(slot: slot, primary: primary, pair: nil).bytes)
        return
      }
      let pair = SnoopedPair(descriptors, primary: primary, snooper: Snooper(following: conversation))
      pairs[pair.handle] = pair
      detail(
        "SNOOP handle \(pair.handle) primary handle \(primary) rcv fd \(pair.rcvNumber)"
          + " snd fd \(pair.sndNumber) from input byte \(point.inputPosition)")
      do {
        try StreamSocket.setNonBlocking(descriptors.rcv)
        try StreamSocket.setNonBlocking(descriptors.snd)
        watch(pair)
        send(AnswerMessage(slot: slot, primary: primary, pair: descriptors).bytes)
      } catch {
        drop(pair, "\(error)")
        send(AnswerMessage(slot: slot, primary: primary, pair: nil).bytes)
      }
    }
  }

  // MARK: Following

  func readRcv(_ pair: SnoopedPair) {
    guard let rcv = pair.rcv, case .snooping = pair.state else { return }
    switch StreamSocket.read(rcv, into: buffer) {
    case .bytes(let count):
      pair.rcvByteCount += UInt64(count)
      counts.bytesIn += UInt64(count)
      take(received: count, pair)
    case .ended:
      detail("handle \(pair.handle) rcv fd \(rcv) END after \(pair.rcvByteCount) bytes")
      closeRcv(pair)
    case .notNow: return
    case .failed(let code): return drop(pair, String(cString: strerror(code)))
    }
    advance(pair)
  }

  func readSnd(_ pair: SnoopedPair) {
    guard let snd = pair.snd else { return }
    switch StreamSocket.read(snd, into: buffer) {
    case .bytes(let count):
      pair.sndByteCount += UInt64(count)
      counts.bytesOut += UInt64(count)
      let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<count])
      take(pair) { (snooper, report) throws(Conversation.UnknownMessage) in
        try snooper.sent(bytes, report: report)
      }
    case .ended:
      detail("handle \(pair.handle) snd fd \(snd) END after \(pair.sndByteCount) bytes")
      poll.remove(snd)
      _ = Glibc.close(snd)
      pair.snd = nil
    case .notNow: return
    case .failed(let code): return drop(pair, String(cString: strerror(code)))
    }
    advance(pair)
  }

  private func closeRcv(_ pair: SnoopedPair) {
    guard let rcv = pair.rcv else { return }
    poll.remove(rcv)
    _ = Glibc.close(rcv)
    pair.rcv = nil
  }

  private func take(received count: Int, _ pair: SnoopedPair) {
    let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<count])
    take(pair) { (snooper, report) throws(Conversation.UnknownMessage) in
      try snooper.received(bytes, report: report)
    }
  }

  private func take(
    _ pair: SnoopedPair,
    _ body: (inout Snooper, (Snooper.Finding) -> Void) throws(Conversation.UnknownMessage) -> Void
  ) {
    do {
      try body(&pair.snooper) { report($0, of: pair) }
    } catch {
      counts.mismatches += 1
      line("handle \(pair.handle) rcv fd \(pair.rcvNumber) MISMATCH: \(error)")
      drop(pair, "what was snooped is not the protocol")
    }
  }

  private func report(_ finding: Snooper.Finding, of pair: SnoopedPair) {
    switch finding {
    case .received(let message):
      let header = message.header
      // Mostly nobody wants to read it.
      var text: String {
        "handle \(pair.handle) rcv fd \(pair.rcvNumber) message \(header.number):"
          + " \(UInt64(header.requestPayloadByteCount) + UInt64(MessageHeader.byteCount)) bytes"
      }
      if let at = message.damagedAt {
        line("\(text), DAMAGED at payload byte \(at)")
      } else {
        detail("\(text), \(verdict)")
      }
    case .answered(let message, let damagedAt):
      counts.messages += 1
      let header = message.header
      var text: String {
        "handle \(pair.handle) snd fd \(pair.sndNumber) message \(header.number):"
          + " \(UInt64(header.answerPayloadByteCount) + UInt64(MessageHeader.byteCount)) bytes"
          + " from RE\(header.answeredBy),"
      }
      if let difference = message.firstDifference {
        counts.mismatches += 1
        line("\(text) MISMATCH for \(header.payloadByteCount) bytes at byte \(difference)")
      } else {
        counts.matches += 1
        detail(
          "\(text) MATCH for \(header.payloadByteCount) bytes, \(damagedAt == nil ? verdict : "damaged")")
      }
    }
  }

  /// Watches what may be read, and nothing else: a descriptor at its end is ready for ever.
  private func watch(_ pair: SnoopedPair) {
    do {
      if let rcv = pair.rcv {
        var mayRead = pair.snooper.wantsReceived
        if case .merging = pair.state { mayRead = false }
        try watch(rcv, mayRead, .rcv(pair))
      }
      if let snd = pair.snd { try watch(snd, pair.snooper.wantsSent, .snd(pair)) }
      if case .merged(let live) = pair.state {
        try watch(live, pair.snooper.wantsReceived && !pair.liveInputEnded, .live(pair))
      }
    } catch {
      drop(pair, "\(error)")
    }
  }

  private func watch(_ descriptor: Int32, _ mayRead: Bool, _ watcher: Watcher) throws {
    if !mayRead {
      poll.remove(descriptor)
    } else if !poll.isWatching(descriptor) {
      try poll.add(descriptor, .read, watcher)
    }
  }

  private func advance(_ pair: SnoopedPair) {
    guard pairs[pair.handle] === pair else { return }
    switch pair.state {
    case .snooping where pair.rcv == nil && pair.snd == nil:
      // The reason comes another way, and may be behind.
      if let reason = pair.reason { drop(pair, reason) } else { pair.endedAt = MonotonicClock.nanoseconds }
    case .snooping where pair.isStuck:
      // Replication has ended with one direction ahead of the other: what the other one lacks will never come.
      drop(pair, pair.reason ?? "the directions do not meet")
    case .merged(let live) where pair.snd == nil && pair.snooper.earlyByteCount == 0:
      takeOver(pair, live)
    case .merged where pair.snd == nil && pair.liveInputEnded:
      counts.mismatches += 1
      line(
        "handle \(pair.handle) snd fd \(pair.sndNumber) MISMATCH: \(pair.snooper.earlyByteCount) bytes more"
          + " than the peer has asked for")
      drop(pair, "it cannot be continued")
    default: watch(pair)
    }
  }

  /// The engine has said why replication of a pair has ended, or is going to.
  func snoopingEnds(_ pair: SnoopedPair, reason: String) {
    pair.reason = reason
    if pair.endedAt != nil { drop(pair, reason) } else { advance(pair) }
  }

  func dropEndedPairs(_ now: UInt64) {
    for pair in pairs.values {
      if let endedAt = pair.endedAt, now - endedAt >= Self.reasonTime {
        drop(pair, "both directions are closed")
      }
    }
  }

  /// Lets go of a pair that is of no use any more.
  func drop(_ pair: SnoopedPair, _ reason: String) {
    guard pairs[pair.handle] === pair else { return }
    pairs[pair.handle] = nil
    closeRcv(pair)
    if let snd = pair.snd {
      poll.remove(snd)
      _ = Glibc.close(snd)
      pair.snd = nil
    }
    detail(
      "SNOOP ENDED handle \(pair.handle) primary handle \(pair.primary) rcv \(pair.rcvByteCount) bytes"
        + " snd \(pair.sndByteCount) bytes: \(reason)")
    switch pair.state {
    case .snooping: if let session { engine.letGo(session, pair: pair.handle) }
    case .merging: break
    case .merged(let live):
      poll.remove(live)
      if let session {
        closeThroughEngine(session, live, pair.handle)
      } else {
        _ = Glibc.close(live)
      }
    }
  }

  // MARK: Taking over

  func mergeAll() {
    guard let session else { return }
    for pair in pairs.values {
      guard case .snooping = pair.state, pair.endedAt == nil else { continue }
      pair.state = .merging
      mergesUnderWay += 1
      watch(pair)
      engine.merge(session, pair.handle, signingKey: options.signingKey)
    }
  }

  func merged(_ handle: Handle, _ result: Result<Int32, JSRError>) {
    mergesUnderWay -= 1
    guard let pair = pairs[handle], case .merging = pair.state else {
      // Let go in the meantime, because the server or the engine ended.
      if case .success(let live) = result { _ = Glibc.close(live) }
      return
    }
    switch result {
    case .failure(let error):
      line("MERGE of handle \(handle): \(error)")
      pair.state = .snooping
      drop(pair, "it could not be merged")
    case .success(let live):
      pair.state = .merged(live)
      do {
        try StreamSocket.setNonBlocking(live)
      } catch {
        return drop(pair, "\(error)")
      }
      // Whatever was still in rcv comes before what the live socket has.
      draining: while let rcv = pair.rcv {
        switch StreamSocket.read(rcv, into: buffer) {
        case .bytes(let count):
          pair.rcvByteCount += UInt64(count)
          counts.bytesIn += UInt64(count)
          take(received: count, pair)
        case .ended, .notNow, .failed: break draining
        }
      }
      closeRcv(pair)
      advance(pair)
    }
  }

  func readLive(_ pair: SnoopedPair) {
    guard case .merged(let live) = pair.state else { return }
    switch StreamSocket.read(live, into: buffer) {
    case .bytes(let count):
      counts.bytesIn += UInt64(count)
      take(received: count, pair)
    case .ended: pair.liveInputEnded = true
    case .notNow: return
    case .failed(let code): return drop(pair, String(cString: strerror(code)))
    }
    advance(pair)
  }

  private func takeOver(_ pair: SnoopedPair, _ live: Int32) {
    poll.remove(live)
    pairs[pair.handle] = nil
    let cut = pair.snooper.answerUnderWay
    let (conversation, unread, unsent) = pair.snooper.takeOver()
    let connection = ServedConnection(
      id: nextConnectionID(), descriptor: live, conversation: conversation, unread: unread, output: unsent)
    connection.inputEnded = pair.liveInputEnded
    connection.mergedHandle = pair.handle
    do {
      try StreamSocket.sendAtOnce(live)
    } catch {
      line("MERGED fd \(live) handle \(pair.handle): \(error)")
    }
    let place =
      cut.map { "inside the answer to message \($0.number.map(String.init) ?? "unknown"), byte \($0.shown)" }
      ?? "between two answers"
    detail(
      "MERGED fd \(live) handle \(pair.handle) from \(connection.remote), goes on \(place),"
        + " \(unsent.count) bytes to send")
    serve(connection)
  }
}

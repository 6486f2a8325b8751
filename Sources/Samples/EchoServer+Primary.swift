import Glibc
import JSR

// The primary's side: serving peers, and bringing their connections under replication.
extension EchoServer {
  /// How long a connection may take to come to rest, its last replicated answer to be acknowledged, and the
  /// other instance to answer an offer, in nanoseconds.
  private static var quiescenceTime: UInt64 { 500_000_000 }
  private static var settlingTime: UInt64 { 2_000_000 }
  private static var offerTime: UInt64 { 2_000_000_000 }

  // MARK: Serving

  /// Takes a connection in; it is replicated first if it can be.
  func serve(_ connection: ServedConnection) {
    connections[connection.id] = connection
    if let handle = connection.mergedHandle {
      connectionsByHandle[handle] = connection
    } else {
      detail("ACCEPT fd \(connection.descriptor) from \(connection.remote)")
    }
    if connection.inputEnded {
      resume(connection)
    } else if let obstacle = obstacleToProtection {
      if !options.isPlain { detail("NOT REPLICATED fd \(connection.descriptor): \(obstacle)") }
      resume(connection)
    } else {
      protectSoon(connection)
    }
  }

  func read(_ connection: ServedConnection) {
    switch StreamSocket.read(connection.descriptor, into: buffer) {
    case .bytes where connection.isClosing: break
    case .ended where connection.isClosing: close(connection, "the server ends")
    case .bytes(let count):
      counts.bytesIn += UInt64(count)
      let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<count])
      guard let used = answer(bytes, of: connection) else { return }
      connection.unread.append(UnsafeRawBufferPointer(rebasing: bytes[used...]))
      flush(connection)
    case .ended:
      connection.inputEnded = true
      flush(connection)
    case .notNow: break
    case .failed(let code): abort(connection, code)
    }
  }

  /// Writes what waits, and answers what was read and had no room; then sees what is next for the connection.
  func flush(_ connection: ServedConnection) {
    while true {
      if connection.records != nil || connection.awaitsRecords {
        giveRecords(connection)
        if !connection.output.isEmpty { return watch(connection) }
      } else if !connection.output.isEmpty {
        switch connection.output.withBytes({ StreamSocket.write(connection.descriptor, $0) }) {
        case .bytes(let count):
          connection.output.removeFirst(count)
          counts.bytesOut += UInt64(count)
          // A socket that took a part is full.
          if !connection.output.isEmpty { return watch(connection) }
        case .notNow, .ended: return watch(connection)
        case .failed(let code): return abort(connection, code)
        }
      }
      guard mayAnswerMore(connection) else { break }
      var unread = ByteQueue()
      swap(&unread, &connection.unread)
      guard let used = unread.withBytes({ answer($0, of: connection) }) else { return }
      unread.removeFirst(used)
      swap(&unread, &connection.unread)
    }
    if connection.inputEnded, connection.isFlushed {
      let rest = connection.conversation.isBetweenMessages ? "" : " inside a message"
      return close(connection, "the peer has closed\(rest)")
    }
    if let limit = options.unreplicateAfter, connection.messageCount >= limit,
      case .replicated(let handle, _) = connection.protection
    {
      connection.protection = .settling(handle, until: MonotonicClock.nanoseconds + Self.settlingTime)
      connection.isReleased = true
      quiescing[connection.id] = connection
    }
    watch(connection)
  }

  private func mayAnswerMore(_ connection: ServedConnection) -> Bool {
    // A connection that is brought to rest may stop inside an answer that needs no more input.
    if case .quiescing = connection.protection { return !connection.unread.isEmpty }
    return !connection.unread.isEmpty || connection.conversation.hasMoreOutput
  }

  /// - Returns: how many bytes were used; `nil` if the connection had to be closed.
  private func answer(_ bytes: UnsafeRawBufferPointer, of connection: ServedConnection) -> Int? {
    do {
      return try connection.conversation.consume(
        bytes, into: &connection.output, outputLimit: ServedConnection.outputLimit,
        sourceLimit: ServedConnection.sourceLimit
      ) { message in
        connection.messageCount += 1
        counts.messages += 1
        if let at = message.damagedAt {
          line("\(connection.label) message \(message.header.number): DAMAGED at payload byte \(at)")
        } else {
          detail(
            "\(connection.label) message \(message.header.number):"
              + " \(message.header.payloadByteCount) bytes answered, \(verdict)")
        }
      }
    } catch {
      line("UNKNOWN \(connection.label): \(error)")
      close(connection, "the peer does not speak the protocol")
      return nil
    }
  }

  /// What a line says about a payload in which nothing wrong was found.
  var verdict: String { options.verifiesPayload ? "verified" : "not verified" }

  func watch(_ connection: ServedConnection) {
    var interest: EventPoll<Watcher>.Interest = []
    watchRecords(connection)
    if connection.isOurs {
      if connection.wantsInput || connection.isClosing { interest.insert(.read) }
      if !connection.output.isEmpty, connection.records == nil, !connection.awaitsRecords {
        interest.insert(.write)
      }
    }
    do {
      if interest.isEmpty {
        // Not only silent but unwatched: a hang-up would be reported whether it is asked for or not.
        if connection.isWatched { poll.remove(connection.descriptor) }
        connection.isWatched = false
      } else if connection.isWatched {
        try poll.change(connection.descriptor, to: interest)
      } else {
        try poll.add(connection.descriptor, interest, .connection(connection))
        connection.isWatched = true
      }
    } catch {
      line("WATCH \(connection.label): \(error)")
      close(connection, "it cannot be watched")
    }
  }

  /// Serves on after the socket was out of the loop.
  func resume(_ connection: ServedConnection) {
    if isEnding {
      beginClosing(connection)
    } else {
      flush(connection)
    }
  }

  /// Ends our direction, and reads on until the peer ends its own: a socket that is closed with bytes unread
  /// answers them with a reset (RFC 1122, section 4.2.2.13).
  func beginClosing(_ connection: ServedConnection) {
    guard !connection.isClosing else { return }
    if connection.records != nil || connection.awaitsRecords { return close(connection, "the server ends") }
    if connection.inputEnded { return close(connection, "the server ends") }
    connection.isClosing = true
    connection.output = ByteQueue()
    _ = shutdown(connection.descriptor, Int32(SHUT_WR))
    watch(connection)
  }

  private func abort(_ connection: ServedConnection, _ code: Int32) {
    // What the sockets of a routing engine say that has lost mastership: the connection lives on elsewhere.
    let reason = code == ECONNABORTED ? "it has moved to the other RE" : String(cString: strerror(code))
    close(connection, reason)
  }

  func close(_ connection: ServedConnection, _ reason: String) {
    forget(connection)
    detail("CLOSED \(connection.label) after \(connection.messageCount) messages: \(reason)")
    let hasRecords = connection.records != nil || connection.awaitsRecords
    connection.records = nil
    if let session, let handle = connection.handle {
      // The engine has a duplicate, so only a shutdown sends the FIN at once; it closes that when all records are written.
      if !hasRecords { _ = shutdown(connection.descriptor, Int32(SHUT_WR)) }
      closeThroughEngine(session, connection.descriptor, handle)
    } else {
      _ = Glibc.close(connection.descriptor)
    }
  }

  private func forget(_ connection: ServedConnection) {
    if connection.isWatched { poll.remove(connection.descriptor) }
    connection.isWatched = false
    if let records = connection.records { poll.remove(records.channel.descriptor) }
    connections[connection.id] = nil
    quiescing[connection.id] = nil
    if let handle = connection.handle { connectionsByHandle[handle] = nil }
  }

  // MARK: Protecting

  /// Why nothing can be replicated at the moment; `nil` if it can.
  private var obstacleToProtection: String? {
    if options.isPlain { return "plain mode" }
    if part != .primary { return "this RE is not primary" }
    if session == nil { return "no engine" }
    if secondaryIsLost { return "no secondary stands by" }
    let isThere = options.usesRendezvous ? otherInstanceIsThere : channel != nil
    if !isThere { return "the other instance is not there" }
    return nil
  }

  /// Tries everything again at once that is not replicated.
  func retryEverything() {
    for connection in connections.values {
      connection.retryAt = 0
      connection.retryDelay = ServedConnection.firstRetryDelay
    }
    protectWhatIsDue(MonotonicClock.nanoseconds)
  }

  func protectWhatIsDue(_ now: UInt64) {
    guard obstacleToProtection == nil, !isEnding else { return }
    for connection in connections.values {
      if case .none = connection.protection, now >= connection.retryAt, !connection.awaitsProtection,
        !connection.isReleased,
        !connection.inputEnded
      {
        protectSoon(connection)
      }
    }
  }

  /// Connections that may be at rest for their handshakes at once: the others are served meanwhile, however many are to be
  /// protected.
  private static var protectionsAtOnce: Int { 64 }

  /// A connection is at rest while it is protected, so that this is begun only when it can go on at once: not while others
  /// wait to be merged, which have no server at all.
  private func protectSoon(_ connection: ServedConnection) {
    guard !connection.awaitsProtection else { return }
    guard awaitingProtection.isEmpty, mayProtectAnother else {
      connection.awaitsProtection = true
      awaitingProtection.append(connection)
      return resume(connection)
    }
    protect(connection)
  }

  private var mayProtectAnother: Bool {
    guard mergesUnderWay == 0 else { return false }
    if beingProtected.count >= Self.protectionsAtOnce {
      beingProtected.removeAll { connections[$0.id] !== $0 || !$0.isBeingProtected }
    }
    return beingProtected.count < Self.protectionsAtOnce
  }

  func protectWhatWaits() {
    var begun = 0
    while begun < awaitingProtection.count, mayProtectAnother {
      let connection = awaitingProtection[begun]
      begun += 1
      connection.awaitsProtection = false
      guard connections[connection.id] === connection, case .none = connection.protection,
        obstacleToProtection == nil, !connection.isReleased, !connection.inputEnded, !isEnding
      else { continue }
      protect(connection)
    }
    awaitingProtection.removeFirst(begun)
  }

  private func protect(_ connection: ServedConnection) {
    beingProtected.append(connection)
    connection.protection = .quiescing(until: MonotonicClock.nanoseconds + Self.quiescenceTime)
    quiescing[connection.id] = connection
    flush(connection)
    if connections[connection.id] != nil { checkQuiescing(connection) }
  }

  func checkQuiescing() {
    guard !quiescing.isEmpty else { return }
    for connection in Array(quiescing.values) { checkQuiescing(connection) }
  }

  private func checkQuiescing(_ connection: ServedConnection) {
    if case .settling(let handle, let until) = connection.protection {
      // What the peer has acknowledged has been replicated; what was only written may still be on its way
      // through the kernel to the engine when the engine hears of the end. Not for long, though: the peer may
      // delay its acknowledgement until it sends the next message, which would then be replicated too.
      if StreamSocket.unacknowledgedByteCount(connection.descriptor) == 0
        || MonotonicClock.nanoseconds >= until,
        let session
      {
        quiescing[connection.id] = nil
        connection.protection = .unreplicating(handle)
        engine.unreplicate(session, connection: connection.id, handle)
      }
      return
    }
    guard case .quiescing(let until) = connection.protection else { return }
    let now = MonotonicClock.nanoseconds
    if obstacleToProtection != nil || now >= until {
      quiescing[connection.id] = nil
      connection.protection = .none
      connection.postponeRetry(now: now)
      resume(connection)
    } else if connection.isQuiescent, let session {
      quiescing[connection.id] = nil
      connection.protection = .allocating
      watch(connection)
      engine.allocate(session, connection: connection.id)
    }
  }

  func allocated(_ id: UInt64, _ result: Result<Handle, JSRError>) {
    guard let connection = connections[id], case .allocating = connection.protection else {
      if case .success(let handle) = result, let session { engine.free(session, handle) }
      return
    }
    switch result {
    case .success(let handle):
      if let obstacle = obstacleToProtection, let session {
        engine.free(session, handle)
        return failed(toProtect: connection, obstacle)
      }
      let offer = OfferMessage(
        kind: .offer, slot: slot ?? 0, primary: handle, resumePoint: connection.conversation.resumePoint)
      detail("OFFER fd \(connection.descriptor) handle \(handle)")
      if let service = options.service, let session {
        connectionsByHandle[handle] = connection
        connection.lostDuringHandshake = nil
        connection.protection = .handshake(handle, secondary: nil)
        return engine.replicate(
          session, connection: connection.id, descriptor: connection.descriptor, primary: handle,
          service: service, note: offer.bytes)
      }
      connection.protection = .offered(handle, until: MonotonicClock.nanoseconds + Self.offerTime)
      connectionsByHandle[handle] = connection
      send(offer.bytes)
    case .failure(let error):
      failed(toProtect: connection, "\(error)")
    }
  }

  func offerAnswered(_ answer: AnswerMessage) {
    guard let connection = connectionsByHandle[answer.primary],
      case .offered(answer.primary, _) = connection.protection
    else {
      // Too late: the connection is served without it, or gone.
      if answer.pair != nil { withdraw(answer.primary) }
      return
    }
    guard let session else { return failed(toProtect: connection, "no engine") }
    guard let pair = answer.pair else {
      return refused(connection, answer.primary, session, "the other instance could not attach")
    }
    connection.lostDuringHandshake = nil
    connection.protection = .handshake(answer.primary, secondary: pair.secondary)
    detail(
      "ATTACHED fd \(connection.descriptor) handle \(answer.primary) secondary handle \(pair.secondary)"
        + " rcv fd \(pair.rcv) snd fd \(pair.snd) on RE\(answer.slot)")
    engine.replicate(
      session, connection: connection.id, descriptor: connection.descriptor, primary: answer.primary,
      secondary: pair.secondary)
  }

  func handshakeOver(_ id: UInt64, _ refusal: JSRError?) {
    guard let connection = connections[id],
      case .handshake(let handle, let secondary) = connection.protection
    else { return }
    if let refusal {
      withdraw(handle)
      if let session { return refused(connection, handle, session, "\(refusal)") }
      return failed(toProtect: connection, "\(refusal)")
    }
    connection.protection = .replicated(handle, secondary: secondary)
    connection.retryDelay = ServedConnection.firstRetryDelay
    if let merged = connection.mergedHandle {
      connectionsByHandle[merged] = nil
      connection.mergedHandle = nil
    }
    detail("REPLICATED \(connection.label)" + (secondary.map { " secondary handle \($0)" } ?? ""))
    if part == .secondary {
      close(connection, "it has moved to the other RE")
    } else if let reason = connection.lostDuringHandshake {
      lostProtection(connection, reason: reason)
    } else {
      if options.givesRecords, !isEnding, let session {
        connection.awaitsRecords = true
        engine.beginRecords(session, connection: connection.id, handle)
      }
      resume(connection)
    }
  }

  private func refused(
    _ connection: ServedConnection, _ handle: Handle, _ session: any EngineSession, _ reason: String
  ) {
    engine.free(session, handle)
    failed(toProtect: connection, reason)
  }

  private func failed(toProtect connection: ServedConnection, _ reason: String) {
    if let handle = connection.handle { connectionsByHandle[handle] = nil }
    if case .offered(let handle, _) = connection.protection { connectionsByHandle[handle] = nil }
    connection.protection = .none
    if let merged = connection.mergedHandle { connectionsByHandle[merged] = connection }
    connection.postponeRetry(now: MonotonicClock.nanoseconds)
    detail("NOT REPLICATED fd \(connection.descriptor): \(reason)")
    resume(connection)
  }

  private func withdraw(_ handle: Handle) {
    send(OfferMessage(kind: .withdrawal, slot: slot ?? 0, primary: handle).bytes)
  }

  func expireOffers(_ now: UInt64) {
    for connection in Array(connections.values) {
      guard case .offered(let handle, let until) = connection.protection, now >= until else { continue }
      withdraw(handle)
      giveUpOffer(of: connection, handle, "the other instance does not answer")
    }
  }

  func withdrawOffers(_ reason: String) {
    for connection in Array(connections.values) {
      guard case .offered(let handle, _) = connection.protection else { continue }
      giveUpOffer(of: connection, handle, reason)
    }
  }

  private func giveUpOffer(of connection: ServedConnection, _ handle: Handle, _ reason: String) {
    if let session {
      refused(connection, handle, session, reason)
    } else {
      failed(toProtect: connection, reason)
    }
  }

  // MARK: Protection that ends

  /// The engine has stopped replicating a connection, which goes on as it is.
  func lostProtection(_ connection: ServedConnection, reason: String) {
    switch connection.protection {
    case .none, .quiescing, .allocating, .offered: return
    case .handshake: connection.lostDuringHandshake = reason
    case .replicated(let handle, _), .settling(let handle, _), .unreplicating(let handle):
      quiescing[connection.id] = nil
      line("UNREPLICATED \(connection.label) after \(connection.messageCount) messages: \(reason)")
      connectionsByHandle[handle] = nil
      connection.protection = .none
      connection.postponeRetry(now: MonotonicClock.nanoseconds)
      // Until it is freed, the handle keeps the engine's duplicate of the socket open.
      if let session { engine.free(session, handle) }
      resume(connection)
    }
  }

  // MARK: Records

  func recordsBegan(_ id: UInt64, _ result: Result<EchoRecords, JSRError>) {
    // A channel that comes too late ends by being let go of.
    guard let connection = connections[id], connection.awaitsRecords else { return }
    connection.awaitsRecords = false
    switch result {
    case .failure(let error):
      detail("NO RECORDS \(connection.label): \(error)")
    case .success(let records):
      connection.records = records
      connection.given = GivenEchoes()
      do {
        try poll.add(records.channel.descriptor, .read, .records(connection))
        detail("RECORDS \(connection.label) of up to \(records.channel.recordLimit) bytes")
      } catch {
        connection.records = nil
        line("WATCH records of \(connection.label): \(error)")
      }
    }
    resume(connection)
  }

  /// There is room in a channel, or news of it.
  func recordsReady(_ connection: ServedConnection) {
    guard let records = connection.records else { return }
    switch records.channel.state {
    case .open: return flush(connection)
    case .ended(let accepted):
      var output = ByteQueue()
      connection.given.bytes(behind: accepted).withUnsafeBytes { output.append($0) }
      connection.output.withBytes { output.append($0) }
      connection.output = output
      endRecords(connection, "\(accepted) accepted")
      resume(connection)
    case .moved: endRecords(connection, "the connection has moved to the other RE")
    case .engineGone:
      endRecords(connection, "the engine is gone")
      close(connection, "the engine is gone, with records of it")
    }
  }

  private func endRecords(_ connection: ServedConnection, _ reason: String) {
    if let records = connection.records { poll.remove(records.channel.descriptor) }
    connection.records = nil
    connection.given = GivenEchoes()
    detail("RECORDS END \(connection.label): \(reason)")
  }

  /// Gives what waits, as far as the channel takes it.
  private func giveRecords(_ connection: ServedConnection) {
    guard let records = connection.records else { return }
    connection.given.forget(upTo: records.channel.safeCount)
    while !connection.output.isEmpty {
      let count = min(connection.output.count, records.channel.recordLimit)
      let record = connection.output.withBytes { Array($0.prefix(count)) }
      do throws(JSRError) {
        guard let number = try records.channel.trySend(record) else { return }
        connection.given.append(record, number: number)
        connection.output.removeFirst(count)
        counts.bytesOut += UInt64(count)
      } catch {
        // What has become of the channel is seen when it is looked at next.
        return
      }
    }
  }

  private func watchRecords(_ connection: ServedConnection) {
    guard let records = connection.records else { return }
    do {
      try poll.change(records.channel.descriptor, to: connection.output.isEmpty ? .read : [.read, .write])
    } catch {
      line("WATCH records of \(connection.label): \(error)")
    }
  }

  /// A request of ours to stop replicating was refused.
  func unreplicationRefused(_ id: UInt64, _ error: JSRError) {
    guard let connection = connections[id], case .unreplicating(let handle) = connection.protection else {
      return
    }
    line("UNREPLICATE \(connection.label): \(error)")
    connection.protection = .none
    connectionsByHandle[handle] = nil
    resume(connection)
  }

  /// Mastership is lost: what was replicated lives on the other routing engine now.
  func abandonReplicated() {
    for connection in Array(connections.values) {
      switch connection.protection {
      case .replicated, .settling, .unreplicating: close(connection, "it has moved to the other RE")
      case .none, .quiescing, .allocating, .offered, .handshake: break
      }
    }
  }
}

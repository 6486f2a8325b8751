import Packet

/// A record that is in the log and that the secondary has not acknowledged.
struct RecordOnItsWay {
  var position: LogPosition
  var socket: Handle
  /// How many records there are up to this one, since record mode began.
  var count: UInt64
  /// The application's bytes.
  var byteCount: Int
}

/// What became of a record that was offered.
public enum RecordVerdict: Sendable, Hashable {
  /// It is in the log, and will be written whole, whatever happens.
  case taken
  /// Not now; `recordsHaveRoom` says when to offer it again.
  case later
  /// The socket takes no more records.
  case refused
}

// The record interface on the primary (the secondary's part is in `+Link`).
//
// A record is appended to the log as one log record, so that the secondary has it whole or not at all, and shows it at
// once. Only then is it given to the kernel, and the segments that the kernel makes of it are held like all others until
// the log record is acknowledged. Whoever is primary afterwards has all of it in the send queue of the merged socket.
extension ReplicationNode {
  /// Whatever the application of a replicated socket sends from now on comes as records.
  ///
  /// - Parameter end: behind the last byte that the kernel has been given, by its own account. All up to there must be
  ///   in the log, or the records would not stand in it where they stand in the stream.
  public mutating func beginRecords(_ handle: Handle, writtenUpTo end: SequenceNumber) throws(SocketError) {
    let place = try find(handle)
    guard entries[place]!.phase == .replicating else {
      throw .wrongPhase(handle, entries[place]!.phase, wanted: "replicating")
    }
    guard entries[place]!.transport == .tcp else { throw .noRecordsInDatagrams(handle) }
    guard speaksForConnections else { throw .notPrimary }
    guard !isSevered(place) else { throw .noSecondary }
    guard entries[place]!.outbound.fin == nil else { throw .outputEnded(handle) }
    guard entries[place]!.records == nil else { throw .recordMode(handle) }
    let ahead = end - entries[place]!.outbound.next
    guard ahead == 0 else { throw .plainBytes(handle, count: ahead) }
    entries[place]!.records = RecordQueue(limit: configuration.recordLimit)
    say(.info, "SDRL record mode begins for socket \(handle)")
  }

  /// The application writes to the socket itself again.
  public mutating func endRecords(_ handle: Handle) throws(SocketError) {
    let place = try find(handle)
    guard let queue = entries[place]!.records else { throw .noRecordMode(handle) }
    guard queue.isEmpty else { throw .recordsToBeWritten(handle, byteCount: queue.byteCount) }
    entries[place]!.records = nil
    entries[place]!.waitingRecord = nil
    say(.info, "SDRL record mode ends for socket \(handle) after \(queue.acceptedCount) records")
  }

  /// A record of the application.
  ///
  /// - Parameters:
  ///   - record: `RecordFraming.headroom` bytes, then the application's.
  ///   - isLast: the application is gone, and cannot be made to wait: no limit but that of its channel counts.
  public mutating func take(
    record: consuming [UInt8], of handle: Handle, isLast: Bool = false, now: Instant
  ) -> RecordVerdict {
    guard let place = try? find(handle), entries[place]!.records != nil, entries[place]!.outbound.fin == nil
    else { return .refused }
    let count = record.count - RecordFraming.headroom
    precondition((1...configuration.recordLimit).contains(count), "RecordFraming keeps to the limit")
    guard mayLogRecords(place), isLast || hasRoom(forRecordOf: count, place) else {
      entries[place]!.waitingRecord = count
      recordWaiters.insert(place)
      return .later
    }
    entries[place]!.waitingRecord = nil
    if planted(.recordLoggedInPieces), count > 1 {
      let middle = RecordFraming.headroom + count / 2
      append(record: Array(record[..<middle]), place, now: now)
      record = [UInt8](repeating: 0, count: RecordFraming.headroom) + record[middle...]
    }
    append(record: record, place, now: now)
    actions.append(.writeRecords(handle))
    return .taken
  }

  private mutating func append(record: consuming [UInt8], _ place: Int, now: Instant) {
    let handle = entries[place]!.handle
    let count = record.count - RecordFraming.headroom
    let sequence = entries[place]!.outbound.next
    let limit = entries[place]!.mayHaveSent(upTo: sequence + count)
    let header = OutgoingRecord(
      handle: entries[place]!.peer!, sequence: sequence, sendLimit: limit,
      payload: RecordFraming.headroom..<record.count)
    record.withUnsafeMutableBytes { header.store(in: $0) }
    let position = log.append(byteCount: record.count, layer: .sdrl, socket: handle, now: now)
    noteAppended(record, at: position, place)
    actions.append(.send(record))
    statistics.sdrlRecordsSent += 1
    statistics.sdrlBytesSent += UInt64(count)
    statistics.applicationRecords += 1
    entries[place]!.outbound.append(recordOf: count, at: position)
    entries[place]!.sendLimit.announce(limit, at: position, acknowledged: log.acknowledged)
    entries[place]!.records!.append(record, from: RecordFraming.headroom)
    entries[place]!.unsafeRecordBytes += count
    recordsOnTheirWay.append(
      RecordOnItsWay(
        position: position, socket: handle, count: entries[place]!.records!.acceptedCount, byteCount: count))
  }

  private func mayLogRecords(_ place: Int) -> Bool {
    entries[place]!.phase == .replicating && speaksForConnections && !isSevered(place)
  }

  /// Whether a record may be added to what the log, the secondary and the kernel have yet to deal with.
  private func hasRoom(forRecordOf count: Int, _ place: Int) -> Bool {
    let entry = entries[place]!
    // The secondary keeps what the peer has not acknowledged, within a limit of its own, which is taken to be the same.
    let outstanding = entry.outbound.next - entry.block.sendUnacknowledged
    return entry.pausedSince == nil && log.unacknowledgedBytes < configuration.holdLimit
      && entry.records!.hasRoom(for: count)
      // A snooper that is slow can say so before its buffer overflows.
      && (entry.unsafeRecordBytes == 0 || entry.unsafeRecordBytes + count <= configuration.recordLimit)
      && (outstanding <= 0 || outstanding + count <= configuration.holdLimit)
  }

  /// Tells those to offer their records again that would be taken now.
  mutating func offerRoomForRecords() {
    guard !recordWaiters.isEmpty, speaksForConnections else { return }
    for place in recordWaiters.sorted() {
      guard let entry = entries[place], let count = entry.waitingRecord, entry.records != nil else {
        recordWaiters.remove(place)
        continue
      }
      guard mayLogRecords(place), hasRoom(forRecordOf: count, place) else { continue }
      recordWaiters.remove(place)
      entries[place]!.waitingRecord = nil
      actions.append(.recordsHaveRoom(entry.handle))
    }
  }

  /// More of the log is acknowledged.
  mutating func noteSafeRecords() {
    var news: [Handle: UInt64] = [:]
    while let first = recordsOnTheirWay.first, first.position <= log.acknowledged {
      news[first.socket] = first.count
      if let place = try? find(first.socket) { entries[place]!.unsafeRecordBytes -= first.byteCount }
      recordsOnTheirWay.removeFirst()
    }
    for (handle, count) in news.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
      actions.append(.recordsSafe(handle, count))
    }
  }

  // MARK: Into the kernel

  /// What the kernel is to be given next: part of a record, from `offset` on; `nil` if there is nothing, or nothing may
  /// be written because mastership was handed over.
  public func unwrittenRecord(_ handle: Handle) -> (bytes: [UInt8], offset: Int)? {
    (try? find(handle)).flatMap { unwrittenRecord($0) }
  }

  func unwrittenRecord(_ place: Int) -> (bytes: [UInt8], offset: Int)? {
    guard let entry = entries[place], speaksForConnections else { return nil }
    return entry.records?.unwritten
  }

  /// The kernel has taken `count` bytes of that.
  public mutating func wroteRecords(_ handle: Handle, _ count: Int) {
    guard let place = try? find(handle), entries[place]!.records != nil else { return }
    entries[place]!.records!.wrote(count)
    offerRoomForRecords()
  }

  /// The kernel will take no more: the connection is gone, or the application has shut it down.
  public mutating func recordsFailed(
    _ handle: Handle, because reason: UnreplicateReason, now: Instant
  ) {
    guard let place = try? find(handle), let queue = entries[place]!.records else { return }
    say(
      .warning,
      "socket \(handle) takes no more, with \(queue.byteCount) bytes of records to be written: \(reason)")
    entries[place]!.records = RecordQueue(limit: 0)
    endReplication(place, because: reason, now: now)
  }

  /// Whether a segment of the kernel's shows that the application has not kept to record mode. Replication ends then.
  mutating func breaksRecordMode(
    _ segment: TCPSegment, _ place: Int, now: Instant
  ) -> Bool {
    let end = segment.payloadEnd
    let next = entries[place]!.outbound.next
    if end > next {
      say(
        .error,
        "socket \(entries[place]!.handle) sends \(end - next) bytes that are in no record, in record mode")
      endReplication(place, because: .plainWrite, now: now)
      return true
    }
    if segment.flags.contains(.fin), end < next {
      recordsFailed(entries[place]!.handle, because: .recordsCutShort, now: now)
      return true
    }
    return false
  }

  /// Replication is over: the rest is written without it.
  mutating func handOverRecords(_ place: Int) {
    guard let queue = entries[place]!.records else { return }
    entries[place]!.records = nil
    entries[place]!.waitingRecord = nil
    actions.append(
      .recordsEnded(entries[place]!.handle, planted(.recordsForgottenAtEnd) ? RecordQueue(limit: 0) : queue))
  }
}

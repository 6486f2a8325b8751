import Control
import Descriptors
import EngineConfiguration
import Glibc
import LinuxNetworking
import Logging
import NIOCore
import Packet
import Replication

// What applications give through the record interface, from their channels to the log and into the kernel.
//
// A record is given to the log first, and at once to the engine's duplicate of the socket: the kernel makes its segments
// while the record is on its way to the other RE, and they are held like all others until it is there.
extension Engine {
  /// How long plain bytes may take from the application's last write to the log, before record mode is refused.
  private static let drainTime = Nanoseconds.seconds(1)
  /// Bytes that are read from one channel before others have their turn.
  private static let recordTurn = 1 << 20

  /// A wish for record mode that waits for plain bytes to be replicated.
  struct PendingRecordMode {
    var handle: Handle
    var deadline: Instant
    var reply: ReplyPort
  }

  // MARK: Begin

  func beginRecords(_ handle: Handle, reply: ReplyPort) {
    begin(
      PendingRecordMode(handle: handle, deadline: Self.now() + Self.drainTime, reply: reply), now: Self.now())
  }

  /// Goes on with those that waited.
  func beginPendingRecords(now: Instant) {
    guard !pendingRecordModes.isEmpty else { return }
    let pending = pendingRecordModes
    pendingRecordModes = []
    for wish in pending { begin(wish, now: now) }
  }

  private func begin(_ wish: PendingRecordMode, now: Instant) {
    let handle = wish.handle
    guard let socket = sockets[handle], socket.closeRequested == nil else {
      return wish.reply.refuse(.wrongState, "handle \(handle) has no socket that is replicated")
    }
    guard socket.transport == .tcp else { return wish.reply.refuse(.noRecordsInDatagrams(handle)) }
    let end: SequenceNumber
    do throws(SystemError) {
      end = try socket.writeEnd()
    } catch {
      return wish.reply.refuse(.system, "handle \(handle): \(error)")
    }
    do throws(SocketError) {
      try node.beginRecords(handle, writtenUpTo: end)
    } catch {
      if case .plainBytes = error, now < wish.deadline { return pendingRecordModes.append(wish) }
      return wish.reply.refuse(error)
    }
    do throws(SystemError) {
      var application: Int32 = -1
      let channel = try RecordChannel(
        handle, try? node.socket(handle).flow, socket, recordLimit: node.configuration.recordLimit,
        application: &application)
      let parcel = DescriptorParcel(owning: [application])
      channel.token = try monitor.add(channel.number, .read)
      recordTokens[channel.token!] = channel
      recordChannels[handle] = channel
      wish.reply.send(.recordChannel(limit: node.configuration.recordLimit), descriptors: parcel)
    } catch {
      try? node.endRecords(handle)
      wish.reply.refuse(.system, "no record channel: \(error)")
    }
  }

  // MARK: From the application

  /// A channel or a socket that was waited for is ready.
  func recordsReady(_ token: ReadinessMonitor.Token) {
    guard let channel = recordTokens[token] else { return }
    if token == channel.kernelToken {
      forgetKernelToken(channel)
      writeRecords(channel)
    } else {
      channel.sayAgain()
      readRecords(channel)
    }
    settle()
  }

  /// Takes records as long as they are welcome.
  ///
  /// - Parameter isLast: the application is gone: whatever it has given whole is taken now.
  private func readRecords(_ channel: RecordChannel, isLast: Bool = false) {
    var byteCount = 0
    reading: while recordChannels[channel.handle] === channel {
      guard isLast || byteCount < Self.recordTurn else {
        let handle = channel.handle
        eventLoop.execute { [self] in
          recordsHaveRoom(handle)
          settle()
        }
        break
      }
      do throws(RecordFraming.Failure) {
        guard let record = try channel.next() else {
          guard case .bytes = channel.read() else { break reading }
          // An application has what a peer sends as soon as the kernel has, which is before it is judged. What it may have
          // answered is in the log before the answer is.
          readWaitingFrames()
          continue
        }
        byteCount += record.count
        switch node.take(record: record, of: channel.handle, isLast: isLast, now: Self.now()) {
        case .taken: channel.noteTaken()
        case .later:
          channel.putBack(record)
          break reading
        case .refused:
          channel.putBack(record)
          node.recordsFailed(channel.handle, because: .recordsCutShort, now: Self.now())
          break reading
        }
      } catch {
        logger.warning("record channel of socket \(channel.handle) closed: \(error)")
        channel.drop()
      }
    }
    watchForInput(channel)
    endRecordsIfDone(channel)
  }

  private func watchForInput(_ channel: RecordChannel) {
    guard let token = channel.token, recordChannels[channel.handle] === channel else { return }
    var events: ReadinessMonitor.Events = []
    if channel.isDry, !channel.hasEnded { events.insert(.read) }
    if channel.hasReport { events.insert(.write) }
    guard !events.isEmpty else { return }
    do throws(SystemError) { try monitor.rearm(token, events) } catch {
      logger.error("record channel of socket \(channel.handle): \(error)")
    }
  }

  private func recordsHaveRoom(_ handle: Handle) {
    if let channel = recordChannels[handle] { readRecords(channel) }
  }

  /// There are channels to be read, or records to be written.
  var hasDueRecords: Bool { !dueRecordReads.isEmpty || !dueRecordWrites.isEmpty }

  /// Not in the middle of a packet's way, since to read records is to read packets first.
  func readDueRecords() {
    let handles = dueRecordReads
    dueRecordReads.removeAll(keepingCapacity: true)
    for handle in handles { recordsHaveRoom(handle) }
  }

  func recordsSafe(_ handle: Handle, _ count: UInt64) {
    guard let channel = recordChannels[handle] else { return }
    channel.noteSafe(count)
    if channel.hasReport { watchForInput(channel) }
  }

  /// The application is gone, and its connections are about to go to the other RE: what it has given whole goes with them.
  func takeLastRecords(_ handle: Handle) {
    if let channel = recordChannels[handle] { readRecords(channel, isLast: true) }
  }

  /// The duplicate of a socket is to be closed.
  ///
  /// - Returns: whether records are still to be written, so that it is needed.
  func closesAfterRecords(_ handle: Handle, _ closing: Closing) -> Bool {
    guard let channel = recordChannels[handle] else { return false }
    channel.closing = channel.closing ?? closing
    channel.shut()
    readRecords(channel)
    return recordChannels[handle] === channel
  }

  // MARK: Into the kernel

  func writeDueRecords() {
    let handles = dueRecordWrites
    dueRecordWrites.removeAll(keepingCapacity: true)
    for handle in handles { if let channel = recordChannels[handle] { writeRecords(channel) } }
  }

  private func writeRecords(_ channel: RecordChannel) {
    guard channel.kernelToken == nil else { return }
    let number = channel.socket.descriptor
    while let (bytes, offset) = channel.left.map(\.unwritten) ?? node.unwrittenRecord(channel.handle) {
      let sent = bytes.withUnsafeBytes {
        Glibc.send(
          number, $0.baseAddress! + offset, $0.count - offset, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
      }
      if sent > 0 {
        if channel.left?.wrote(sent) == nil { node.wroteRecords(channel.handle, sent) }
      } else if errno == EAGAIN {
        watchKernel(channel)
        break
      } else if errno != EINTR {
        let error = SystemError("send")
        logger.warning("records of socket \(channel.handle) cannot be written: \(error)")
        guard channel.left == nil else { return endLastRecords(channel, .moved) }
        // Shut down by the application, unless the connection is gone.
        let isGone = error.code != EPIPE || isClosed(number)
        return node.recordsFailed(
          channel.handle, because: isGone ? .reset : .recordsCutShort, now: Self.now())
      }
    }
    endRecordsIfDone(channel)
  }

  private func watchKernel(_ channel: RecordChannel) {
    do throws(SystemError) {
      let token = try monitor.add(channel.socket.descriptor, .write)
      channel.kernelToken = token
      recordTokens[token] = channel
    } catch {
      logger.error("socket \(channel.handle) cannot be watched: \(error)")
      node.recordsFailed(channel.handle, because: .limitReached, now: Self.now())
    }
  }

  private func forgetKernelToken(_ channel: RecordChannel) {
    guard let token = channel.kernelToken else { return }
    monitor.remove(token)
    recordTokens[token] = nil
    channel.kernelToken = nil
  }

  // MARK: End

  /// A channel that the application has ended is done when all that came over it is written.
  private func endRecordsIfDone(_ channel: RecordChannel) {
    if let left = channel.left {
      if left.isEmpty { endLastRecords(channel, .ended) }
      return
    }
    guard recordChannels[channel.handle] === channel, channel.hasEnded, channel.isDry else { return }
    do throws(SocketError) { try node.endRecords(channel.handle) } catch { return }
    recordChannels[channel.handle] = nil
    close(channel, .ended)
    if let closing = channel.closing { closeDuplicate(channel.handle, closing) }
  }

  /// Replication has ended: what the application has given whole so far is taken, and nothing more.
  func recordsEnded(_ handle: Handle, _ queue: RecordQueue?) {
    guard let channel = recordChannels.removeValue(forKey: handle) else { return }
    guard let queue else {
      forgetKernelToken(channel)
      return close(channel, .moved)
    }
    channel.left = queue
    channel.shut()
    lastRecords.append(channel)
    do throws(RecordFraming.Failure) {
      while true {
        if let record = try channel.next() {
          channel.left!.append(record, from: RecordFraming.headroom)
          channel.noteTaken()
        } else if case .bytes = channel.read() {
          continue
        } else {
          break
        }
      }
    } catch {
      logger.warning("record channel of socket \(handle) closed: \(error)")
    }
    writeRecords(channel)
  }

  private func endLastRecords(_ channel: RecordChannel, _ kind: RecordReport.Kind) {
    lastRecords.removeAll { $0 === channel }
    forgetKernelToken(channel)
    close(channel, kind)
    if let closing = channel.closing { giveUp(channel.socket, of: channel.handle, closing) }
  }

  private func close(_ channel: RecordChannel, _ kind: RecordReport.Kind) {
    if let token = channel.token {
      monitor.remove(token)
      recordTokens[token] = nil
      channel.token = nil
    }
    channel.finish(kind)
  }
}

// Theory of operation
//
// The channel is a stream socket. Whoever calls writes what it takes, without waiting; the rest of a record that was begun
// stays here, and the reactor's thread writes it when there is room. A record is taken only when nothing of the one before
// is left, so that at most one record waits here, and the socket's buffer is what makes a sender wait.
//
// Reports are read by the reactor's thread. The last one, or the end of the stream without one, ends the channel; waiters
// are resumed with what it says. Tasks wait with continuations, threads with semaphores, event loops of C with a signal:
// a descriptor of its own, since the channel's reports may be gone from the socket before anybody polls it.

import CLinux
import Control
import Descriptors
import Glibc
import Synchronization

final class RecordSender: Sendable {
  private struct State: ~Copyable {
    /// What the channel has not taken yet of the last record.
    var rest: ArraySlice<UInt8> = []
    var givenCount: UInt64 = 0
    var safeCount: UInt64 = 0
    var end: RecordChannel.State?
    var hasEndedWriting = false
    /// A piece of a report.
    var input: [UInt8] = []
    var senders: [CheckedContinuation<Void, Never>] = []
    var waiters: [(number: UInt64, continuation: CheckedContinuation<Void, Never>)] = []
    var token: ReadinessMonitor.Token?
    /// Threads that wait for any change.
    var threads: [UInt64: ThreadSemaphore] = [:]
    var nextThread: UInt64 = 0
    /// Somebody was told that there is no room, and is to hear when there is.
    var isRoomWanted = false
    /// There is room again, and nobody has tried it yet.
    var hasNewRoom = false
    /// What was told last.
    var toldSafeCount: UInt64 = 0
    /// Readable while there is news; made for the first who wants to poll it.
    var signal: OwnedDescriptor?

    var signalNumber: Int32? {
      switch signal {
      case .some(let descriptor): descriptor.rawValue
      case .none: nil
      }
    }

    /// Makes `signal` readable, or not, as there is news.
    func updateSignal() {
      guard let descriptor = signalNumber else { return }
      if end != nil || safeCount > toldSafeCount || hasNewRoom {
        eventfd_write(descriptor, 1)
      } else {
        var count = eventfd_t()
        eventfd_read(descriptor, &count)
      }
    }
  }

  let handle: Handle
  let limit: Int
  private let socket: Socket
  private let reactor: RecordReactor
  private let state_ = Mutex(State())

  init(_ handle: Handle, _ socket: consuming Socket, limit: Int) throws(JSRError) {
    self.handle = handle
    self.limit = limit
    self.socket = socket
    do throws(SystemError) {
      reactor = try RecordReactor.get()
    } catch {
      throw .refused(.system, message: "record channel: \(error)")
    }
    do throws(SystemError) {
      let token = try reactor.add(self)
      state_.withLock { $0.token = token }
    } catch {
      throw .refused(.system, message: "record channel: \(error)")
    }
  }

  var descriptor: Int32 { socket.descriptor }
  var state: RecordChannel.State { state_.withLock { $0.end ?? .open } }
  var givenCount: UInt64 { state_.withLock { $0.givenCount } }
  var safeCount: UInt64 { state_.withLock { $0.safeCount } }

  // MARK: Giving

  func trySend(_ record: [UInt8]) throws(JSRError) -> UInt64? {
    try record.withUnsafeBufferPointer { bytes throws(JSRError) in
      try trySend(UnsafeRawBufferPointer(bytes), hearingOfRoom: false)
    }
  }

  /// - Parameter hearingOfRoom: if there is no room, threads that wait and whoever polls the signal are told when there is.
  func trySend(_ record: UnsafeRawBufferPointer, hearingOfRoom: Bool) throws(JSRError) -> UInt64? {
    guard (1...limit).contains(record.count) else { throw .recordSize(record.count, limit: limit) }
    return try state_.withLock { state throws(JSRError) in
      if let end = state.end { throw Self.error(end) }
      if state.hasNewRoom {
        state.hasNewRoom = false
        state.updateSignal()
      }
      if let number = give(record, &state) { return number }
      if hearingOfRoom {
        state.isRoomWanted = true
        arm(state)
      }
      return nil
    }
  }

  /// - Returns: the number of the record; `nil` if there is no room.
  private func give(_ record: UnsafeRawBufferPointer, _ state: inout State) -> UInt64? {
    guard !state.hasEndedWriting, state.rest.isEmpty else { return nil }
    var count = UInt32(record.count).bigEndian
    // A writer that finds no room at all has given nothing.
    var sent = 0
    let isGone = withUnsafeMutableBytes(of: &count) { prefix in
      var parts = [
        iovec(iov_base: prefix.baseAddress, iov_len: prefix.count),
        iovec(iov_base: UnsafeMutableRawPointer(mutating: record.baseAddress), iov_len: record.count),
      ]
      return parts.withUnsafeMutableBufferPointer { parts in
        var message = msghdr()
        message.msg_iov = parts.baseAddress
        message.msg_iovlen = parts.count
        sent = sendmsg(descriptor, &message, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
        return sent < 0 && errno != EAGAIN && errno != EINTR
      }
    }
    if isGone {
      // The reactor hears why.
      arm(state)
      return nil
    }
    guard sent > 0 else { return nil }
    state.givenCount += 1
    if sent < record.count + 4 {
      let prefix = withUnsafeBytes(of: count) { Array($0) }
      state.rest = sent < 4 ? prefix[sent...] + record : Array(record[(sent - 4)...])[...]
      arm(state)
    }
    return state.givenCount
  }

  func send(_ record: [UInt8]) async throws(JSRError) -> UInt64 {
    while true {
      if let number = try trySend(record) {
        try await waitUntilGiven(number)
        return number
      }
      await waitForRoom()
    }
  }

  /// Waits until the channel has all of a record.
  private func waitUntilGiven(_ number: UInt64) async throws(JSRError) {
    while true {
      let isGiven = try state_.withLock { state throws(JSRError) in
        if state.givenCount > number || state.rest.isEmpty { return true }
        if let end = state.end { throw Self.error(end) }
        return false
      }
      if isGiven { return }
      await waitForRoom()
    }
  }

  /// Returns when something has changed since the channel was full.
  private func waitForRoom() async {
    await withCheckedContinuation { continuation in
      let isOver = state_.withLock { state in
        guard state.end == nil else { return true }
        state.senders.append(continuation)
        arm(state)
        return false
      }
      if isOver { continuation.resume() }
    }
  }

  private func arm(_ state: borrowing State) {
    guard let token = state.token else { return }
    let needsRoom = !state.rest.isEmpty || !state.senders.isEmpty || state.isRoomWanted
    reactor.rearm(token, needsRoom ? [.read, .write] : .read)
  }

  // MARK: Safety and the end

  func waitUntilSafe(_ number: UInt64) async throws(JSRError) {
    await wait { state in state.safeCount >= number }
    _ = try isSafe(number)
  }

  /// - Throws: if the record will never be known to be safe.
  private func isSafe(_ number: UInt64) throws(JSRError) -> Bool {
    try state_.withLock { state throws(JSRError) in
      if state.safeCount >= number { return true }
      guard let end = state.end else { return false }
      if case .ended(let accepted) = end, accepted >= number { return true }
      throw Self.error(end)
    }
  }

  func end() {
    state_.withLock { state in
      state.hasEndedWriting = true
      if state.rest.isEmpty { _ = shutdown(descriptor, Int32(SHUT_WR)) }
      arm(state)
    }
  }

  func waitForEnd() async throws(JSRError) -> UInt64 {
    await wait { _ in false }
    return try acceptedCount()
  }

  /// After the end.
  private func acceptedCount() throws(JSRError) -> UInt64 {
    switch state {
    case .ended(let accepted): return accepted
    case let state: throw Self.error(state)
    }
  }

  /// Waits until a record is safe, or the channel has ended.
  private func wait(until isEnough: @Sendable (borrowing State) -> Bool) async {
    while true {
      let isOver = state_.withLock { $0.end != nil || isEnough($0) }
      if isOver { return }
      await withCheckedContinuation { continuation in
        let isOver = state_.withLock { state in
          guard state.end == nil, !isEnough(state) else { return true }
          state.waiters.append((state.safeCount + 1, continuation))
          return false
        }
        if isOver { continuation.resume() }
      }
    }
  }

  private static func error(_ end: RecordChannel.State) -> JSRError {
    switch end {
    case .ended(let accepted): .recordsEnded(accepted: accepted)
    case .moved(let safe): .connectionMoved(safe: safe)
    case .open, .engineGone: .engineGone
    }
  }

  // MARK: For threads and event loops

  /// Gives a record, and waits for room as long as `time` allows; for ever if it is `nil`.
  ///
  /// - Returns: the record's number; `nil` if there was no room in time.
  func send(_ record: UnsafeRawBufferPointer, within time: Duration?) throws(JSRError) -> UInt64? {
    var number: UInt64?
    try blocking(within: time) { () throws(JSRError) in
      number = try trySend(record, hearingOfRoom: true)
      return number != nil
    }
    return number
  }

  /// - Returns: whether the record is safe, and not just the time over.
  func waitUntilSafe(_ number: UInt64, within time: Duration?) throws(JSRError) -> Bool {
    try blocking(within: time) { () throws(JSRError) in try isSafe(number) }
  }

  /// - Returns: how many records were accepted; `nil` if the end did not come in time.
  func waitForEnd(within time: Duration?) throws(JSRError) -> UInt64? {
    let isOver = blocking(within: time) { () throws(Never) in state_.withLock { $0.end != nil } }
    return isOver ? try acceptedCount() : nil
  }

  /// Calls `isDone` until it says so, after each change of the channel.
  ///
  /// - Returns: whether that was in time; without any, what the first call says.
  @discardableResult
  private func blocking<Failure: Error>(
    within time: Duration?, until isDone: () throws(Failure) -> Bool
  ) throws(Failure) -> Bool {
    if try isDone() { return true }
    if time == .zero { return false }
    let semaphore = ThreadSemaphore()
    let number = state_.withLock { state in
      state.nextThread += 1
      state.threads[state.nextThread] = semaphore
      return state.nextThread
    }
    defer { state_.withLock { _ = $0.threads.removeValue(forKey: number) } }
    let deadline = time.map { ThreadSemaphore.deadline(after: $0) }
    // What changed since the first call has not posted the semaphore.
    while !(try isDone()) { if !semaphore.wait(until: deadline) { return try isDone() } }
    return true
  }

  /// What there is to say at this moment; news no more from then on.
  func takeNews() -> (state: RecordChannel.State, givenCount: UInt64, safeCount: UInt64) {
    state_.withLock { state in
      state.toldSafeCount = state.safeCount
      state.updateSignal()
      return (state.end ?? .open, state.givenCount, state.safeCount)
    }
  }

  /// A descriptor that is readable while there is news: of the state or of safe records, which `takeNews` tells, or of
  /// room where there was none, which `trySend` tries; and for ever after the end. It belongs to the sender.
  func signal() throws(SystemError) -> Int32 {
    try state_.withLock { state throws(SystemError) in
      if let number = state.signalNumber { return number }
      let made = try OwnedDescriptor(
        returnedBy: "eventfd", eventfd(0, Int32(EFD_NONBLOCK | EFD_CLOEXEC)))
      let number = made.rawValue
      state.signal = consume made
      state.updateSignal()
      return number
    }
  }

  func closeSignal() { state_.withLock { $0.signal = nil } }

  // MARK: The reactor's thread

  func becameReady(_ events: ReadinessMonitor.Events) {
    let (resumed, token) = state_.withLock { state in
      flush(&state)
      readReports(&state)
      if state.isRoomWanted, state.rest.isEmpty, events.contains(.write) {
        state.isRoomWanted = false
        state.hasNewRoom = true
      }
      state.updateSignal()
      for semaphore in state.threads.values { semaphore.post() }
      var resumed = state.senders
      state.senders = []
      resumed += state.waiters.filter { $0.number <= state.safeCount || state.end != nil }.map(\.continuation)
      state.waiters.removeAll { $0.number <= state.safeCount || state.end != nil }
      guard state.end == nil else {
        defer { state.token = nil }
        return (resumed, state.token)
      }
      arm(state)
      return (resumed, nil)
    }
    if let token { reactor.remove(token) }
    for continuation in resumed { continuation.resume() }
  }

  private func flush(_ state: inout State) {
    while !state.rest.isEmpty {
      let sent = state.rest.withUnsafeBytes {
        Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
      }
      if sent > 0 {
        state.rest = state.rest.dropFirst(sent)
      } else if sent < 0, errno == EINTR {
        continue
      } else {
        return
      }
    }
    if state.hasEndedWriting { _ = shutdown(descriptor, Int32(SHUT_WR)) }
  }

  private func readReports(_ state: inout State) {
    var chunk = [UInt8](repeating: 0, count: 64 * RecordReport.byteCount)
    while state.end == nil {
      let count = recv(descriptor, &chunk, chunk.count, Int32(MSG_DONTWAIT))
      if count < 0, errno == EINTR { continue }
      if count < 0, errno == EAGAIN { return }
      guard count > 0 else {
        state.end = .engineGone
        return
      }
      state.input += chunk[..<count]
      while state.input.count >= RecordReport.byteCount, state.end == nil {
        guard let report = try? RecordReport(reading: state.input.prefix(RecordReport.byteCount)) else {
          state.end = .engineGone
          return
        }
        state.input.removeFirst(RecordReport.byteCount)
        switch report.kind {
        case .safe: state.safeCount = max(state.safeCount, report.count)
        case .ended: state.end = .ended(accepted: report.count)
        case .moved: state.end = .moved(safe: report.count)
        }
      }
    }
  }
}

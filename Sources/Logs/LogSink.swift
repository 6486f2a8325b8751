// Theory of operation
//
// Whoever logs must never wait for whoever reads the log: the event loop renews the lease, and a full pipe would
// end it. So a line is only put into a queue, under a lock that is never held across a system call, and a thread
// writes. The queue is bounded; lines beyond are lost, and counted. Floods are cut before the queue, by a rate
// limit: one for what is news, one for what is trouble, so that no flood of news hides an error. Lines of the
// levels debug and trace are wanted in masses: only the queue bounds them. What was cut or lost is said in a line
// of its own as soon as it can be.
//
// Lines mostly come in crowds: several for each of a thousand sockets. So the thread waits a moment when it was woken,
// and writes in one piece what has come together; to be woken, and to write, for each line would cost the machine more
// than the line is worth.

import CLinux
import DequeModule
import Descriptors
import Glibc
public import Logging
import Synchronization

/// Where all loggers of a program log to. Never makes them wait.
public final class LogSink: Sendable {
  public enum Destination: Sendable, Hashable {
    /// An open descriptor, such as standard error; it stays open.
    case stream(Int32)
    /// The syslog daemon of this machine, at the path of its socket.
    case syslog(path: String)

    public static let standardError = Destination.stream(STDERR_FILENO)
    public static let syslog = Destination.syslog(path: SyslogSocket.defaultPath)
  }

  /// Bytes of lines that wait to be written, at most.
  private static let queueLimit = 8 << 20
  /// Lines that are taken from the queue together, at most.
  fileprivate static let batchLimit = 64
  /// How long lines may wait for company, in microseconds.
  private static let gatheringTime: UInt32 = 1_000
  /// How often it is tried to reach a syslog daemon that is not there, in microseconds.
  private static let retryInterval: UInt32 = 100_000

  fileprivate struct State {
    var queue = Deque<LogLine>()
    /// Bytes of lines that are in the queue, or are being written.
    var byteCount = 0
    /// Lines for which there was no room, since that was last told.
    var lostCount = 0
    var news: RateLimit
    var trouble: RateLimit
    var isClosed = false

    /// Whether everything that was to be written has been.
    var isIdle: Bool {
      byteCount == 0 && lostCount == 0 && news.reportDue == nil && trouble.reportDue == nil
    }
  }

  private let name: String
  private let destination: Destination
  private let levelNumber: Atomic<Int>
  private let wakeUp: OwnedDescriptor
  private let state: Mutex<State>

  /// Starts the thread. It keeps the sink alive until ``close(within:)``.
  ///
  /// - Parameters:
  ///   - name: The name of the program, for what the sink itself has to say.
  ///   - burst: Lines of the level info or notice that may come at once. As many warnings and errors may.
  ///   - rate: Lines a second that may follow.
  /// - Throws: if there are no more descriptors or threads.
  public init(
    name: String, destination: Destination, level: Logger.Level, burst: Int = 2_000, rate: Int = 1_000
  ) throws(SystemError) {
    self.name = name
    self.destination = destination
    levelNumber = Atomic(Self.number(of: level))
    wakeUp = try OwnedDescriptor(
      returnedBy: "eventfd", eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK)))
    let limit = RateLimit(burst: burst, rate: rate, now: .now)
    state = Mutex(State(news: limit, trouble: limit))

    var thread = pthread_t()
    let sink = Unmanaged.passRetained(self)
    let result = pthread_create(
      &thread, nil,
      { argument in
        guard let argument else { return nil }
        Unmanaged<LogSink>.fromOpaque(argument).takeRetainedValue().run()
        return nil
      }, sink.toOpaque())
    guard result == 0 else {
      sink.release()
      throw SystemError("pthread_create", code: result)
    }
    pthread_detach(thread)
  }

  /// A handler for `LoggingSystem.bootstrap`.
  public func handler(label: String) -> any LogHandler { SinkHandler(self, label: label) }

  // MARK: Level

  /// What loggers log that have no level of their own.
  public var level: Logger.Level { Logger.Level.allCases[levelNumber.load(ordering: .relaxed)] }

  /// In force for the next line, in every thread.
  public func setLevel(_ level: Logger.Level) {
    levelNumber.store(Self.number(of: level), ordering: .relaxed)
  }

  private static func number(of level: Logger.Level) -> Int { Logger.Level.allCases.firstIndex(of: level)! }

  // MARK: Lines

  /// Takes a line to be written. Returns at once.
  func take(_ line: LogLine) {
    let isFirst = state.withLock { state in
      guard !state.isClosed, state.admits(line) else { return false }
      guard state.byteCount + line.byteCount <= Self.queueLimit else {
        state.lostCount += 1
        return false
      }
      state.queue.append(line)
      state.byteCount += line.byteCount
      return state.queue.count == 1
    }
    if isFirst { eventfd_write(wakeUp.rawValue, 1) }
  }

  /// Waits until all lines are written, but not longer than `time`; then ends the thread. Lines that are logged
  /// later are dropped.
  public func close(within time: Duration) {
    let end = ContinuousClock.now + time
    state.withLock { $0.isClosed = true }
    eventfd_write(wakeUp.rawValue, 1)
    // Once in the life of a program: not worth a way for the thread to wake others.
    while state.withLock({ !$0.isIdle }), ContinuousClock.now < end { usleep(1_000) }
  }

  // MARK: The thread

  private func run() {
    jsr_name_thread("jsr-log")
    let write: ([LogLine]) -> Void
    switch destination {
    case .stream(let descriptor):
      write = { [self] batch in self.write(batch.flatMap { $0.streamForm() }, to: descriptor) }
    case .syslog(let path):
      let socket = SyslogSocket(path: path)
      write = { [self] batch in for line in batch { send(line, to: socket) } }
    }
    while true {
      let (batch, isClosed) = state.withLock { state in (state.takeBatch(name: name), state.isClosed) }
      write(batch)
      let written = batch.reduce(0) { $0 + $1.byteCount }
      let (isIdle, due) = state.withLock { state in
        state.byteCount -= written
        return (state.isIdle, state.reportDue)
      }
      if isClosed, isIdle { return }
      if batch.isEmpty {
        sleep(until: due)
        usleep(Self.gatheringTime)
      }
    }
  }

  /// Returns when there may be something to do.
  private func sleep(until due: ContinuousClock.Instant?) {
    var wait = pollfd(fd: wakeUp.rawValue, events: Int16(POLLIN), revents: 0)
    let milliseconds = due.map { due in max(1, Int32((due - .now) / .milliseconds(1)) + 1) }
    _ = poll(&wait, 1, milliseconds ?? -1)
    var count: eventfd_t = 0
    eventfd_read(wakeUp.rawValue, &count)
  }

  /// A reader that is gone has no use for the rest.
  private func write(_ bytes: [UInt8], to descriptor: Int32) {
    var rest = bytes[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
      if count > 0 {
        rest = rest.dropFirst(count)
      } else if errno == EAGAIN {
        var wait = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        _ = poll(&wait, 1, -1)
      } else if errno != EINTR {
        return
      }
    }
  }

  /// Without a daemon lines wait for one, in the queue; standard error is told, once.
  private func send(_ line: LogLine, to syslog: SyslogSocket) {
    let message = line.syslogForm(process: getpid())
    var isTold = false
    while true {
      do throws(SystemError) {
        return try syslog.send(message)
      } catch {
        if !isTold {
          isTold = true
          let complaint = LogLine(.error, label: name, "no syslog daemon, log lines wait: \(error)")
          write(complaint.streamForm(), to: STDERR_FILENO)
        }
        if state.withLock({ $0.isClosed }) { return }
        usleep(Self.retryInterval)
      }
    }
  }
}

extension LogSink.State {
  fileprivate mutating func admits(_ line: LogLine) -> Bool {
    switch line.level {
    case .trace, .debug: true
    case .info, .notice: news.admits(at: .now)
    case .warning, .error, .critical: trouble.admits(at: .now)
    }
  }

  /// When there will be something to say without another line being logged.
  fileprivate var reportDue: ContinuousClock.Instant? {
    [news.reportDue, trouble.reportDue].compactMap { $0 }.min()
  }

  /// The next lines to be written, which still count as being in the queue.
  fileprivate mutating func takeBatch(name: String) -> [LogLine] {
    var batch = Array(queue.prefix(LogSink.batchLimit))
    queue.removeFirst(batch.count)
    // What was lost comes behind the lines that there was room for.
    if queue.isEmpty, lostCount > 0 {
      add("\(lostCount) log lines lost: they came faster than the destination takes them", name, &batch)
      lostCount = 0
    }
    let now = ContinuousClock.now
    for report in [
      isClosed ? news.takeReport() : news.report(at: now),
      isClosed ? trouble.takeReport() : trouble.report(at: now),
    ] {
      guard let count = report else { continue }
      add("\(count) log lines suppressed: more than \(news.rate) a second", name, &batch)
    }
    return batch
  }

  private mutating func add(_ text: String, _ name: String, _ batch: inout [LogLine]) {
    let line = LogLine(.warning, label: name, text)
    batch.append(line)
    byteCount += line.byteCount
  }
}

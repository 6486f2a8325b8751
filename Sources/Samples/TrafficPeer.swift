import Descriptors
import Glibc

/// `jsrpeer`: makes connections, sends messages on them, checks every byte that comes back, and sums up.
///
/// A plain TCP program in one thread around epoll. It is the judge of everything else, so it takes nothing
/// for granted: every answer is compared with what was sent, byte for byte, and an end that it did not ask
/// for is a failure.
///
/// SIGINT, SIGTERM and the end of `duration` stop the sending; answers that are out are awaited until nothing
/// has come for 5 seconds. SIGUSR1 makes it a peer that sends but does not read, until SIGUSR2. SIGHUP
/// begins anew what is measured: times, gaps, bytes. What is verified goes on.
public final class TrafficPeer {
  /// One place for a connection; the connection itself is made anew in every round.
  private final class Seat {
    enum State {
      case connecting(OwnedSocket)
      case open(OwnedSocket)
      /// The sending direction is closed; the server's end is awaited.
      case closing(OwnedSocket)
      case over
    }

    var state: State
    let remote: SocketAddress
    var connection: PeerConnection
    var roundsLeft: UInt64
    // Of the rounds before this one.
    var sent: UInt64 = 0
    var answered: UInt64 = 0
    var longestGap: UInt64 = 0

    init(_ connection: PeerConnection, to remote: SocketAddress, rounds: UInt64) {
      self.connection = connection
      self.remote = remote
      roundsLeft = rounds
      state = .over
    }

    var socket: OwnedSocket? {
      switch state {
      case .connecting(let socket), .open(let socket), .closing(let socket): socket
      case .over: nil
      }
    }
  }

  /// A descriptor that an enumeration can carry.
  private final class OwnedSocket {
    let descriptor: OwnedDescriptor
    init(_ descriptor: consuming OwnedDescriptor) { self.descriptor = descriptor }
    var number: Int32 { descriptor.rawValue }
  }

  private static let readByteCount = 256 * 1024
  private static let tickMilliseconds: Int32 = 100
  /// How long a silence is borne after the sending has stopped, in nanoseconds.
  private static let patience: UInt64 = 5_000_000_000
  private static let failuresKept = 20

  private let options: TrafficPeerOptions
  private let line: LineOutput
  private let complaint: LineOutput
  private let signals: AwaitedSignals
  private let poll: EventPoll<Seat>
  private let remotes: [SocketAddress]
  private let local: SocketAddress?
  private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: readByteCount, alignment: 64)

  private var seats: [Seat] = []
  private var openSeats = 0
  /// Seats that wait until they may send again, the first one first: all wait equally long.
  private var pausing: [(seat: Seat, until: UInt64)] = []
  private var pausingHead = 0
  private var stoppedAt: UInt64?
  /// When something came last, on any connection.
  private var heardAt: UInt64 = 0
  private var isReading = true
  private var summary = TrafficSummary()
  private var histogram = LatencyHistogram()
  private var measuredSince: UInt64 = 0

  /// Finds the hosts; a name that is not known is seen here.
  public convenience init(_ options: TrafficPeerOptions) throws {
    try self.init(
      options, line: LineOutput(descriptor: STDOUT_FILENO), complaint: LineOutput(descriptor: STDERR_FILENO))
  }

  init(_ options: TrafficPeerOptions, line: LineOutput, complaint: LineOutput) throws {
    StreamSocket.raiseDescriptorLimit()
    self.line = line
    self.complaint = complaint
    self.options = options
    signals = try AwaitedSignals(SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGHUP)
    poll = try EventPoll()
    remotes = try options.hosts.map { try SocketAddress(host: $0, port: options.port, isNumeric: false) }
    local = try options.sourceAddress.map { try SocketAddress(host: $0, port: 0, isNumeric: true) }
  }

  deinit { buffer.deallocate() }

  /// Runs the traffic to its end.
  public func run() throws -> TrafficSummary {
    if !options.printsJSON { line(settings) }
    let start = MonotonicClock.nanoseconds
    measuredSince = start
    for number in 0..<options.connections {
      let seat = Seat(
        connection(UInt16(number)), to: remotes[number % remotes.count], rounds: options.rounds)
      seats.append(seat)
      openSeats += 1
      connect(seat)
    }

    let stopAt = options.duration.map { start + UInt64($0 * 1_000_000_000) }
    while openSeats > 0 {
      line.flush()
      complaint.flush()
      try poll.wait(milliseconds: waitingTime(stopAt), handle)
      let now = MonotonicClock.nanoseconds
      resumePaused(now)
      while let signal = signals.take() {
        switch signal {
        case SIGUSR1: read(false)
        case SIGUSR2: read(true)
        case SIGHUP: measureAnew(now)
        default: stop(now)
        }
      }
      if let stopAt, now >= stopAt { stop(now) }
      if let stoppedAt, now >= max(stoppedAt, heardAt) + Self.patience { break }
    }
    let end = MonotonicClock.nanoseconds
    for seat in seats where seat.socket != nil {
      fail(seat, "\(seat.connection.outstanding) answers did not come in time")
    }
    finishSummary(nanoseconds: end - measuredSince)
    line(options.printsJSON ? summary.json : summary.text)
    line.flush()
    complaint.flush()
    return summary
  }

  // MARK: Connections

  private func connection(_ number: UInt16) -> PeerConnection {
    let kind: MessageHeader.Kind =
      switch options.kind {
      case .echo: .echo
      case .sink: .sink
      case .source: .source
      }
    return PeerConnection(
      number: number, kind: kind, length: options.length, messages: options.messages,
      pipeline: options.pipeline)
  }

  private func connect(_ seat: Seat) {
    do {
      let socket = OwnedSocket(
        try StreamSocket.connecting(to: seat.remote, from: local, signingKey: options.signingKey))
      try StreamSocket.sendAtOnce(socket.number)
      try poll.add(socket.number, .write, seat)
      seat.state = .connecting(socket)
    } catch {
      summary.connectFailures += 1
      note("connection \(seat.connection.number): \(error)")
      leave(seat)
    }
  }

  private func handle(_ seat: Seat, _ readiness: EventPoll<Seat>.Readiness) {
    if case .connecting(let socket) = seat.state {
      let code = StreamSocket.connectError(socket.number)
      guard code == 0 else {
        summary.connectFailures += 1
        note("connection \(seat.connection.number) to \(seat.remote): \(String(cString: strerror(code)))")
        return leave(seat)
      }
      summary.connections += 1
      seat.state = .open(socket)
      if options.isVerbose, !options.isQuiet {
        line("connection \(seat.connection.number) to \(seat.remote) is up, fd \(socket.number)")
      }
      return send(seat)
    }
    if readiness.canRead { receive(seat) }
    if readiness.canWrite { send(seat) }
  }

  private func send(_ seat: Seat) {
    guard case .open(let socket) = seat.state else { return }
    let connection = seat.connection
    while true {
      let now = MonotonicClock.nanoseconds
      connection.fill(now: now, mayBegin: stoppedAt == nil)
      if connection.output.isEmpty { break }
      switch connection.output.withBytes({ StreamSocket.write(socket.number, $0) }) {
      case .bytes(let count):
        summary.bytesSent += UInt64(count)
        connection.wrote(count, now: now)
        // A socket that took a part is full.
        if !connection.output.isEmpty { return watch(seat, [.read, .write]) }
      case .notNow, .ended: return watch(seat, [.read, .write])
      case .failed(let code): return broken(seat, code)
      }
    }
    watch(seat, .read)
    if connection.hasBegunAll || stoppedAt != nil { sentAll(seat, socket) }
  }

  /// Everything that will be sent is written.
  private func sentAll(_ seat: Seat, _ socket: OwnedSocket) {
    guard !seat.connection.isInsideMessage else { return }
    if options.halfCloses {
      seat.state = .closing(socket)
      _ = shutdown(socket.number, Int32(SHUT_WR))
    } else if seat.connection.outstanding == 0 {
      leave(seat)
    }
  }

  /// Begins to read, or ceases.
  private func read(_ isReading: Bool) {
    self.isReading = isReading
    for seat in seats {
      switch seat.state {
      case .open: watch(seat, seat.connection.output.isEmpty ? .read : [.read, .write])
      case .closing: watch(seat, .read)
      case .connecting, .over: break
      }
    }
  }

  private func receive(_ seat: Seat) {
    guard let socket = seat.socket else { return }
    switch StreamSocket.read(socket.number, into: buffer) {
    case .bytes(let count):
      heardAt = MonotonicClock.nanoseconds
      summary.bytesReceived += UInt64(count)
      take(UnsafeRawBufferPointer(rebasing: buffer[..<count]), seat)
    case .ended:
      if case .closing = seat.state, seat.connection.outstanding == 0 { return leave(seat) }
      summary.unexpectedEnds += 1
      fail(seat, "the server has closed with \(seat.connection.outstanding) answers to come")
    case .notNow: break
    case .failed(let code): broken(seat, code)
    }
  }

  private func take(_ bytes: UnsafeRawBufferPointer, _ seat: Seat) {
    let now = MonotonicClock.nanoseconds
    let connection = seat.connection
    var didAnswer = false
    do throws(PeerConnection.Failure) {
      try connection.received(bytes, now: now) { answer in
        didAnswer = true
        if answer.answeredBy == 0 { summary.echoedByRe0 += 1 } else { summary.echoedByRe1 += 1 }
        histogram.record(answer.roundTrip)
        if !options.isQuiet { line(text(of: answer, connection)) }
      }
    } catch {
      if case .mismatch = error { summary.mismatched += 1 }
      return fail(seat, "\(error)")
    }
    guard didAnswer else { return }
    if options.pauseMilliseconds > 0, stoppedAt == nil, !connection.hasBegunAll {
      connection.notBefore = now + options.pauseMilliseconds * 1_000_000
      pausing.append((seat, connection.notBefore))
    } else {
      send(seat)
    }
    if case .open(let socket) = seat.state, connection.output.isEmpty,
      connection.hasBegunAll || stoppedAt != nil
    {
      sentAll(seat, socket)
    }
  }

  private func text(of answer: PeerConnection.Answer, _ connection: PeerConnection) -> String {
    let bytes = UInt64(options.length) + UInt64(MessageHeader.byteCount)
    let microseconds = Double(answer.roundTrip / 100) / 10
    return "connection \(connection.number) message \(answer.number): \(bytes) bytes, RE\(answer.answeredBy),"
      + " \(microseconds) µs"
      + (options.isVerbose ? ", every byte right up to \(connection.receivedPosition)" : "")
  }

  private func watch(_ seat: Seat, _ interest: EventPoll<Seat>.Interest) {
    guard let socket = seat.socket else { return }
    do {
      try poll.change(socket.number, to: isReading ? interest : interest.subtracting(.read))
    } catch {
      fail(seat, "\(error)")
    }
  }

  private func broken(_ seat: Seat, _ code: Int32) {
    summary.unexpectedEnds += 1
    if code == ECONNRESET || code == EPIPE { summary.resets += 1 }
    fail(
      seat, "\(String(cString: strerror(code))) with \(seat.connection.outstanding) answers to come")
  }

  private func fail(_ seat: Seat, _ reason: String) {
    note(
      "connection \(seat.connection.number) after \(seat.connection.answered) answers and"
        + " \(seat.connection.receivedPosition) bytes: \(reason)")
    seat.roundsLeft = 1
    leave(seat)
  }

  /// The connection is over, well or badly; the next round begins if there is one.
  private func leave(_ seat: Seat) {
    let connection = seat.connection
    connection.noteGap(now: MonotonicClock.nanoseconds)
    if let socket = seat.socket { poll.remove(socket.number) }
    seat.state = .over
    seat.sent += UInt64(connection.begun)
    seat.answered += connection.answered
    seat.longestGap = max(seat.longestGap, connection.longestGap)
    summary.repeated += connection.repeated
    seat.roundsLeft -= 1
    if seat.roundsLeft > 0, stoppedAt == nil {
      seat.connection = self.connection(connection.number)
      connect(seat)
    } else {
      openSeats -= 1
    }
  }

  // MARK: Time

  private func waitingTime(_ stopAt: UInt64?) -> Int32 {
    var until = pausingHead < pausing.count ? pausing[pausingHead].until : UInt64.max
    if let stopAt { until = min(until, stopAt) }
    let now = MonotonicClock.nanoseconds
    guard until > now else { return 0 }
    return Int32(min(UInt64(Self.tickMilliseconds), (until - now + 999_999) / 1_000_000))
  }

  private func resumePaused(_ now: UInt64) {
    while pausingHead < pausing.count, pausing[pausingHead].until <= now {
      let seat = pausing[pausingHead].seat
      pausingHead += 1
      send(seat)
    }
    if pausingHead > 1024 || pausingHead == pausing.count {
      pausing.removeFirst(pausingHead)
      pausingHead = 0
    }
  }

  private func stop(_ now: UInt64) {
    guard stoppedAt == nil else { return }
    stoppedAt = now
    if !options.printsJSON { line("no more is sent, answers are awaited until nothing has come for 5 s") }
    for seat in seats {
      if case .connecting = seat.state {
        summary.connectFailures += 1
        note("connection \(seat.connection.number) to \(seat.remote): not up in time")
        leave(seat)
      }
      send(seat)
    }
  }

  // MARK: Results

  private func measureAnew(_ now: UInt64) {
    measuredSince = now
    histogram = LatencyHistogram()
    summary.bytesSent = 0
    summary.bytesReceived = 0
    for seat in seats {
      seat.longestGap = 0
      seat.connection.forgetGaps(now: now)
    }
  }

  private func note(_ failure: String) {
    if summary.failures.count < Self.failuresKept { summary.failures.append(failure) }
    complaint(failure)
  }

  private func finishSummary(nanoseconds: UInt64) {
    func rounded(_ value: Double) -> Double { (value * 10).rounded() / 10 }
    func milliseconds(_ nanoseconds: UInt64) -> Double { rounded(Double(nanoseconds) / 1_000_000) }
    func microseconds(_ nanoseconds: UInt64) -> Double { rounded(Double(nanoseconds) / 1_000) }
    func megabits(_ bytes: UInt64) -> Double {
      rounded(Double(bytes) * 8_000 / Double(max(nanoseconds, 1)))
    }
    summary.perConnection = seats.map { seat in
      TrafficSummary.Connection(
        connection: seat.connection.number, sent: seat.sent, answered: seat.answered,
        longestGapMs: milliseconds(seat.longestGap))
    }
    summary.sent = seats.reduce(0) { $0 + $1.sent }
    let answered = seats.reduce(0) { $0 + $1.answered }
    summary.lost = summary.sent - answered - summary.mismatched
    summary.longestGapMs = summary.perConnection.map(\.longestGapMs).max() ?? 0
    summary.roundTripUs = TrafficSummary.RoundTrip(
      count: histogram.count, p50: microseconds(histogram.percentile(0.5)),
      p90: microseconds(histogram.percentile(0.9)), p99: microseconds(histogram.percentile(0.99)),
      p999: microseconds(histogram.percentile(0.999)), max: microseconds(histogram.maximum))
    summary.durationMs = milliseconds(nanoseconds)
    summary.mbitPerSecondSent = megabits(summary.bytesSent)
    summary.mbitPerSecondReceived = megabits(summary.bytesReceived)
    summary.mbitPerSecond = max(summary.mbitPerSecondSent, summary.mbitPerSecondReceived)
    summary.isClean =
      summary.failures.isEmpty && summary.lost == 0 && summary.repeated == 0 && summary.mismatched == 0
      && summary.unexpectedEnds == 0 && summary.connectFailures == 0
      && seats.allSatisfy { $0.answered >= 1 }
  }

  private var settings: String {
    var words = [
      "jsrpeer",
      "\(options.connections) connections to \(remotes.map(\.description).joined(separator: " and "))",
      "\(options.messages == 0 ? "endless" : "\(options.messages)") messages of \(options.length) bytes",
      "kind \(options.kind.rawValue)", "\(options.pauseMilliseconds) ms between them",
      "\(options.pipeline) on their way at once",
    ]
    if let local { words.append("from \(local.host)") }
    if options.rounds > 1 { words.append("\(options.rounds) rounds") }
    if let duration = options.duration { words.append("for \(duration) s") }
    if options.halfCloses { words.append("half-closing") }
    return words.joined(separator: ", ")
  }
}

import Packet
import Replication
import Simulation

/// Two TCPs, their applications, and a network between them that loses, doubles and reorders as the seed
/// says. Whatever no network may ever see is noted as it happens.
struct ModelTCPNetwork {
  struct Plan {
    /// Of 100 segments, so many are lost, and so many come twice.
    var lost = 0
    var doubled = 0
    /// A segment takes between 1 ms and this.
    var longestDelay: Int64 = 1
    /// What each end writes before it closes.
    var totals = [0, 0]
    /// Which end closes only after it has read everything; `nil`: neither waits for the other.
    var lastToClose: Int?
    /// Reads come this far apart, at most.
    var longestPause: Int64 = 10
  }

  private struct Flight {
    var arrival: Instant
    var to: Int
    var segment: ModelTCP.Output
  }

  static let start = Instant(nanoseconds: 5_000_000_000)

  var ends: [ModelTCP]
  var plan: Plan
  private(set) var now = start
  private(set) var written = [0, 0]
  private(set) var read = [0, 0]
  private(set) var violations: [String] = []
  /// Everything that was sent, in order.
  private(set) var sent: [(from: Int, segment: ModelTCP.Output)] = []
  private var acknowledgments: [SequenceNumber?] = [nil, nil]
  private var edges: [SequenceNumber?] = [nil, nil]
  private var flights: [Flight] = []
  private var generator: SeededGenerator
  private var nextStep = [start, start]

  init(
    seed: UInt64, plan: Plan, options: [ModelTCP.Options] = [.init(), .init()],
    starts: [UInt32] = [4_294_967_000, 4_294_960_000]
  ) {
    generator = SeededGenerator(seed: seed)
    self.plan = plan
    ends = [0, 1].map { end in
      var own = options[end]
      own.sendWindowScale = options[1 - end].windowScale
      own.initialSendWindow = options[1 - end].capacity
      return ModelTCP(
        sendFrom: SequenceNumber(starts[end]), receiveFrom: SequenceNumber(starts[1 - end]), options: own,
        timestampOffset: UInt32.max - 6_000, now: Self.start)
    }
  }

  /// The byte that `end` writes at `position`.
  static func byte(_ end: Int, _ position: Int) -> UInt8 {
    UInt8(truncatingIfNeeded: position &* 7 &+ position >> 8 &+ end &* 101)
  }

  var haveEnded: Bool { ends.allSatisfy(\.hasEnded) && read == [plan.totals[1], plan.totals[0]] }

  // MARK: Applications

  mutating func write(_ end: Int, _ count: Int) {
    ends[end].write((written[end]..<written[end] + count).map { Self.byte(end, $0) })
    written[end] += count
    transmit(end)
  }

  mutating func read(_ end: Int, atMost limit: Int = .max) {
    for byte in ends[end].read(atMost: limit) {
      if byte != Self.byte(1 - end, read[end]) { violations.append("end \(end): byte \(read[end]) is wrong") }
      read[end] += 1
    }
    transmit(end)
  }

  mutating func close(_ end: Int) {
    ends[end].close()
    transmit(end)
  }

  private mutating func step(_ end: Int) {
    let writable = min(ends[end].writableByteCount, plan.totals[end] - written[end])
    if writable > 0 {
      write(end, Int.random(in: 1...writable, using: &generator))
    } else if written[end] == plan.totals[end], !ends[end].isClosed,
      plan.lastToClose != end || ends[end].peerHasClosed
    {
      close(end)
    }
    if ends[end].readableByteCount > 0 {
      read(end, atMost: Int.random(in: 1...ends[end].readableByteCount, using: &generator))
    }
  }

  // MARK: Wire

  private mutating func transmit(_ end: Int) { launch(ends[end].output(now: now), from: end) }

  private mutating func launch(_ segments: [ModelTCP.Output], from end: Int) {
    for segment in segments {
      check(segment, from: end)
      sent.append((end, segment))
      let copies = Int.random(in: 0..<100, using: &generator)
      let count = copies < plan.lost ? 0 : copies < plan.lost + plan.doubled ? 2 : 1
      for _ in 0..<count {
        let delay = Int64.random(in: 1...plan.longestDelay, using: &generator)
        let flight = Flight(arrival: now + .milliseconds(delay), to: 1 - end, segment: segment)
        let place = flights.firstIndex { $0.arrival > flight.arrival } ?? flights.count
        flights.insert(flight, at: place)
      }
    }
  }

  private mutating func check(_ segment: ModelTCP.Output, from end: Int) {
    let scale = Int(ends[end].options.windowScale)
    let edge = segment.acknowledgment + Int(segment.window) << scale
    if let last = acknowledgments[end], segment.acknowledgment < last {
      violations.append("end \(end) took an acknowledgement back")
    }
    if let last = edges[end], edge < last, !ends[end].options.shrinksWindow {
      violations.append("end \(end) took \(last - edge) bytes of its window back")
    }
    acknowledgments[end] = segment.acknowledgment
    edges[end] = edge
    // Once more than the first segment may be sent into a window that was closed over it.
    if let limit = edges[1 - end], !ends[1 - end].options.shrinksWindow, !segment.payload.isEmpty,
      segment.sequence + segment.payload.count > limit
    {
      violations.append("end \(end) sent beyond the window")
    }
    if segment.payload.count > ends[end].options.segmentSize { violations.append("end \(end): too long") }
  }

  mutating func deliver(_ segment: ModelTCP.Output, to end: Int) {
    let header = TCPSegment(
      sequence: segment.sequence, acknowledgment: segment.acknowledgment, flags: segment.flags,
      window: segment.window, timestamps: segment.timestamps, payload: 0..<segment.payload.count)
    segment.payload.withUnsafeBytes { ends[end].receive(header, $0, now: now) }
    if ends[end].heardOfTheUnsent { violations.append("end \(end) heard of what it never sent") }
    transmit(end)
  }

  // MARK: Running

  /// Runs until both directions have ended at both ends; that it does not come to that is a violation.
  mutating func run(within limit: Nanoseconds = .seconds(1_200)) {
    let end = now + limit
    while !haveEnded || !flights.isEmpty || ends.contains(where: { $0.deadline != nil }) {
      guard violations.isEmpty else { return }
      guard advance(), now < end else { return violations.append("no end within \(limit.milliseconds) ms") }
    }
  }

  /// Lets everything that is on its way arrive, without waiting for timers.
  mutating func settle() {
    while let flight = flights.first {
      now = max(now, flight.arrival)
      flights.removeFirst()
      deliver(flight.segment, to: flight.to)
    }
  }

  /// Passes time without applications: segments arrive and timers run.
  mutating func wait(_ time: Nanoseconds) {
    let end = now + time
    while let next = nextEvent, next <= end { happen(next) }
    now = end
  }

  mutating func loseAll() { flights = [] }

  private var nextEvent: Instant? {
    ([flights.first?.arrival] + ends.map(\.deadline)).compactMap { $0 }.min()
  }

  private mutating func happen(_ next: Instant) {
    now = max(now, next)
    if let flight = flights.first, flight.arrival <= now {
      flights.removeFirst()
      return deliver(flight.segment, to: flight.to)
    }
    for end in 0...1 {
      if let deadline = ends[end].deadline, deadline <= now { launch(ends[end].expire(now: now), from: end) }
    }
  }

  private mutating func advance() -> Bool {
    let step = haveEnded ? nil : nextStep.min()
    guard let next = [step, nextEvent].compactMap({ $0 }).min() else { return false }
    if next == nextEvent { happen(next) } else { now = next }
    for end in 0...1 where nextStep[end] <= now {
      self.step(end)
      let pause = Int64.random(in: 1...plan.longestPause, using: &generator)
      nextStep[end] = now + .milliseconds(pause)
    }
    return true
  }
}

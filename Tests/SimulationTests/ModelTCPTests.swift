import Packet
import Simulation
import Testing

@testable import Replication

/// The TCP that the simulation puts at both ends of each connection.
@Suite struct ModelTCPTests {
  // MARK: Streams

  private static func options(_ seed: UInt64) -> [ModelTCP.Options] {
    var generator = SeededGenerator(seed: seed &* 31)
    return (0...1).map { _ in
      var options = ModelTCP.Options()
      options.segmentSize = Int.random(in: 20...150, using: &generator)
      options.windowScale = UInt8.random(in: 0...5, using: &generator)
      options.capacity = Int.random(in: 200...2_000, using: &generator)
      options.sendCapacity = Int.random(in: 100...4_000, using: &generator)
      options.delayedAck = Bool.random(using: &generator) ? .milliseconds(40) : nil
      options.timestamps = seed % 4 != 0
      options.shrinksWindow = Int.random(in: 0..<4, using: &generator) == 0
      options.sendsFINBeyondWindow = Bool.random(using: &generator)
      return options
    }
  }

  @Test(
    "Both streams arrive byte-exact and end, over a network that loses, doubles and reorders",
    arguments: 0..<200 as Range<UInt64>)
  func streams(seed: UInt64) {
    var plan = ModelTCPNetwork.Plan(
      lost: Int(seed % 20), doubled: Int(seed % 7), longestDelay: Int64(1 + seed % 60),
      totals: [Int(seed * 131 % 9_000), Int(seed * 517 % 9_000)], longestPause: Int64(2 + seed % 30))
    plan.lastToClose = [nil, 0, 1][Int(seed / 7 % 3)]
    var network = ModelTCPNetwork(seed: seed, plan: plan, options: Self.options(seed))
    network.run()
    #expect(network.violations == [])
    #expect(network.read == [plan.totals[1], plan.totals[0]])
    #expect(network.ends.allSatisfy { $0.hasEnded && $0.deadline == nil })
  }

  @Test("The same seed gives the same segments")
  func determinism() {
    func play() -> [ModelTCP.Output] {
      let plan = ModelTCPNetwork.Plan(lost: 10, doubled: 5, longestDelay: 30, totals: [3_000, 3_000])
      var network = ModelTCPNetwork(seed: 4, plan: plan)
      network.run()
      #expect(network.haveEnded)
      return network.sent.map(\.segment)
    }
    let first = play()
    #expect(first.count > 60)
    #expect(first == play())
  }

  @Test("Each direction ends on its own: after the peer's FIN there is still a stream to send")
  func halfClose() {
    var network = ModelTCPNetwork(seed: 1, plan: .init(totals: [100, 500]))
    network.write(0, 100)
    network.close(0)
    network.settle()
    #expect(network.ends[1].peerHasClosed)
    #expect(network.ends[0].finIsAcknowledged)
    network.write(1, 500)
    network.settle()
    network.read(0)
    network.read(1)
    #expect(network.read == [500, 100])
    #expect(!network.ends[0].hasEnded)
    network.close(1)
    network.settle()
    #expect(network.haveEnded)
    #expect(network.violations == [])
  }

  // MARK: Windows

  @Test("A closed window opens again when the application reads", arguments: [false, true])
  func closedWindow(updateIsLost: Bool) {
    var network = ModelTCPNetwork(seed: 1, plan: .init())
    network.write(0, 3_000)
    network.settle()
    #expect(network.ends[1].readableByteCount == 1_000)
    #expect(network.ends[0].sendWindow == 0)
    network.wait(.seconds(20))
    #expect(network.ends[1].readableByteCount == 1_000)
    // Probes bring no bytes, and come ever more seldom.
    let probes = network.sent.filter { $0.from == 0 }.dropFirst(10)
    #expect(probes.allSatisfy { $0.segment.payload.isEmpty })
    #expect((4...9).contains(probes.count))

    for _ in 0..<3 {
      network.read(1)
      if updateIsLost {
        network.loseAll()
        network.wait(.seconds(5))
      }
      network.settle()
    }
    #expect(network.read[1] == 3_000)
    #expect(network.violations == [])
  }

  @Test("A read is told to the peer at once when the window at least doubles, not for every byte")
  func windowUpdates() {
    var network = ModelTCPNetwork(seed: 1, plan: .init())
    network.write(0, 600)
    network.settle()
    let before = network.sent.count
    network.read(1, atMost: 1)
    #expect(network.sent.count == before)
    network.read(1, atMost: 399)
    #expect(network.sent.count == before + 1)
    #expect(network.sent.last?.segment.window == 200)
  }

  @Test("A window that not even one segment fits into stays closed")
  func sillyWindow() {
    var network = ModelTCPNetwork(seed: 1, plan: .init())
    network.write(0, 1_000)
    network.settle()
    let before = network.sent.count
    network.read(1, atMost: 99)
    #expect(network.sent.count == before)
    network.read(1, atMost: 1)
    #expect(network.sent.last?.segment.window == 25)
  }

  @Test("When the window was taken back from over what was sent, all stays inside of it as far as it can")
  func sendingIntoAShrunkenWindow() {
    var lone = Lone()
    lone.tcp.write([UInt8](repeating: 1, count: 1_000))
    #expect(lone.output().count == 10)
    lone.receive(at: 0, count: 10, acknowledging: 100, window: 50)
    #expect(lone.output().map(\.sequence) == [Lone.start + 300])
    lone.receive(at: 10, count: 10, acknowledging: 100, window: 15)
    #expect(lone.tcp.retransmission(now: lone.now).map(\.payload.count) == [60])
    lone.receive(at: 20, count: 10, acknowledging: 100, window: 0)
    #expect(lone.tcp.retransmission(now: lone.now).map(\.payload.count) == [100])
  }

  @Test("Only who is asked to takes a window back, and then the stream goes on all the same")
  func shrinkingWindow() {
    for shrinks in [false, true] {
      var options = ModelTCP.Options()
      options.shrinksWindow = shrinks
      var network = ModelTCPNetwork(
        seed: 3, plan: .init(totals: [5_000, 0], longestPause: 60), options: [.init(), options])
      network.run()
      #expect(network.haveEnded)
      var edge = SequenceNumber(4_294_967_000)
      var wentBack = false
      for (from, segment) in network.sent where from == 1 {
        let next = segment.acknowledgment + Int(segment.window) << 2
        wentBack = wentBack || next < edge
        edge = next
      }
      #expect(wentBack == shrinks)
    }
  }

  @Test("What reaches beyond the window is taken as a whole into an empty queue, and not at all otherwise")
  func beyondTheWindow() {
    var one = Lone()
    one.receive(at: 0, count: 1_100)
    #expect(one.tcp.readableByteCount == 1_100)
    #expect(one.output().first?.window == 0)

    var two = Lone()
    two.receive(at: 0, count: 100)
    _ = two.output()
    two.receive(at: 100, count: 1_000)
    #expect(two.tcp.readableByteCount == 100)
    #expect(two.output().first?.acknowledgment == Lone.peerStart + 100)
    two.receive(at: 100, count: 900, fin: true)
    #expect(two.tcp.readableByteCount == 1_000)
    #expect(two.tcp.peerHasClosed)
  }

  @Test("A FIN waits for the window, except with those that do not let it", arguments: [false, true])
  func finAndWindow(beyond: Bool) {
    var options = ModelTCP.Options()
    options.sendsFINBeyondWindow = beyond
    var network = ModelTCPNetwork(seed: 1, plan: .init(), options: [options, .init()])
    network.write(0, 1_000)
    network.close(0)
    network.settle()
    #expect(network.ends[1].peerHasClosed == beyond)
    network.read(1)
    network.settle()
    #expect(network.ends[1].peerHasClosed)
    #expect(network.ends[0].finIsAcknowledged)
  }

  @Test("A FIN does not leave with bytes that fill the window")
  func finBehindAFullWindow() {
    var lone = Lone()
    lone.tcp.write([UInt8](repeating: 1, count: 1_000))
    lone.tcp.close()
    #expect(lone.output().allSatisfy { !$0.flags.contains(.fin) })
    #expect(lone.tcp.sendNext == Lone.start + 1_000)
    lone.receive(acknowledging: 1, window: 250)
    #expect(lone.output().map(\.flags) == [[.ack, .fin]])
  }

  // MARK: Acknowledgements and timers

  @Test("A delayed acknowledgement waits for its time, but not for a second segment, a gap or a FIN")
  func delayedAcknowledgements() {
    var options = ModelTCP.Options()
    options.delayedAck = .milliseconds(40)
    var lone = Lone(options)
    lone.receive(at: 0, count: 10)
    #expect(lone.output() == [])
    #expect(lone.tcp.deadline == lone.now + .milliseconds(40))
    lone.now = lone.now + .milliseconds(39)
    #expect(lone.tcp.expire(now: lone.now) == [])
    lone.now = lone.now + .milliseconds(1)
    #expect(lone.tcp.expire(now: lone.now).map(\.acknowledgment) == [Lone.peerStart + 10])
    #expect(lone.tcp.deadline == nil)

    lone.receive(at: 10, count: 10)
    #expect(lone.output() == [])
    lone.receive(at: 20, count: 10)
    #expect(lone.output().map(\.acknowledgment) == [Lone.peerStart + 30])

    lone.receive(at: 40, count: 10)
    #expect(lone.output().map(\.acknowledgment) == [Lone.peerStart + 30])
    lone.receive(at: 30, count: 10)
    #expect(lone.output().map(\.acknowledgment) == [Lone.peerStart + 50])

    lone.receive(at: 50, count: 10, fin: true)
    #expect(lone.output().map(\.acknowledgment) == [Lone.peerStart + 61])
  }

  @Test("Data carries the acknowledgement that is due")
  func piggyback() {
    var lone = Lone()
    lone.receive(at: 0, count: 10)
    lone.tcp.write([1, 2, 3])
    let output = lone.output()
    #expect(output.count == 1)
    #expect(output.first?.acknowledgment == Lone.peerStart + 10)
    #expect(output.first?.payload == [1, 2, 3])
  }

  @Test("Timeouts double up to a limit, progress sets them back, and what is lost last comes last")
  func retransmissionTimer() throws {
    var lone = Lone()
    lone.tcp.write([UInt8](repeating: 1, count: 250))
    #expect(lone.output().map(\.payload.count) == [100, 100, 50])
    for milliseconds in [200, 400, 800, 1_600, 3_200, 4_000, 4_000] as [Int64] {
      let deadline = try #require(lone.tcp.deadline)
      #expect(deadline == lone.now + .milliseconds(milliseconds))
      lone.now = deadline
      let again = lone.tcp.expire(now: deadline)
      #expect(again.map(\.sequence) == [Lone.start])
      #expect(again.map(\.payload.count) == [100])
    }
    // What follows was lost as well.
    lone.receive(acknowledging: 100)
    #expect(lone.output().map(\.sequence) == [Lone.start + 100])
    #expect(lone.tcp.deadline == lone.now + .milliseconds(200))
    lone.receive(acknowledging: 250)
    #expect(lone.output() == [])
    #expect(lone.tcp.deadline == nil)
  }

  @Test("Three duplicate acknowledgements are a loss, two are not")
  func fastRetransmit() {
    var lone = Lone()
    lone.tcp.write([UInt8](repeating: 1, count: 500))
    _ = lone.output()
    for _ in 0..<2 {
      lone.receive(acknowledging: 0)
      #expect(lone.output() == [])
    }
    lone.receive(acknowledging: 0)
    #expect(lone.output().map(\.sequence) == [Lone.start])
    lone.receive(acknowledging: 0)
    #expect(lone.output() == [])
    #expect(lone.tcp.resentSegments == 1)
  }

  @Test("An acknowledgement of what was never sent is answered and not believed; so is a very old one")
  func wrongAcknowledgements() {
    var lone = Lone()
    lone.tcp.write([UInt8](repeating: 1, count: 100))
    _ = lone.output()
    lone.receive(at: 0, count: 10, acknowledging: 101)
    #expect(lone.tcp.heardOfTheUnsent)
    #expect(lone.tcp.readableByteCount == 0)
    #expect(lone.output().map(\.acknowledgment) == [Lone.peerStart])
    #expect(lone.tcp.sendUnacknowledged == Lone.start)

    lone.now = lone.now + .milliseconds(500)
    lone.receive(acknowledging: 100)
    lone.receive(at: 0, count: 10, acknowledging: -1)
    #expect(lone.tcp.readableByteCount == 0)
    #expect(lone.output().map(\.acknowledgment) == [Lone.peerStart])
    lone.receive(at: 0, count: 10, acknowledging: 0)
    #expect(lone.tcp.readableByteCount == 10)
  }

  @Test("The window is taken from the later segment, whichever comes last")
  func windowUpdateOrder() {
    var lone = Lone()
    lone.receive(at: 0, count: 10, window: 100)
    #expect(lone.tcp.sendWindow == 1_000)
    lone.receive(at: 10, count: 0, window: 100)
    #expect(lone.tcp.sendWindow == 400)
    lone.receive(at: 20, count: 10, window: 50)
    #expect(lone.tcp.sendWindow == 200)
    lone.receive(at: 10, count: 10, window: 250)
    #expect(lone.tcp.sendWindow == 200)
    lone.receive(at: 20, count: 0, window: 40)
    #expect(lone.tcp.sendWindow == 200)
    lone.receive(at: 20, count: 0, window: 60)
    #expect(lone.tcp.sendWindow == 240)
    lone.receive(at: 20, count: 0, window: 0)
    #expect(lone.tcp.sendWindow == 0)
  }

  @Test("Two ends that disagree do not answer each other for ever")
  func disagreement() {
    var network = ModelTCPNetwork(seed: 1, plan: .init())
    var stranger = ModelTCP.Output(
      sequence: SequenceNumber(1), acknowledgment: SequenceNumber(1), flags: .ack, window: 0,
      timestamps: TCPTimestamps(value: 0, echo: 0), payload: [])
    stranger.sequence = network.ends[0].sendNext + 5_000
    stranger.acknowledgment = network.ends[1].sendNext
    for _ in 0..<20 {
      network.deliver(stranger, to: 1)
      network.wait(.milliseconds(100))
    }
    #expect((3...5).contains(network.sent.count))
  }

  // MARK: Resets

  @Test("A reset counts if its number is exact; another in the window is challenged, one outside ignored")
  func resets() {
    var lone = Lone()
    lone.receive(at: 0, count: 10)
    _ = lone.output()
    lone.receive(at: 11, flags: [.rst, .ack])
    #expect(!lone.tcp.isReset)
    #expect(lone.output().map(\.flags) == [.ack])
    lone.now = lone.now + .seconds(1)
    lone.receive(at: 5_000, flags: .rst)
    lone.receive(at: 0, flags: .rst)
    #expect(!lone.tcp.isReset)
    #expect(lone.output() == [])
    lone.tcp.write([1])
    _ = lone.output()
    lone.receive(at: 10, flags: .rst)
    #expect(lone.tcp.isReset)
    #expect(lone.tcp.isDead)
    #expect(lone.tcp.deadline == nil)
    lone.receive(at: 10, count: 10)
    #expect(lone.output() == [])
    #expect(lone.tcp.read().count == 10)
  }

  @Test("A reset after a FIN may be numbered as if there had been none")
  func resetAfterFIN() {
    var lone = Lone()
    lone.receive(at: 0, count: 10, fin: true)
    _ = lone.output()
    lone.receive(at: 9, flags: .rst)
    #expect(!lone.tcp.isReset)
    lone.receive(at: 10, flags: .rst)
    #expect(lone.tcp.isReset)
  }

  @Test("Giving up a connection resets the other end, and nothing is sent afterwards")
  func abort() {
    var network = ModelTCPNetwork(seed: 1, plan: .init())
    network.write(0, 500)
    network.settle()
    network.write(1, 10)
    let reset = network.ends[0].abort(now: network.now)
    #expect(reset.flags.contains(.rst))
    network.settle()
    network.deliver(reset, to: 1)
    #expect(network.ends[1].isReset)
    #expect(network.ends[0].isDead)
    #expect(network.ends.allSatisfy { $0.deadline == nil && $0.writableByteCount == 0 })
  }

  // MARK: Timestamps

  @Test("A segment older than the last by more than one tick is answered and discarded")
  func oldDuplicates() {
    var lone = Lone()
    lone.receive(at: 0, count: 10, timestamp: 1_000)
    #expect(lone.output().first?.timestamps?.echo == 1_000)
    lone.receive(at: 10, count: 10, timestamp: 998)
    #expect(lone.tcp.readableByteCount == 10)
    #expect(lone.tcp.oldTimestamps == 1)
    #expect(lone.output().map(\.acknowledgment) == [Lone.peerStart + 10])
    lone.receive(at: 10, count: 10, timestamp: 999)
    #expect(lone.tcp.readableByteCount == 20)
    // It was taken in, but the clock does not go back.
    #expect(lone.output().first?.timestamps?.echo == 1_000)
  }

  @Test("Of old acknowledgements, those that say nothing new are let through, the others are not answered")
  func oldAcknowledgements() {
    var lone = Lone()
    lone.receive(at: 0, count: 10, timestamp: 1_000)
    lone.receive(at: 10, count: 0, timestamp: 1_000)
    _ = lone.output()
    lone.receive(at: 10, count: 0, timestamp: 900)
    #expect(lone.tcp.oldTimestamps == 0)
    lone.receive(at: 0, count: 0, timestamp: 900)
    #expect(lone.tcp.oldTimestamps == 1)
    #expect(lone.output() == [])
    lone.receive(at: 10, count: 0, timestamp: 700)
    #expect(lone.tcp.oldTimestamps == 2)
    #expect(lone.output().count == 1)
  }

  @Test("The peer's clock is believed from segments at or before the last acknowledgement only")
  func recentTimestamp() {
    var lone = Lone()
    lone.receive(at: 10, count: 10, timestamp: 1_005)
    #expect(lone.output().first?.timestamps?.echo == 0)
    lone.receive(at: 0, count: 10, timestamp: 1_000)
    #expect(lone.output().first?.timestamps?.echo == 1_000)

    // Nor from an acknowledgement that is older than what is known, unless all is as it was before.
    lone.tcp.write([UInt8](repeating: 1, count: 100))
    _ = lone.output()
    lone.receive(at: 20, count: 0, acknowledging: 100, timestamp: 1_010)
    lone.receive(at: 20, count: 10, acknowledging: 50, timestamp: 1_020, window: 200)
    #expect(lone.output().first?.timestamps?.echo == 1_010)
    lone.receive(at: 30, count: 10, acknowledging: 50, timestamp: 1_030)
    #expect(lone.output().first?.timestamps?.echo == 1_030)
  }

  @Test("Without timestamps there are none, and none are looked at")
  func noTimestamps() {
    var options = ModelTCP.Options()
    options.timestamps = false
    var lone = Lone(options)
    lone.receive(at: 0, count: 10, timestamp: 1_000)
    lone.receive(at: 10, count: 10, timestamp: 1)
    #expect(lone.tcp.readableByteCount == 20)
    #expect(lone.output().map(\.timestamps) == [nil])
  }

  // MARK: Merging

  private func plan(_ tcp: ModelTCP, now: Instant) -> (StreamMergePlan, unread: [UInt8]) {
    let snapshot = tcp.snapshot(now: now)
    let flow = Flow(
      .tcp, local: Endpoint(IPAddress(v4: 1), 1), remote: Endpoint(IPAddress(v4: 2), 2))
    let block = snapshot.block
    let plan = StreamMergePlan(
      flow: flow, block: block, sendUnacknowledged: tcp.sendStart, sendQueue: snapshot.sendQueue,
      sentCount: min(snapshot.sendQueue.count, tcp.sendNext - tcp.sendStart), receiveNext: tcp.receiveNext,
      receiveWindow: UInt32(block.receiveEdge - tcp.receiveNext),
      timestamp: block.timestampSent + 500, finSent: snapshot.finSent, finReceived: snapshot.finReceived,
      options: snapshot.options)
    return (plan, snapshot.receiveQueue)
  }

  @Test(
    "A socket that is rebuilt from what the kernel tells goes on where the other stopped",
    arguments: 0..<60 as Range<UInt64>)
  func merge(seed: UInt64) throws {
    let totals = [Int(seed) * 37 % 2_500, Int(seed) * 91 % 2_500]
    var network = ModelTCPNetwork(
      seed: seed, plan: .init(lost: 5, longestDelay: 20, totals: totals), options: Self.options(seed))
    let count = min(totals[0], network.ends[0].writableByteCount, network.ends[1].options.capacity)
    network.write(0, count)
    network.write(1, min(totals[1], network.ends[1].writableByteCount))
    if seed % 3 == 0, count == totals[0] { network.close(0) }
    if seed % 5 == 0, network.written[1] == totals[1] { network.close(1) }
    network.wait(.milliseconds(Int64(seed % 70)))
    network.read(0, atMost: 100)

    // Nothing may have left that the plan does not hold, so what waits to be sent does not count as sent.
    let old = network.ends[0]
    let (plan, unread) = plan(old, now: network.now)
    network.ends[0] = ModelTCP(plan, unread: unread, options: old.options, now: network.now)
    #expect(network.ends[0].dataEnd == old.dataEnd)
    #expect(network.ends[0].acknowledgment == old.acknowledgment)
    #expect(network.ends[0].readableByteCount == old.readableByteCount)
    network.run()
    #expect(network.violations == [])
    #expect(network.read == [totals[1], totals[0]])
  }

  @Test("A merged socket sends again by itself only after its first timeout; its FIN goes at once")
  func mergedTimer() throws {
    var lone = Lone()
    lone.tcp.write([UInt8](repeating: 1, count: 150))
    _ = lone.output()
    let (unfinished, _) = plan(lone.tcp, now: lone.now)
    var socket = ModelTCP(unfinished, unread: [], options: lone.tcp.options, now: lone.now)
    #expect(socket.output(now: lone.now) == [])
    #expect(socket.deadline == lone.now + .milliseconds(200))
    #expect(
      socket.expire(now: lone.now + .milliseconds(200)).map(\.sequence) == [Lone.start])

    lone.tcp.close()
    let (finished, _) = plan(lone.tcp, now: lone.now)
    socket = ModelTCP(finished, unread: [], options: lone.tcp.options, now: lone.now)
    #expect(socket.sendNext == Lone.start + 151)
    let fin = socket.output(now: lone.now)
    #expect(fin.map(\.sequence) == [Lone.start + 150])
    #expect(fin.map(\.flags) == [[.ack, .fin]])
  }

  @Test("A merged socket acknowledges the peer's FIN, which it is given")
  func mergedFIN() {
    var lone = Lone()
    lone.receive(at: 0, count: 10, fin: true)
    let (plan, unread) = plan(lone.tcp, now: lone.now)
    var socket = ModelTCP(plan, unread: unread, options: lone.tcp.options, now: lone.now)
    #expect(socket.peerHasClosed)
    #expect(socket.output(now: lone.now).map(\.acknowledgment) == [Lone.peerStart + 11])
  }
}

/// One TCP that is shown segments by hand. The other end's window is 1,000 bytes at first.
private struct Lone {
  static let start = SequenceNumber(0xffff_ff80)
  static let peerStart = SequenceNumber(0xffff_fffa)

  var now = Instant(nanoseconds: 1_000_000_000)
  var tcp: ModelTCP

  init(_ options: ModelTCP.Options = .init()) {
    tcp = ModelTCP(
      sendFrom: Self.start, receiveFrom: Self.peerStart, options: options, timestampOffset: 7, now: now)
  }

  mutating func output() -> [ModelTCP.Output] { tcp.output(now: now) }

  /// - Parameters:
  ///   - position: where the segment starts, in bytes of the peer's stream.
  ///   - acknowledging: bytes of the stream of ``tcp``; `nil` for all that it has seen acknowledged.
  mutating func receive(
    at position: Int? = nil, count: Int = 0, fin: Bool = false, flags: TCPFlags = .ack,
    acknowledging: Int? = nil, timestamp: UInt32? = nil, window: UInt16 = 250
  ) {
    let segment = TCPSegment(
      sequence: position.map { Self.peerStart + $0 } ?? tcp.acknowledgment,
      acknowledgment: acknowledging.map { Self.start + $0 } ?? tcp.sendUnacknowledged,
      flags: fin ? [.ack, .fin] : flags, window: window,
      timestamps: timestamp.map { TCPTimestamps(value: $0, echo: 0) }, payload: 0..<count)
    [UInt8](repeating: 1, count: count).withUnsafeBytes { tcp.receive(segment, $0, now: now) }
  }
}

import Testing

@testable import Replication

@Suite struct ReplicationLogTests {
  private let start = Instant(nanoseconds: 0)

  @Test func positionsCountRecordsFromOne() {
    var log = ReplicationLog()
    #expect(log.position == 0 && log.acknowledged == 0)
    let first = log.append(
      byteCount: 40, layer: .sdrl, socket: Handle(slot: 0, generation: 1, index: 3), now: start)
    let second = log.append(
      byteCount: 60, layer: .prl, socket: Handle(slot: 0, generation: 1, index: 3), now: start)
    #expect(first == 1 && second == 2)
    #expect(log.unacknowledgedBytes == 100 && log.unacknowledgedCount == 2)
  }

  @Test func oneAcknowledgementCoversAllBefore() {
    var log = ReplicationLog()
    for _ in 0..<10 {
      _ = log.append(byteCount: 10, layer: .prl, socket: Handle(slot: 0, generation: 1, index: 0), now: start)
    }
    let accepted = [log.acknowledge(7), log.acknowledge(7)]
    #expect(accepted == [true, true])
    #expect(log.acknowledged == 7 && log.unacknowledgedCount == 3 && log.unacknowledgedBytes == 30)
    let last = log.acknowledge(10)
    #expect(last)
    #expect(log.unacknowledgedBytes == 0)
  }

  @Test("What is not acknowledged when the link is lost is on its way no more, and positions stay")
  func linkLost() {
    var log = ReplicationLog()
    for _ in 0..<4 {
      _ = log.append(byteCount: 10, layer: .prl, socket: Handle(slot: 0, generation: 1, index: 0), now: start)
    }
    log.holdAcknowledgements(of: .sdrl, true)
    let isAccepted = log.acknowledge(1)
    #expect(isAccepted)
    log.linkLost()
    #expect(log.unacknowledgedCount == 0 && log.unacknowledgedBytes == 0)
    #expect(log.acknowledged == 1 && log.position == 4)
    var late = 0
    log.overdue(at: start + .seconds(10), timeouts: LayerTimeouts()) { _, _ in late += 1 }
    #expect(late == 0)
    // A fault that was injected may end now.
    log.holdAcknowledgements(of: .sdrl, false)
    #expect(log.acknowledged == 1)
    log.restart()
    #expect(
      log.append(byteCount: 1, layer: .prl, socket: Handle(slot: 0, generation: 1, index: 0), now: start) == 1
    )
  }

  @Test func anAcknowledgementOfTheFutureOrThePastIsRefusedAndChangesNothing() {
    var log = ReplicationLog()
    for _ in 0..<4 {
      _ = log.append(byteCount: 10, layer: .prl, socket: Handle(slot: 0, generation: 1, index: 0), now: start)
    }
    let accepted = [2, 5, .max, 1].map { log.acknowledge($0) }
    #expect(accepted == [true, false, false, false])
    #expect(log.acknowledged == 2 && log.unacknowledgedCount == 2)
  }

  @Test("Each layer has its own patience, and the oldest record is named first")
  func overdue() {
    var log = ReplicationLog()
    var timeouts = LayerTimeouts()
    timeouts.prl = .milliseconds(300)
    timeouts.sdrl = .milliseconds(200)
    timeouts.psrm = .milliseconds(100)
    _ = log.append(byteCount: 1, layer: .prl, socket: Handle(slot: 0, generation: 1, index: 1), now: start)
    _ = log.append(
      byteCount: 1, layer: .sdrl, socket: Handle(slot: 0, generation: 1, index: 2),
      now: start + .milliseconds(10))
    _ = log.append(
      byteCount: 1, layer: .psrm, socket: Handle(slot: 0, generation: 1, index: 3),
      now: start + .milliseconds(20))
    _ = log.append(
      byteCount: 1, layer: .iha, socket: Handle(slot: 0, generation: 1, index: 4),
      now: start + .milliseconds(30))
    func late(_ milliseconds: Int64) -> [UInt32] {
      var result: [UInt32] = []
      log.overdue(at: start + .milliseconds(milliseconds), timeouts: timeouts) { socket, _ in
        result.append(socket.index)
      }
      return result
    }
    #expect(late(119) == [])
    #expect(late(120) == [3])
    #expect(late(130) == [3, 4])
    #expect(late(210) == [2, 3, 4])
    #expect(late(300) == [1, 2, 3, 4])
    let accepted = log.acknowledge(3)
    #expect(accepted && late(500) == [4])
  }
}

@Suite struct HoldQueueTests {
  private func entry(_ required: LogPosition, _ frame: Int32, _ bytes: Int32 = 10) -> HoldQueue.Entry {
    HoldQueue.Entry(
      required: required, frame: FrameReference(frame), byteCount: bytes, socket: 0, generation: 1,
      isOutbound: true)
  }

  @Test func framesGoInTheOrderInWhichTheyCame() {
    var queue = HoldQueue()
    #expect(queue.first == nil && queue.lastRequired == 0)
    for number in 1...5 { queue.append(entry(LogPosition(number / 2), Int32(number), 100)) }
    #expect(queue.count == 5 && queue.byteCount == 500 && queue.lastRequired == 2)
    for number in 1...5 {
      #expect(queue.first?.frame == FrameReference(Int32(number)))
      let removed = queue.removeFirst()
      #expect(removed.frame == FrameReference(Int32(number)))
    }
    #expect(queue.count == 0 && queue.byteCount == 0 && queue.lastRequired == 0)
  }

  @Test func theFramesOfOneSocketCanBeTakenOutFromBetweenOthers() {
    var queue = HoldQueue()
    for number in 1...9 {
      var entry = entry(LogPosition(number), Int32(number), 100)
      entry.socket = Int32(number % 3)
      entry.generation = number == 8 ? 2 : 1
      queue.append(entry)
    }
    let taken = queue.removeAll(ofSocket: 2, generation: 1)
    #expect(taken.map(\.frame.rawValue) == [2, 5])
    #expect(queue.count == 7 && queue.byteCount == 700 && queue.lastRequired == 9)
    #expect(queue.removeAll(ofSocket: 0, generation: 1).map(\.frame.rawValue) == [3, 6, 9])
    #expect(queue.lastRequired == 8 && queue.first?.frame.rawValue == 1)
    #expect(queue.removeAll(ofSocket: 0, generation: 1).isEmpty)
  }
}

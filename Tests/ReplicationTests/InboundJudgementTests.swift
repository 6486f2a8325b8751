import Packet
import Simulation
import Testing

@testable import Replication

/// What of the peer's packets is believed: no more and no less than what the kernel takes in.
@Suite struct InboundJudgementTests {
  private let pair: SimulatedPair
  private let conversation: Conversation

  init() throws {
    pair = SimulatedPair()
    pair.start()
    conversation = pair.converse()
    try pair.replicate(conversation)
    pair.settle()
    pair.peerWrites(conversation, 100)
    pair.localWrites(conversation, 200)
    pair.settle()
    // 300 bytes are on their way to the peer, who has not acknowledged them.
    pair.localWrites(conversation, 300)
    pair.settleLink()
    pair.loseAllToPeer()
  }

  private var block: ControlBlock {
    get throws { try #require(try pair.engines[0].node.socket(conversation.primaryHandle!).block) }
  }

  private var peerClock: UInt32 {
    get throws { try block.timestampRecent }
  }

  private func crafted() throws -> CraftedSegment {
    CraftedSegment(from: conversation, now: try peerClock)
  }

  @Test func anAcknowledgementWithAWrongChecksumIsNotBelieved() throws {
    let before = try block
    var segment = try crafted()
    segment.acknowledgment = segment.acknowledgment + 300
    var frame = segment.fromPeer(conversation)
    frame[14 + 20 + 16] ^= 0x10
    pair.engines[0].arrive(frame)
    #expect(try block == before)
    #expect(pair.engines[0].node.statistics.droppedForChecksum == 1)
    pair.engines[0].arrive(segment.fromPeer(conversation))
    #expect(try block.sendUnacknowledged == before.sendUnacknowledged + 300)
  }

  @Test func bytesWithAWrongChecksumAreNotBelieved() throws {
    let before = try block
    var segment = try crafted()
    segment.payload = [1, 2, 3]
    var frame = segment.fromPeer(conversation)
    frame[frame.count - 1] ^= 1
    pair.engines[0].arrive(frame)
    #expect(try block.receiveNext == before.receiveNext)
    #expect(pair.engines[0].node.statistics.droppedForChecksum == 1)
  }

  @Test("An acknowledgement outside the window or the range that was sent changes nothing (RFC 5961)")
  func forgedAcknowledgements() throws {
    let before = try block
    let records = pair.engines[0].node.statistics.prlRecordsSent
    for change in [
      { (segment: inout CraftedSegment) in segment.sequence = segment.sequence - 100_000 },
      { segment in segment.sequence = segment.sequence + 5_000 },
      { segment in segment.acknowledgment = segment.acknowledgment + 301 },
      { segment in segment.acknowledgment = segment.acknowledgment - 70_000 },
    ] {
      var segment = try crafted()
      segment.acknowledgment = segment.acknowledgment + 300
      change(&segment)
      pair.engines[0].arrive(segment.fromPeer(conversation))
      segment.payload = [6, 6, 6]
      pair.engines[0].arrive(segment.fromPeer(conversation))
    }
    #expect(try block.sendUnacknowledged == before.sendUnacknowledged)
    #expect(pair.engines[0].node.statistics.prlRecordsSent == records)
    #expect(try pair.engines[0].node.socket(conversation.primaryHandle!).phase == .replicating)
    #expect(pair.violations.prefix(3) == [])
  }

  @Test("A timestamp older by one tick is no old duplicate, one older by two is (tcp_paws_check)")
  func oldDuplicates() throws {
    var segment = try crafted()
    segment.payload = [1]
    segment.timestamp = try peerClock &- 2
    let records = pair.engines[0].node.statistics.prlRecordsSent
    pair.engines[0].arrive(segment.fromPeer(conversation))
    #expect(pair.engines[0].node.statistics.oldDuplicates == 1)
    #expect(pair.engines[0].node.statistics.prlRecordsSent == records)
    segment.timestamp = try peerClock &- 1
    #expect(try !block.isOldDuplicate(TCPTimestamps(value: segment.timestamp, echo: 0)))
    #expect(try block.isOldDuplicate(TCPTimestamps(value: segment.timestamp &- 1, echo: 0)))
  }

  @Test func aFINBeforeBytesThatHaveArrivedIsAnOldDuplicateAndEndsNothing() throws {
    let records = pair.engines[0].node.statistics.prlRecordsSent
    var segment = try crafted()
    segment.flags = [.ack, .fin]
    segment.sequence = segment.sequence - 1
    pair.engines[0].arrive(segment.fromPeer(conversation))
    #expect(pair.engines[0].node.statistics.prlRecordsSent == records)
    // The true one still does.
    pair.finish(slot: 0, peerTotal: 400, localTotal: 700)
    #expect(conversation.snoopEnded == [.rcv, .snd])
    #expect(pair.engines[0].unreplicated[conversation.primaryHandle!] == .closed)
    #expect(pair.violations.prefix(3) == [])
  }

  @Test func aResetIsForTheKernelToJudge() throws {
    var segment = try crafted()
    segment.flags = [.rst]
    segment.sequence = segment.sequence + 7
    let frame = segment.fromPeer(conversation)
    let verdict = frame.withUnsafeBytes {
      pair.engines[0].node.inbound(
        TCPPacket($0)!, reference: FrameReference(9_999), byteCount: frame.count, now: pair.now
      ) { true }
    }
    // Which has it: this is a copy.
    #expect(verdict == .drop)
    #expect(
      pair.engines[0].node.actions.contains {
        if case .inspect(conversation.primaryHandle!) = $0 { true } else { false }
      })
    #expect(try pair.engines[0].node.socket(conversation.primaryHandle!).phase == .replicating)
  }

  @Test(
    "What the kernel acknowledges without the log's knowledge does not leave, and ends replication if it lasts"
  )
  func diverged() throws {
    var socket = try #require(pair.engines[0].sockets[conversation.flow])
    var output = try #require(socket.retransmission(now: pair.now).first)
    output.acknowledgment += 10
    output.payload = []
    let frame = output.frame(from: conversation.flow.local, to: conversation.flow.remote)
    func verdict(_ now: Instant) -> Verdict {
      frame.withUnsafeBytes {
        pair.engines[0].node.outbound(
          TCPPacket($0)!, reference: FrameReference(9_999), byteCount: frame.count, now: now)
      }
    }
    let timeout = pair.engines[0].node.timeouts.prl
    #expect(verdict(pair.now) == .drop)
    #expect(verdict(pair.now + timeout + Nanoseconds(-1)) == .drop)
    #expect(try pair.engines[0].node.socket(conversation.primaryHandle!).phase == .replicating)
    #expect(verdict(pair.now + timeout) == .hold)
    #expect(try pair.engines[0].node.socket(conversation.primaryHandle!).phase == .ending(.diverged))
  }

  @Test("As long as the log comes nearer to what the kernel acknowledges, replication goes on")
  func divergedForAWhile() throws {
    var socket = try #require(pair.engines[0].sockets[conversation.flow])
    var output = try #require(socket.retransmission(now: pair.now).first)
    output.acknowledgment += 100
    output.payload = []
    let frame = output.frame(from: conversation.flow.local, to: conversation.flow.remote)
    let timeout = pair.engines[0].node.timeouts.prl
    for _ in 1...5 {
      let verdict = frame.withUnsafeBytes {
        pair.engines[0].node.outbound(
          TCPPacket($0)!, reference: FrameReference(9_999), byteCount: frame.count, now: pair.now)
      }
      #expect(verdict == .drop)
      pair.engines[0].node.actions = []
      pair.peerWrites(conversation, 10)
      pair.settle()
      pair.advance(milliseconds: timeout.milliseconds)
    }
    #expect(try pair.engines[0].node.socket(conversation.primaryHandle!).phase == .replicating)
  }

  @Test("What the kernel had ahead of a gap when replication began is acknowledged as far as the log has it")
  func aheadOfAGap() throws {
    let pair = SimulatedPair()
    pair.start()
    let conversation = pair.converse()
    pair.peerWrites(conversation, 300)
    pair.loseNextFromPeer()
    pair.settle()
    #expect(conversation.peer.sendUnacknowledged == conversation.peerStart)
    try pair.replicate(conversation)
    pair.settle()
    for sent in [100, 200, 300] {
      pair.peerRetransmits(conversation)
      pair.settle()
      // The peer need not ask twice: the acknowledgement follows when the secondary has the bytes.
      #expect(conversation.peer.sendUnacknowledged == conversation.peerStart + sent)
    }
    #expect(conversation.localRead == 300)
    #expect(conversation.snooped.rcv == 300)
    pair.finish(slot: 0, peerTotal: 400, localTotal: 100)
    #expect(pair.violations.prefix(3) == [])
  }

  @Test("A copy whose timestamp has become old waits as well: the kernel has not heard of the newer one")
  func copiesWithOldTimestamps() throws {
    let pair = SimulatedPair(mode: .strict)
    pair.start()
    let conversation = pair.converse()
    try pair.replicate(conversation)
    pair.settle()
    pair.link.mute = [0]
    var segment = CraftedSegment(from: conversation, now: 1_000)
    segment.payload = (0..<40).map(conversation.peerByte)
    _ = conversation.nextPeerBytes(40)
    for timestamp in [1_000, 1_010, 1_000] as [UInt32] {
      segment.timestamp = timestamp
      pair.engines[0].arrive(segment.fromPeer(conversation))
    }
    #expect(pair.engines[0].node.statistics.oldDuplicates == 1)
    #expect(pair.engines[0].heldFrames == 3)
    #expect(conversation.localRead == 0)
    pair.link.mute = []
    pair.settleLink()
    #expect(conversation.localRead == 40)
    #expect(pair.violations.prefix(3) == [])
  }

  @Test("A second copy waits as long as the first, also in strict mode")
  func copies() throws {
    let pair = SimulatedPair(mode: .strict)
    pair.start()
    let conversation = pair.converse()
    try pair.replicate(conversation)
    pair.settle()
    pair.link.mute = [0]
    pair.peerWrites(conversation, 100)
    pair.doubleFromPeer()
    pair.settle()
    #expect(conversation.localRead == 0)
    #expect(pair.engines[0].heldFrames == 2)
    pair.link.mute = []
    pair.settle()
    #expect(conversation.localRead == 100)
    #expect(pair.violations.prefix(3) == [])
  }
}

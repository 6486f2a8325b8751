import Packet
import Replication
import Testing

/// The records of a whole conversation, lost from every possible point on.
@Suite struct RecordLossTests {
  static let peerTotal = 1_500
  static let localTotal = 1_700

  struct Variant: Sendable, CustomTestStringConvertible {
    var mode: ReplicationNode.Mode
    var seed: UInt64
    var start: UInt32
    var testDescription: String { "\(mode), seed \(seed), sequence numbers from \(start)" }

    static let all: [Variant] = [
      Variant(mode: .overlap, seed: 1, start: 1_000),
      Variant(mode: .strict, seed: 2, start: 1_000),
      Variant(mode: .overlap, seed: 3, start: .max - 300),
      Variant(mode: .strict, seed: 4, start: .max - 70_200),
    ]
  }

  /// The conversation. Whatever is cut off in its middle, the steps go on: what a dead RE does is nothing.
  static func play(_ pair: SimulatedPair, _ conversation: Conversation) throws {
    // Both queues hold something when the handshake begins.
    pair.localReadsAtOnce = false
    pair.peerWrites(conversation, 130)
    pair.settle()
    pair.localWrites(conversation, 250)
    pair.loseAllToPeer()
    try pair.replicate(conversation)
    pair.localReadsAtOnce = true
    pair.settle()
    pair.localReads(conversation)
    pair.engines[0].retransmit(conversation.flow)
    pair.settle()
    // Data both ways, at once.
    pair.peerWrites(conversation, 220)
    pair.localWrites(conversation, 330)
    pair.settle()
    pair.peerReads(conversation)
    pair.settle()
    // Out of order, twice, and not at all.
    pair.peerWrites(conversation, 350)
    pair.swapFromPeer()
    pair.settle()
    pair.peerWrites(conversation, 250)
    pair.doubleFromPeer()
    pair.loseNextFromPeer()
    pair.settle()
    pair.peerRetransmits(conversation)
    pair.settle()
    pair.localWrites(conversation, 260)
    pair.loseAllToPeer()
    pair.settle()
    for _ in 0..<3 {
      pair.engines[0].retransmit(conversation.flow)
      pair.settle()
    }
    // A window that closes and opens again, in both directions.
    pair.localReadsAtOnce = false
    pair.peerWrites(conversation, 400)
    pair.settle()
    pair.advance(milliseconds: 60)
    pair.localReadsAtOnce = true
    pair.localReads(conversation)
    pair.localWrites(conversation, 600)
    pair.settle()
    pair.peerReads(conversation)
    pair.settle()
    // Half-closed, then closed.
    pair.peerWrites(conversation, 150)
    pair.peerCloses(conversation)
    pair.settle()
    pair.localWrites(conversation, 260)
    pair.localCloses(conversation)
    pair.settle()
    pair.peerReads(conversation)
    pair.settle()
    pair.advance(milliseconds: 10)
  }

  /// How many records re0 sends before and during the conversation.
  static func countRecords(_ variant: Variant) throws -> ClosedRange<Int> {
    let pair = SimulatedPair(mode: variant.mode, seed: variant.seed)
    pair.start()
    let conversation = pair.converse(startAt: variant.start)
    let first = pair.link.delivered[0]
    try play(pair, conversation)
    #expect(pair.violations.prefix(3) == [])
    #expect(conversation.peerRead == localTotal)
    #expect(conversation.localRead == peerTotal)
    #expect(conversation.snoopEnded == [.rcv, .snd])
    #expect(
      conversation.snooped == (
        peerTotal - conversation.snoopStart.rcv, localTotal - conversation.snoopStart.snd
      ))
    return first...pair.link.delivered[0]
  }

  @Test(
    "Whichever record is the last to arrive, the secondary merges all that has left", arguments: Variant.all)
  func primaryLost(variant: Variant) throws {
    let records = try Self.countRecords(variant)
    #expect(records.count > 40)
    var merges = 0
    for last in records {
      let pair = SimulatedPair(mode: variant.mode, seed: variant.seed)
      pair.start()
      let conversation = pair.converse(startAt: variant.start)
      let kernelLives = last % 2 == 0
      pair.interruption = (
        last,
        {
          if last % 3 == 0 { pair.deliverHalfRecord() }
          pair.killPrimary(kernelLives: kernelLives)
        }
      )
      try Self.play(pair, conversation)
      guard !pair.engines[0].isAlive else { continue }
      // A handshake that is not over protects nothing yet; a connection that is closed needs nothing more.
      let told = conversation.primaryHandle.map { pair.engines[0].replicated.contains($0) } ?? false
      #expect(pair.takeOver(), "record \(last)")
      let phase = try conversation.secondaryHandle.map { try pair.engines[1].node.socket($0).phase }
      if phase == .snooping {
        merges += 1
        try pair.merge(conversation)
        pair.finish(slot: 1, peerTotal: Self.peerTotal, localTotal: Self.localTotal)
      } else {
        #expect(!told || phase == .unreplicated(.closed), "record \(last)")
      }
      #expect(pair.violations.prefix(3) == [], "record \(last) of \(variant.testDescription)")
    }
    #expect(merges > records.count / 2)
  }

  @Test(
    "A link that breaks ends no connection, and what broke is never merged", arguments: Variant.all[1...2])
  func linkCut(variant: Variant) throws {
    for last in try Self.countRecords(variant) {
      let pair = SimulatedPair(mode: variant.mode, seed: variant.seed)
      pair.start()
      let conversation = pair.converse(startAt: variant.start)
      pair.interruption = (
        last,
        {
          if last % 3 == 0 { pair.deliverHalfRecord() }
          pair.cutLink(carrierLost: last % 2 == 0)
        }
      )
      do { try Self.play(pair, conversation) } catch is SocketError { continue }
      pair.advance(milliseconds: 800)
      pair.finish(slot: 0, peerTotal: Self.peerTotal, localTotal: Self.localTotal)
      let handle = try #require(conversation.secondaryHandle)
      #expect(pair.engines[1].node.arbiter.phase == .secondary)
      #expect(throws: SocketError.self) { _ = try pair.engines[1].node.merge(handle, now: pair.now) }
      if case .unreplicated = try pair.engines[1].node.socket(handle).phase {
      } else {
        #expect(try pair.engines[1].node.socket(handle).phase == .attached, "record \(last)")
      }
      #expect(pair.engines[0].heldFrames == 0)
      #expect(pair.violations.prefix(3) == [], "record \(last) of \(variant.testDescription)")
    }
  }
}

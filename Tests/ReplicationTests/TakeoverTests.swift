import Packet
import Simulation
import Testing

@testable import Replication

/// What a merge restores, beyond what the enumeration of lost records shows.
@Suite struct TakeoverTests {
  @Test("The clock of a connection goes on where it was, however long nothing was sent")
  func timestamps() throws {
    let (pair, conversation) = try SimulatedPair.replicating()
    pair.localWrites(conversation, 100)
    pair.settle()
    pair.advance(milliseconds: 10_000)
    // The peer speaks, and is answered by an acknowledgement that leaves no record before the end.
    pair.link.mute = [0]
    pair.peerWrites(conversation, 0)
    var segment = CraftedSegment(
      from: conversation,
      now: try #require(pair.engines[0].node.socket(conversation.primaryHandle!).block).timestampRecent)
    segment.window = 200
    pair.link.mute = []
    pair.engines[0].arrive(segment.fromPeer(conversation))
    pair.settleLink()
    pair.link.mute = [0]
    segment.sequence = segment.sequence - 1
    pair.engines[0].arrive(segment.fromPeer(conversation))
    pair.settle()
    pair.killPrimary(kernelLives: true)
    #expect(pair.takeOver())
    try pair.merge(conversation)
    pair.finish(slot: 1, peerTotal: 200, localTotal: 300)
    #expect(pair.violations.prefix(3) == [])
  }

  @Test("A FIN that was acknowledged while the window closed behind it is said again by the new primary")
  func finBehindAClosedWindow() throws {
    let pair = SimulatedPair()
    pair.start()
    let conversation = pair.converse(capacity: 400, windowScale: 0)
    try pair.replicate(conversation)
    pair.settle()
    pair.localWrites(conversation, 399)
    pair.localCloses(conversation)
    pair.settle()
    let socket = try #require(pair.engines[0].sockets[conversation.flow])
    #expect(socket.finIsAcknowledged && socket.sendWindow == 0)
    pair.killPrimary(kernelLives: true)
    #expect(pair.takeOver())
    try pair.merge(conversation)
    pair.finish(slot: 1, peerTotal: 300, localTotal: 399)
    #expect(pair.violations.prefix(3) == [])
  }

  @Test("A secondary that gives its pairs up while the link is there tells the primary")
  func licenseEndsOnALivingLink() throws {
    let (pair, conversation) = try SimulatedPair.replicating()
    // Asleep for longer than the license, which it notices before it reads what has come meanwhile.
    pair.now = pair.now + .seconds(3)
    pair.engines[1].node.tick(now: pair.now)
    pair.engines[1].perform()
    #expect(pair.engines[1].unreplicated[conversation.secondaryHandle!] == .linkLost)
    #expect(pair.link.isUp)
    pair.settleLink()
    #expect(pair.engines[0].unreplicated[conversation.primaryHandle!] == .linkLost)
    pair.finish(slot: 0, peerTotal: 100, localTotal: 100)
    #expect(pair.violations.prefix(3) == [])
  }

  @Test("The secondary merges, or the primary goes on alone, but never both")
  func cutThenLost() throws {
    var merged = 0
    var voided = 0
    for delay in stride(from: Int64(0), through: 900, by: 30) {
      let (pair, conversation) = try SimulatedPair.replicating()
      pair.localWrites(conversation, 100)
      pair.cutLink()
      for _ in 0..<(delay / 30) {
        pair.peerWrites(conversation, 10)
        pair.localWrites(conversation, 10)
        pair.settle()
        pair.peerReads(conversation)
        pair.advance(milliseconds: 30)
      }
      let wentOnAlone = pair.engines[0].unreplicated[conversation.primaryHandle!] != nil
      pair.killPrimary(kernelLives: false)
      pair.advance(milliseconds: 4_000)
      let phase = try pair.engines[1].node.socket(conversation.secondaryHandle!).phase
      if phase == .snooping, pair.engines[1].node.arbiter.phase == .primary {
        merged += 1
        #expect(!wentOnAlone, "after \(delay) ms")
        try pair.merge(conversation)
        pair.finish(slot: 1, peerTotal: 1_000, localTotal: 1_000)
      } else {
        voided += 1
        #expect(phase == .unreplicated(.linkLost), "after \(delay) ms")
      }
      #expect(pair.violations.prefix(3) == [], "after \(delay) ms")
    }
    #expect(merged + voided == 31 && voided > 0)
  }

  @Test(
    "A secondary that falls silent ends no connection", arguments: [ReplicationNode.Mode.overlap, .strict])
  func secondarySilent(mode: ReplicationNode.Mode) throws {
    let (pair, conversation) = try SimulatedPair.replicating(mode: mode)
    pair.link.mute = [1]
    pair.peerWrites(conversation, 100)
    pair.localWrites(conversation, 100)
    pair.settle()
    #expect(pair.engines[0].heldFrames > 0)
    pair.engines[1].isAlive = false
    pair.advance(milliseconds: 3_000)
    #expect(pair.engines[0].unreplicated[conversation.primaryHandle!] == .linkLost)
    #expect(pair.engines[0].heldFrames == 0)
    pair.finish(slot: 0, peerTotal: 500, localTotal: 600)
    #expect(pair.violations.prefix(3) == [])
  }

  @Test("A secondary that follows but does not acknowledge ends replication after the layer's timeout")
  func acknowledgementsHeld() throws {
    let (pair, conversation) = try SimulatedPair.replicating()
    // Everything else the secondary says still arrives.
    pair.engines[1].withholdsAcknowledgements = true
    pair.localWrites(conversation, 100)
    pair.settle()
    #expect(pair.engines[0].heldFrames == 1)
    pair.advance(milliseconds: 900)
    #expect(try pair.engines[0].node.socket(conversation.primaryHandle!).phase == .replicating)
    pair.advance(milliseconds: 300)
    #expect(pair.engines[0].unreplicated[conversation.primaryHandle!] == .sdrlTimeout)
    #expect(pair.engines[1].unreplicated[conversation.secondaryHandle!] == .sdrlTimeout)
    pair.finish(slot: 0, peerTotal: 500, localTotal: 600)
    #expect(pair.engines[0].heldFrames == 0)
    #expect(pair.violations.prefix(3) == [])
  }

  @Test func frameThatWaitForAHandshakeAreBoundedForAllSocketsTogether() throws {
    let pair = SimulatedPair(limit: 4_000)
    pair.start()
    pair.engines[0].answersSteering = false
    for _ in 0..<4 {
      let conversation = pair.converse()
      try pair.replicate(conversation)
      for _ in 0..<40 { pair.peerRetransmits(conversation) }
      pair.peerWrites(conversation, 900)
      for _ in 0..<5 { pair.peerRetransmits(conversation) }
    }
    pair.settle()
    let occupancy = pair.engines[0].node.occupancy
    #expect(occupancy.heldBytes > 3_000 && occupancy.heldBytes <= 4_000)
    #expect(pair.engines[0].node.statistics.droppedForLimit > 0)
    #expect(pair.violations.prefix(3) == [])
  }

  @Test func nothingIsLeftWhenAllIsOver() throws {
    let (pair, conversation) = try SimulatedPair.replicating()
    pair.finish(slot: 0, peerTotal: 2_000, localTotal: 3_000)
    pair.advance(milliseconds: 100)
    try pair.engines[0].node.free(conversation.primaryHandle!)
    try pair.engines[1].node.free(conversation.secondaryHandle!)
    for engine in pair.engines {
      #expect(engine.node.occupancy == Occupancy())
      #expect(engine.heldFrames == 0)
    }
    #expect(pair.violations.prefix(3) == [])
  }
}

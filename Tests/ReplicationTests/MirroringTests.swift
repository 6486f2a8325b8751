import Packet
import Replication
import Simulation
import Testing

/// In overlap mode the kernel has what a peer sends at once, and the node has copies.
@Suite("Mirroring")
struct MirroringTests {
  private func snoopPressure(_ pair: SimulatedPair, _ conversation: Conversation, isHigh: Bool) {
    pair.engines[1].node.snoopPressure(conversation.secondaryHandle!, isHigh: isHigh)
    pair.engines[1].perform()
    pair.settle()
  }

  @Test("lasts as long as a connection is replicated in overlap mode") func beginning() throws {
    let (pair, conversation) = try SimulatedPair.replicating()
    #expect(pair.engines[0].mirrored == [conversation.flow] && pair.engines[1].mirrored.isEmpty)
    try pair.engines[0].node.unreplicate(conversation.primaryHandle!, now: pair.now)
    pair.engines[0].perform()
    pair.settle()
    #expect(pair.engines[0].mirrored.isEmpty)
    pair.finish(slot: 0, peerTotal: 100, localTotal: 100)
    #expect(pair.violations == [])
  }

  @Test("is nothing for strict mode, nor for datagrams") func exceptions() throws {
    #expect(try SimulatedPair.replicating(mode: .strict).pair.engines[0].mirrored.isEmpty)
    let pair = SimulatedPair()
    pair.start()
    pair.engines[0].datagramSockets[DatagramTests.unconnected] = []
    let handles = try pair.replicate(DatagramTests.unconnected)
    pair.settle()
    #expect(try pair.engines[0].node.socket(handles.primary).phase == .replicating)
    #expect(pair.engines[0].mirrored.isEmpty)
  }

  @Test("What the kernel has and the log has not is not acknowledged before the peer has sent it again")
  func lostCopies() throws {
    let (pair, conversation) = try SimulatedPair.replicating()
    pair.engines[0].losesCopies = true
    pair.peerWrites(conversation, 100)
    pair.localWrites(conversation, 50)
    pair.settle()
    pair.localWrites(conversation, 50)
    pair.settle()
    pair.engines[0].losesCopies = false
    #expect(conversation.localRead == 100)
    #expect(conversation.peer.retransmission(now: pair.now).first?.payload.count == 100)
    #expect(pair.engines[0].node.statistics.droppedForUnknownAcknowledgment > 0)

    pair.peerRetransmits(conversation)
    pair.settle()
    #expect(conversation.peer.retransmission(now: pair.now).isEmpty)
    #expect(conversation.snooped.rcv == 100)
    pair.finish(slot: 0, peerTotal: 300, localTotal: 300)
    #expect(pair.engines[0].unreplicated[conversation.primaryHandle!] == .closed)
    #expect(pair.violations == [])
  }

  @Test("What the kernel makes of packets that wait for a slow snooper waits behind them") func pause() throws
  {
    let (pair, conversation) = try SimulatedPair.replicating()
    snoopPressure(pair, conversation, isHigh: true)
    pair.peerWrites(conversation, 100)
    pair.settle()
    pair.localWrites(conversation, 100)
    pair.settle()
    #expect(conversation.localRead == 100 && conversation.snooped.rcv == 0)
    pair.peerReads(conversation)
    #expect(conversation.peerRead == 0)
    #expect(conversation.peer.retransmission(now: pair.now).first?.payload.count == 100)

    snoopPressure(pair, conversation, isHigh: false)
    pair.peerReads(conversation)
    #expect(conversation.peerRead == 100 && conversation.snooped.rcv == 100)
    #expect(conversation.peer.retransmission(now: pair.now).isEmpty)
    #expect(pair.engines[0].node.statistics.droppedForUnknownAcknowledgment == 0)
    pair.finish(slot: 0, peerTotal: 300, localTotal: 300)
    #expect(pair.violations == [])
  }

  @Test("ends with mastership, and what comes then goes to the other RE alone") func handover() throws {
    let (pair, conversation) = try SimulatedPair.replicating()
    try pair.engines[0].node.releaseMastership(now: pair.now)
    pair.engines[0].perform()
    #expect(pair.engines[0].mirrored.isEmpty)
    let before = conversation.localRead
    pair.peerWrites(conversation, 100)
    #expect(pair.takeOver())
    pair.settle()
    #expect(conversation.localRead == before)
    try pair.merge(conversation)
    pair.finish(slot: 1, peerTotal: 300, localTotal: 300)
    #expect(pair.violations == [])
  }

  @Test("ends when the connection is steered anew: what comes during a handshake waits") func again() throws {
    let (pair, conversation) = try SimulatedPair.replicating()
    try pair.engines[0].node.unreplicate(conversation.primaryHandle!, now: pair.now)
    pair.engines[0].perform()
    pair.settle()
    pair.engines[0].answersSteering = false
    // As if a frame from before were still in the queue.
    pair.engines[0].node.mirrored(conversation.flow)
    try pair.replicate(conversation)
    #expect(pair.engines[0].mirrored.isEmpty)
    pair.peerWrites(conversation, 100)
    pair.settle()
    #expect(conversation.localRead == 0)
    #expect(pair.engines[0].node.occupancy.waitingPackets == 1)
  }

  @Test("Copies that come behind the end of a connection are not delivered") func late() throws {
    let (pair, conversation) = try SimulatedPair.replicating()
    pair.peerWrites(conversation, 100)
    let frame = try #require(conversation.peer.retransmission(now: pair.now).first)
      .frame(from: conversation.flow.remote, to: conversation.flow.local)
    pair.settle()
    try pair.engines[0].node.unreplicate(conversation.primaryHandle!, now: pair.now)
    pair.engines[0].perform()
    pair.settle()
    func verdict() -> Verdict {
      frame.withUnsafeBytes {
        pair.engines[0].node.inbound(
          TCPPacket($0)!, reference: FrameReference(9_999), byteCount: frame.count, now: pair.now
        ) { true }
      }
    }
    #expect(verdict() == .pass)
    pair.engines[0].node.mirrored(conversation.flow)
    #expect(verdict() == .drop)
    pair.engines[0].node.mirroringEnded(conversation.flow)
    #expect(verdict() == .pass)
  }
}

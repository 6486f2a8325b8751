import Packet
import Simulation
import Testing

@testable import Replication

/// A connection that both sides have closed, while the secondary has yet to let go of it.
@Suite struct ClosedConnectionTests {
  private let pair: SimulatedPair
  private let conversation: Conversation
  /// Our FIN, as the kernel would send it again.
  private let copy: ModelTCP.Output

  init() throws {
    pair = SimulatedPair()
    pair.start()
    conversation = pair.converse()
    try pair.replicate(conversation)
    pair.settle()
    pair.peerCloses(conversation)
    pair.settle()
    pair.localCloses(conversation)
    pair.settleLink()
    var socket = try #require(pair.engines[0].sockets[conversation.flow])
    copy = try #require(socket.retransmission(now: pair.now).first)
    let block = try #require(try pair.engines[0].node.socket(conversation.primaryHandle!).block)
    var last = CraftedSegment(from: conversation, now: block.timestampRecent)
    last.acknowledgment = block.sendNext
    pair.engines[0].arrive(last.fromPeer(conversation))
  }

  private func verdict(on output: ModelTCP.Output) -> Verdict {
    let frame = output.frame(from: conversation.flow.local, to: conversation.flow.remote)
    return frame.withUnsafeBytes {
      pair.engines[0].node.outbound(
        TCPPacket($0)!, reference: FrameReference(9_999), byteCount: frame.count, now: pair.now)
    }
  }

  @Test func aCopyOfAnAcknowledgedFINDoesNotFollowTheEnd() throws {
    #expect(try pair.engines[0].node.socket(conversation.primaryHandle!).phase == .ending(.closed))
    #expect(copy.flags.contains(.fin))
    #expect(verdict(on: copy) == .drop)
    #expect(pair.engines[0].node.statistics.droppedAsAcknowledged == 1)
  }

  @Test func anAcknowledgementOfThePeersFINDoes() {
    var acknowledgment = copy
    acknowledgment.flags = .ack
    acknowledgment.sequence += 1
    #expect(verdict(on: acknowledgment) == .hold)
    #expect(pair.engines[0].node.statistics.droppedAsAcknowledged == 0)
  }
}

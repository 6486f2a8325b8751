import Packet
import Testing

@testable import Replication

/// Fault injection: acknowledgements that are held, on either RE.
@Suite struct AcknowledgementHoldTests {
  struct Case: Sendable, CustomTestStringConvertible {
    let layer: Layer
    let slot: Int
    var testDescription: String { "\(layer) on re\(slot)" }
  }

  static let cases = [Layer.sdrl, .prl, .psrm].flatMap { layer in
    [0, 1].map { Case(layer: layer, slot: $0) }
  }

  private func replicated() throws -> (SimulatedPair, Conversation) {
    let pair = SimulatedPair()
    pair.start()
    let conversation = pair.converse()
    try pair.replicate(conversation)
    pair.settle()
    return (pair, conversation)
  }

  private func hold(_ layer: Layer, _ isOn: Bool, on slot: Int, _ pair: SimulatedPair) {
    pair.engines[slot].node.holdAcknowledgements(of: layer, isOn, now: pair.now)
    pair.engines[slot].perform()
  }

  private func phase(_ pair: SimulatedPair, _ conversation: Conversation) throws -> SocketPhase {
    try pair.engines[0].node.socket(conversation.primaryHandle!).phase
  }

  /// Has a record of `layer` appended, and bytes that wait for it.
  private func cause(_ layer: Layer, _ pair: SimulatedPair, _ conversation: Conversation) {
    switch layer {
    case .sdrl:
      pair.localWrites(conversation, 100)
    case .psrm:
      // The peer's acknowledgement carries no bytes: only an update of the control block tells of it.
      pair.localWrites(conversation, 100)
      pair.settle()
      pair.peerReads(conversation)
    default:
      pair.peerWrites(conversation, 100)
    }
    pair.settle()
  }

  @Test("A held layer ends replication with its own reason when its time is up", arguments: cases)
  func timeout(_ held: Case) throws {
    let (pair, conversation) = try replicated()
    for layer in [Layer.sdrl, .prl, .psrm] {
      pair.engines[0].node.setTimeout(of: layer, layer == held.layer ? .milliseconds(300) : .seconds(60))
    }
    hold(held.layer, true, on: held.slot, pair)
    #expect(pair.engines[held.slot].node.holdsAcknowledgements(of: held.layer))
    cause(held.layer, pair, conversation)
    #expect(try phase(pair, conversation) == .replicating)
    pair.advance(milliseconds: 200)
    #expect(try phase(pair, conversation) == .replicating)
    #expect(pair.engines[0].node.occupancy.unacknowledgedRecords > 0)
    pair.advance(milliseconds: 200)
    let reason = UnreplicateReason.timeout(of: held.layer)
    #expect(pair.engines[0].unreplicated[conversation.primaryHandle!] == reason)
    #expect(pair.engines[1].unreplicated[conversation.secondaryHandle!] == reason)
    // The traffic goes on while the fault is still there.
    pair.finish(slot: 0, peerTotal: 500, localTotal: 600)
    #expect(pair.engines[0].heldFrames == 0)
    #expect(pair.violations.prefix(3) == [])
  }

  @Test("What was held goes on when the hold ends in time", arguments: cases)
  func letGo(_ held: Case) throws {
    let (pair, conversation) = try replicated()
    hold(held.layer, true, on: held.slot, pair)
    cause(held.layer, pair, conversation)
    pair.localWrites(conversation, 50)
    pair.settle()
    #expect(pair.engines[0].heldFrames > 0)
    hold(held.layer, false, on: held.slot, pair)
    pair.settle()
    #expect(pair.engines[0].heldFrames == 0)
    #expect(pair.engines[0].node.occupancy.unacknowledgedRecords == 0)
    #expect(try phase(pair, conversation) == .replicating)
    pair.finish(slot: 0, peerTotal: 500, localTotal: 600)
    #expect(pair.violations.prefix(3) == [])
  }

  @Test("A layer that is held keeps nothing back that came before it", arguments: [0, 1])
  func before(slot: Int) throws {
    let (pair, conversation) = try replicated()
    hold(.prl, true, on: slot, pair)
    for _ in 0..<5 {
      pair.localWrites(conversation, 100)
      pair.settle()
    }
    #expect(pair.engines[0].heldFrames == 0)
    #expect(conversation.endLeft - conversation.localStart == 500)
    pair.peerWrites(conversation, 100)
    pair.settle()
    pair.localWrites(conversation, 100)
    pair.settle()
    #expect(pair.engines[0].heldFrames > 0)
    #expect(conversation.endLeft - conversation.localStart == 500)
    #expect(pair.violations.prefix(3) == [])
  }

  @Test("A hold that begins late holds what is on its way", arguments: [Layer.sdrl, .prl])
  func late(layer: Layer) throws {
    let (pair, conversation) = try replicated()
    pair.link.mute = [1]
    cause(layer, pair, conversation)
    #expect(pair.engines[0].node.occupancy.unacknowledgedRecords > 0)
    hold(layer, true, on: 0, pair)
    pair.link.mute = []
    pair.engines[0].node.setTimeout(of: layer, .milliseconds(200))
    pair.advance(milliseconds: 300)
    #expect(pair.engines[0].unreplicated[conversation.primaryHandle!] == .timeout(of: layer))
    #expect(pair.violations.prefix(3) == [])
  }

  @Test("A handshake stays open until the acknowledgement of what it said", arguments: [0, 1])
  func handshake(slot: Int) throws {
    let pair = SimulatedPair()
    pair.start()
    for engine in pair.engines { engine.node.setTimeout(of: .psrm, .seconds(60)) }
    hold(.psrm, true, on: slot, pair)
    let conversation = pair.converse()
    try pair.replicate(conversation)
    pair.peerWrites(conversation, 100)
    pair.settle()
    pair.advance(milliseconds: 5_000)
    #expect(try phase(pair, conversation) == .starting)
    #expect(pair.engines[0].replicated.isEmpty)
    #expect(conversation.localRead == 0, "a packet of a socket in its handshake reached the application")
    hold(.psrm, false, on: slot, pair)
    pair.settle()
    #expect(try phase(pair, conversation) == .replicating)
    #expect(pair.engines[0].replicated == [conversation.primaryHandle!])
    #expect(conversation.localRead == 100)
    pair.finish(slot: 0, peerTotal: 500, localTotal: 600)
    #expect(pair.violations.prefix(3) == [])
  }

  @Test("A handshake that is held for too long is given up on both REs, and its socket goes on")
  func handshakeTimeout() throws {
    let pair = SimulatedPair()
    pair.start()
    hold(.psrm, true, on: 1, pair)
    let conversation = pair.converse()
    try pair.replicate(conversation)
    pair.peerWrites(conversation, 100)
    pair.settle()
    pair.advance(milliseconds: 1_200)
    #expect(pair.engines[0].unreplicated[conversation.primaryHandle!] == .psrmTimeout)
    #expect(pair.engines[1].unreplicated[conversation.secondaryHandle!] == .psrmTimeout)
    #expect(pair.engines[0].replicated.isEmpty)
    hold(.psrm, false, on: 1, pair)
    pair.finish(slot: 0, peerTotal: 500, localTotal: 600)
    #expect(pair.violations.prefix(3) == [])
  }

  @Test("A hold outlives the link")
  func newLink() throws {
    let (pair, conversation) = try replicated()
    hold(.sdrl, true, on: 1, pair)
    pair.localWrites(conversation, 100)
    pair.settle()
    pair.cutLink()
    pair.advance(milliseconds: 2_000)
    pair.openLink()
    pair.advance(milliseconds: 500)
    #expect(pair.engines[0].unreplicated[conversation.primaryHandle!] == .linkLost)
    let next = pair.converse(startAt: 5_000)
    try pair.replicate(next)
    pair.settle()
    #expect(try phase(pair, next) == .replicating)
    pair.localWrites(next, 100)
    pair.settle()
    #expect(pair.engines[0].heldFrames == 1)
    #expect(pair.violations.prefix(3) == [])
  }

  @Test("Of two layers that are held, the earlier record counts")
  func twoLayers() {
    var hold = AcknowledgementHold()
    hold.note(.sdrl, at: 1)
    #expect(hold.permitted(1) == 1)
    hold.begin(.sdrl, from: nil)
    hold.begin(.prl, from: nil)
    for (position, layer) in [Layer.psrm, .prl, .psrm, .sdrl, .prl].enumerated() {
      hold.note(layer, at: LogPosition(position + 2))
    }
    #expect(hold.permitted(6) == 2)
    hold.end(.prl)
    #expect(hold.permitted(6) == 4)
    hold.begin(.sdrl, from: 1)
    #expect(hold.permitted(6) == 4, "what is held is not held again from another place")
    hold.end(.sdrl)
    #expect(hold.permitted(6) == 6)
  }
}

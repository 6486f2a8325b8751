import Packet
import Testing

@testable import Replication

/// What the protocol counts and says of itself: an operator must be able to believe it.
@Suite struct VisibleLayersTests {
  typealias Mode = ReplicationNode.Mode

  /// Holds packets of both directions: re1 follows, and acknowledges nothing.
  private func holding(mode: Mode) throws -> (SimulatedPair, Conversation, before: Statistics) {
    let (pair, conversation) = try SimulatedPair.replicating(mode: mode)
    pair.engines[1].withholdsAcknowledgements = true
    let before = pair.engines[0].node.statistics
    pair.localWrites(conversation, 100)
    pair.peerWrites(conversation, 100)
    pair.settle()
    #expect(pair.engines[0].heldFrames >= (mode == .strict ? 2 : 1))
    return (pair, conversation, before)
  }

  /// Every packet that was held has gone on in exactly one way, and by `path` went those of the directions that
  /// the mode holds.
  private func check(
    _ pair: SimulatedPair, mode: Mode, since before: Statistics, wentBy path: KeyPath<Reinjection, UInt64>
  ) {
    let engine = pair.engines[0]
    let now = engine.node.statistics
    #expect(engine.heldFrames == 0)
    #expect(now.sdrlReinjection[keyPath: path] > before.sdrlReinjection[keyPath: path])
    let incoming = now.prlReinjection[keyPath: path] - before.prlReinjection[keyPath: path]
    #expect(mode == .strict ? incoming > 0 : incoming == 0)
    #expect(now.held - before.held == now.reinjected - before.reinjected, "held once, gone on once")
    let others = [\Reinjection.acknowledged, \.rejected, \.timedOut, \.unreplicated, \.discarded]
    for other in others where other != path {
      #expect(now.sdrlReinjection[keyPath: other] == before.sdrlReinjection[keyPath: other])
      #expect(now.prlReinjection[keyPath: other] == before.prlReinjection[keyPath: other])
    }
    #expect(pair.violations.prefix(3) == [])
  }

  @Test("4.3 reinjection after an acknowledgement is counted once", arguments: [Mode.overlap, .strict])
  func acknowledged(mode: Mode) throws {
    let (pair, conversation, before) = try holding(mode: mode)
    pair.engines[1].withholdsAcknowledgements = false
    pair.engines[1].node.linkBatchEnded(now: pair.now)
    pair.engines[1].perform()
    pair.settle()
    check(pair, mode: mode, since: before, wentBy: \.acknowledged)
    #expect(try pair.engines[0].node.socket(conversation.primaryHandle!).phase == .replicating)
  }

  @Test("4.3 reinjection after a rejection is counted once", arguments: [Mode.overlap, .strict])
  func rejected(mode: Mode) throws {
    let (pair, conversation, before) = try holding(mode: mode)
    pair.engines[1].node.snoopFailed(conversation.secondaryHandle!, because: .applicationGone)
    pair.engines[1].perform()
    pair.settle()
    #expect(pair.engines[0].unreplicated[conversation.primaryHandle!] == .applicationGone)
    check(pair, mode: mode, since: before, wentBy: \.rejected)
  }

  @Test("4.3 reinjection after a timeout is counted once", arguments: [Mode.overlap, .strict])
  func timedOut(mode: Mode) throws {
    let (pair, conversation, before) = try holding(mode: mode)
    pair.advance(milliseconds: 1_200)
    pair.settle()
    let reason = try #require(pair.engines[0].unreplicated[conversation.primaryHandle!])
    #expect([.sdrlTimeout, .prlTimeout, .psrmTimeout].contains(reason))
    check(pair, mode: mode, since: before, wentBy: \.timedOut)
  }

  @Test(
    "4.3 reinjection when replication ends otherwise is counted once", arguments: [Mode.overlap, .strict])
  func unreplicated(mode: Mode) throws {
    let (pair, conversation, before) = try holding(mode: mode)
    try pair.engines[0].node.unreplicate(conversation.primaryHandle!, now: pair.now)
    pair.engines[0].perform()
    pair.settle()
    #expect(pair.engines[0].unreplicated[conversation.primaryHandle!] == .requested)
    check(pair, mode: mode, since: before, wentBy: \.unreplicated)
  }

  @Test("What waited for a handshake and is judged again is counted as that")
  func replayed() throws {
    let pair = SimulatedPair()
    pair.start()
    pair.engines[1].answersSteering = false
    let conversation = pair.converse()
    try pair.replicate(conversation)
    pair.peerWrites(conversation, 100)
    pair.settle()
    #expect(pair.engines[0].heldFrames == 1)
    let occupancy = pair.engines[0].node.occupancy
    #expect(occupancy.waitingPackets == 1 && occupancy.waitingBytes == occupancy.heldBytes)
    #expect(occupancy.waitingBytes > 100)
    pair.engines[1].node.steered(conversation.secondaryHandle!)
    pair.engines[1].perform()
    pair.settle()
    let statistics = pair.engines[0].node.statistics
    #expect(statistics.prlReinjection.replayed == 1)
    #expect(pair.engines[0].node.occupancy.waitingPackets == 0)
    #expect(pair.engines[0].node.occupancy.waitingBytes == 0)
    #expect(statistics.held == statistics.reinjected)
  }

  @Test("What waited for a handshake that the secondary refuses is counted as rejected")
  func handshakeRefused() throws {
    let pair = SimulatedPair()
    pair.start()
    pair.engines[1].answersSteering = false
    let conversation = pair.converse()
    try pair.replicate(conversation)
    pair.peerWrites(conversation, 100)
    pair.settle()
    pair.engines[1].node.snoopFailed(conversation.secondaryHandle!, because: .applicationGone)
    pair.engines[1].perform()
    pair.settle()
    #expect(pair.engines[0].refused[conversation.primaryHandle!] == .applicationGone)
    let statistics = pair.engines[0].node.statistics
    #expect(statistics.prlReinjection.rejected == 1)
    #expect(statistics.held == statistics.reinjected)
  }

  @Test("What a handover leaves behind is discarded, and not counted as sent")
  func discarded() throws {
    let (pair, conversation, before) = try holding(mode: .overlap)
    try pair.engines[0].node.releaseMastership(now: pair.now)
    pair.engines[0].perform()
    pair.advance(milliseconds: 500)
    #expect(pair.engines[0].unreplicated[conversation.primaryHandle!] == .mastershipLost)
    let now = pair.engines[0].node.statistics
    #expect(now.sdrlReinjection.discarded > before.sdrlReinjection.discarded)
    #expect(now.sdrlReinjection.afterUnreplication == 0)
    #expect(now.held == now.reinjected)
  }

  @Test("4.4 what was held at the most is remembered, and covers what is held now")
  func peaks() throws {
    let (pair, conversation, _) = try holding(mode: .strict)
    let occupancy = pair.engines[0].node.occupancy
    let peaks = pair.engines[0].node.peaks
    #expect(occupancy.heldPackets == pair.engines[0].heldFrames && occupancy.heldPackets > 0)
    #expect(peaks.heldPackets >= occupancy.heldPackets && peaks.heldBytes >= occupancy.heldBytes)
    #expect(peaks.unacknowledgedRecords >= occupancy.unacknowledgedRecords)
    #expect(peaks.unacknowledgedRecordBytes >= occupancy.unacknowledgedRecordBytes)
    pair.engines[1].withholdsAcknowledgements = false
    pair.finish(slot: 0, peerTotal: 300, localTotal: 300)
    pair.advance(milliseconds: 100)
    try pair.engines[0].node.free(conversation.primaryHandle!)
    #expect(pair.engines[0].node.occupancy == Occupancy())
    #expect(pair.engines[0].node.peaks.heldPackets >= peaks.heldPackets)
    // Also what was held on a link that is gone.
    pair.cutLink()
    pair.openLink()
    #expect(pair.engines[0].node.peaks.unacknowledgedRecords >= peaks.unacknowledgedRecords)
  }

  @Test("5.1.1, 5.2.1 global state is announced once, by an RE that is alone, and by no link")
  func globalState() {
    let pair = SimulatedPair()
    func announcements(_ slot: Int) -> [String] {
      pair.engines[slot].lines.map(\.text).filter { $0.contains("global state") }
    }
    for slot in 0...1 {
      pair.engines[slot].tick()
      #expect(announcements(slot) == ["PRL global state initialized", "PSRM global state initialized"])
    }
    #expect(!pair.link.isUp)
    pair.start()
    pair.cutLink()
    pair.advance(milliseconds: 100)
    pair.openLink()
    pair.advance(milliseconds: 1_000)
    for slot in 0...1 { #expect(announcements(slot).count == 2) }
  }

  @Test("3.1 log positions are the same on both REs, from the handshake on")
  func positions() throws {
    let (pair, conversation) = try SimulatedPair.replicating()
    func positions(_ slot: Int) throws -> LayerPositions {
      let handle = slot == 0 ? conversation.primaryHandle! : conversation.secondaryHandle!
      return try pair.engines[slot].node.socket(handle).positions
    }
    let first = try positions(0)
    #expect(first.sdrl > 0 && first.prl > 0 && first.psrm > 0)
    #expect(try positions(1) == first)
    pair.localWrites(conversation, 100)
    pair.peerWrites(conversation, 100)
    pair.settle()
    pair.advance(milliseconds: 50)
    #expect(try positions(0) != first)
    #expect(try positions(1) == positions(0))
  }

  @Test("5.1.6, 5.2.6 at debug each layer logs every record on both sides, otherwise none")
  func recordLines() throws {
    for isOn in [false, true] {
      let pair = SimulatedPair()
      for engine in pair.engines { engine.node.logsRecords = isOn }
      pair.start()
      let conversation = pair.converse()
      try pair.replicate(conversation)
      pair.settle()
      for _ in 0..<20 {
        pair.localWrites(conversation, 50)
        pair.peerWrites(conversation, 50)
        pair.settle()
        pair.peerReads(conversation)
      }
      pair.advance(milliseconds: 100)
      let sent = pair.engines[0].lines.filter { $0.level == .debug }.map(\.text)
      let received = pair.engines[1].lines.filter { $0.level == .debug }.map(\.text)
      guard isOn else {
        #expect(sent.isEmpty && received.isEmpty)
        continue
      }
      let handles = (conversation.primaryHandle!, conversation.secondaryHandle!)
      func lines(_ of: [String], _ layer: String, _ what: String, _ handle: Handle) -> Int {
        of.count {
          $0.contains(/^\w+ record \d+/) && $0.hasPrefix(layer) && $0.contains("\(what) for socket \(handle)")
        }
      }
      let statistics = pair.engines[0].node.statistics
      // The handshake has one record for each queue that was not empty; here both were.
      #expect(lines(sent, "PRL", "sent", handles.0) == Int(statistics.prlRecordsSent))
      #expect(lines(sent, "SDRL", "sent", handles.0) == Int(statistics.sdrlRecordsSent))
      #expect(lines(sent, "PSRM", "sent", handles.0) == Int(statistics.psrmRecordsSent))
      #expect(statistics.prlRecordsSent >= 20 && statistics.sdrlRecordsSent >= 20)
      for layer in ["PRL", "SDRL", "PSRM", "IHA"] {
        let count = lines(sent, layer, "sent", handles.0)
        #expect(count > 0 && lines(received, layer, "received", handles.1) == count)
      }
      #expect(sent.contains { $0.contains("IHA record received for socket \(handles.0): ihaAccept") })
      // Numbers are those of the log, without a gap.
      let numbers = sent.compactMap { $0.firstMatch(of: /record (\d+) sent/).flatMap { Int($0.1) } }
      #expect(numbers == Array(1...numbers.count))
    }
  }
}

extension Statistics {
  /// How often a held packet has gone on, in whatever way.
  fileprivate var reinjected: UInt64 {
    [sdrlReinjection, prlReinjection].reduce(0) {
      $0 + $1.acknowledged + $1.afterUnreplication + $1.replayed + $1.discarded
    }
  }
}

import Packet
import Simulation
import Testing

@testable import Replication

/// What comes in on the link: in order and once however it is cut, and never believed when it is wrong.
@Suite struct LinkInputTests {
  private let now = Instant(nanoseconds: 1_000_000_000)
  private static let primary = Handle(slot: 0, generation: 1, index: 0)
  private static let recordLimit = 4_096

  private func node() -> ReplicationNode {
    ReplicationNode(
      .init(
        node: "re1", slot: 1, priority: 100, timing: PairTiming(interval: .milliseconds(100), misses: 3),
        mode: .overlap, timeouts: LayerTimeouts(), socketLimit: 4, holdLimit: 1 << 20,
        recordLimit: Self.recordLimit, incarnation: 7), now: now)
  }

  private var hello: [UInt8] { Hello(slot: 0, node: "re0", session: 5, handleLimit: 4).record() }

  private var keepalive: [UInt8] {
    Keepalive(
      slot: 0, phase: .primary, term: 3, priority: 200, sentAt: 1, echo: .min, echoAnywhere: .min,
      leaseIsTimed: true, uplinkIsRunning: true, linkIsUp: true, session: 5, voidedSession: 0
    ).record()
  }

  /// A secondary that is up, and the handle that waits for the handshake.
  private func attached() throws -> (ReplicationNode, Handle) {
    var node = node()
    node.linkOpened(now: now)
    let greeting = hello + keepalive
    let used = greeting.withUnsafeBytes { node.linkReceived($0, now: now) }
    #expect(used == greeting.count)
    #expect(node.arbiter.phase == .secondary)
    let handle = try node.attach(primary: Self.primary)
    node.actions = []
    return (node, handle)
  }

  private func segment(
    _ kind: RecordKind, _ handle: Handle, _ sequence: UInt32, _ payload: [UInt8], fin: Bool = false
  ) -> [UInt8] {
    let header = TCPSegment(
      sequence: SequenceNumber(sequence), acknowledgment: SequenceNumber(500),
      flags: fin ? [.ack, .fin] : .ack,
      window: 100, timestamps: TCPTimestamps(value: 9, echo: 8), payload: 0..<payload.count)
    let record = SegmentRecord(
      kind: kind, handle: handle, sequence: header.sequence, segment: header, window: 100,
      payload: header.payload)
    var bytes = [UInt8](repeating: 0, count: SegmentRecord.fixedByteCount)
    bytes.withUnsafeMutableBytes { record.store(in: $0) }
    return bytes + payload
  }

  /// A socket's whole life, as the primary tells it.
  private func life(of handle: Handle) -> [UInt8] {
    func record(_ kind: RecordKind, _ body: (inout ByteWriter) -> Void = { _ in }) -> [UInt8] {
      var writer = ByteWriter(kind, to: handle)
      body(&writer)
      return writer.record()
    }
    let flow = Flow(
      .tcp, local: Endpoint(IPAddress(v4: 1), 2), remote: Endpoint(IPAddress(v4: 3), 4))
    let block = ControlBlock(
      sendUnacknowledged: SequenceNumber(1_000), sendNext: SequenceNumber(1_003), sendWindow: 100,
      sendWindowUpdate: SequenceNumber(500), maximumSendWindow: 100, receiveAcknowledged: SequenceNumber(500),
      receiveNext: SequenceNumber(500), receiveWindow: 200, timestampRecent: 1, timestampSent: 1,
      negotiated: NegotiatedOptions(
        maximumSegmentSize: 100, sendWindowScale: nil, receiveWindowScale: nil, sackPermitted: false,
        timestamps: true))
    var bytes = record(.ihaBegin) {
      $0.handle(Self.primary)
      $0.flow(flow, version: LinkVersion.supported.upperBound)
      $0.byteArray([1, 2])
    }
    bytes += record(.sdrlInitial) { $0.byteArray([10, 11, 12]) }
    bytes += record(.psrmSnapshot) {
      block.write(to: &$0)
      $0.sequence(block.sendUnacknowledged)
      $0.boolean(false)
      $0.boolean(false)
    }
    bytes += record(.prlInitial) { $0.byteArray([20, 21]) }
    bytes += record(.ihaCommit)
    bytes += keepalive
    bytes += segment(.sdrlSegment, handle, 1_003, [13, 14])
    bytes += segment(.prlSegment, handle, 502, [24, 25])
    bytes += segment(.prlSegment, handle, 500, [22, 23])
    bytes += record(.psrmUpdate) {
      block.write(to: &$0)
      $0.sequence(SequenceNumber(900))
    }
    bytes += segment(.prlSegment, handle, 504, [26], fin: true)
    bytes += segment(.sdrlSegment, handle, 1_005, [15], fin: true)
    bytes += record(.ihaEnd) {
      $0.handle(Self.primary)
      $0.integer(UnreplicateReason.closed.rawValue)
    }
    return bytes
  }

  /// What a run of the secondary comes to.
  private struct Outcome: Equatable {
    var rcv: [UInt8] = []
    var snd: [UInt8] = []
    var events: [String] = []
    var acknowledged: LogPosition = 0
  }

  private func run(_ pieces: [ArraySlice<UInt8>], _ node: inout ReplicationNode) -> Outcome {
    var outcome = Outcome()
    var input: [UInt8] = []
    for piece in pieces {
      input += piece
      let used = input.withUnsafeBytes { node.linkReceived($0, now: now) }
      collect(&node, input, &outcome)
      input.removeFirst(used)
      node.linkBatchEnded(now: now)
      collect(&node, input, &outcome)
    }
    return outcome
  }

  private func collect(_ node: inout ReplicationNode, _ input: [UInt8], _ outcome: inout Outcome) {
    while !node.actions.isEmpty {
      let actions = node.actions
      node.actions = []
      for action in actions {
        switch action {
        case .snoop(_, .rcv, let range): outcome.rcv += input[range]
        case .snoop(_, .snd, let range): outcome.snd += input[range]
        case .snoopOwned(_, .rcv, let bytes): outcome.rcv += bytes
        case .snoopOwned(_, .snd, let bytes): outcome.snd += bytes
        case .endSnoop(_, let stream): outcome.events.append("end of \(stream)")
        case .steer(let handle, _):
          outcome.events.append("steer")
          node.steered(handle)
        case .unreplicated(_, let reason): outcome.events.append("unreplicated: \(reason)")
        case .closeLink(let reason): outcome.events.append("close: \(reason)")
        case .send(let bytes):
          if bytes[0] == 5, bytes[1] == 3 { outcome.acknowledged = LogPosition(bytes[23]) }
        default: break
        }
      }
    }
  }

  @Test("Records arrive in order and once, wherever the stream is cut")
  func everySplit() throws {
    let (fresh, handle) = try attached()
    let stream = life(of: handle)
    let expected = Outcome(
      rcv: Array(20...26), snd: Array(10...15),
      events: ["steer", "end of rcv", "end of snd", "unreplicated: closed"], acknowledged: 12)
    for cut in 0...stream.count {
      var node = fresh
      #expect(run([stream[..<cut], stream[cut...]], &node) == expected, "cut at \(cut)")
    }
    var node = fresh
    #expect(run(stream.indices.map { stream[$0...$0] }, &node) == expected, "byte by byte")
    var generator = SeededGenerator(seed: 13)
    for _ in 0..<50 {
      var pieces: [ArraySlice<UInt8>] = []
      var place = 0
      while place < stream.count {
        let next = min(stream.count, place + Int.random(in: 1...120, using: &generator))
        pieces.append(stream[place..<next])
        place = next
      }
      var node = fresh
      #expect(run(pieces, &node) == expected)
    }
  }

  /// Bytes that nobody may send, and the word that the reason must have in it.
  private static let bad: [(name: String, bytes: [UInt8], reason: String)] = [
    ("HTTP", Array("GET / HTTP/1.1\r\nHost: re1\r\n\r\n".utf8), "unknown type 71"),
    ("zeros", [UInt8](repeating: 0, count: 64), "unknown type 0"),
    ("a later version", [5, 2, 9, 0, 0, 0, 0, 16] + [UInt8](repeating: 0, count: 8), "unknown version 9"),
    ("flags", [5, 2, 1, 4, 0, 0, 0, 16] + [UInt8](repeating: 0, count: 8), "unknown flags 4"),
    ("too short", [5, 2, 1, 0, 0, 0, 0, 3] + [UInt8](repeating: 0, count: 8), "length 3"),
    ("too long", [5, 2, 1, 0, 0, 1, 0, 0] + [UInt8](repeating: 0, count: 8), "length 65536"),
    (
      "truncated body", [5, 3, 1, 0, 0, 0, 0, 18] + [UInt8](repeating: 0, count: 10), "before its last field"
    ),
    ("surplus", [5, 3, 1, 0, 0, 0, 0, 25] + [UInt8](repeating: 0, count: 17), "after its last field"),
    (
      "a position of the future", [5, 3, 1, 0, 0, 0, 0, 24] + [UInt8](repeating: 1, count: 16),
      "acknowledged position"
    ),
    ("a foreign handle", [4, 3, 1, 0, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0], "never allocated"),
    ("a made-up handle", [4, 3, 1, 0, 0, 0, 0, 16, 1, 0, 0, 99, 0, 0, 0, 0], "never allocated"),
    (
      "a short segment", [1, 1, 1, 0, 0, 0, 0, 20, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
      "before its last field"
    ),
  ]

  @Test("What is wrong closes the link once, with a reason, and the next link works", arguments: 0..<12)
  func refused(index: Int) throws {
    let (fresh, handle) = try attached()
    let (name, bytes, reason) = Self.bad[index]
    // While up, behind a good record.
    var node = fresh
    let outcome = run([(keepalive + bytes)[...]], &node)
    #expect(outcome.events.count == 1 && outcome.events[0].contains(reason), "\(name): \(outcome.events)")
    // While greeting, anything but a hello is wrong.
    var greeting = self.node()
    greeting.linkOpened(now: now)
    greeting.actions = []
    let early = run([bytes[...]], &greeting)
    #expect(early.events.count == 1 && early.events[0].hasPrefix("close"), "\(name): \(early.events)")

    node.linkClosed(.endOfStream, now: now)
    node.linkOpened(now: now)
    node.actions = []
    #expect(run([(hello + keepalive)[...]], &node).events == [])
    #expect(node.arbiter.linkIsUp)
    #expect(try node.socket(handle).phase == .attached)
  }

  @Test func aRecordBeforeTheGreetingOrASecondGreetingIsRefused() throws {
    var early = node()
    early.linkOpened(now: now)
    early.actions = []
    #expect(
      run([keepalive[...]], &early).events == ["close: record kkcmKeepalive is not allowed in this state"])
    var (node, _) = try attached()
    #expect(run([hello[...]], &node).events == ["close: record kkcmHello is not allowed in this state"])
  }

  @Test func twoREsOfOneSlotOrWithoutACommonVersionDoNotPair() {
    var other = Hello(slot: 1, node: "re1", session: 5, handleLimit: 4)
    var first = node()
    first.linkOpened(now: now)
    #expect(run([other.record()[...]], &first).events.first?.contains("slot 1 too") == true)
    #expect(!first.arbiter.linkIsUp)
    let newer = LinkVersion.supported.upperBound + 1
    other = Hello(slot: 0, node: "re0", session: 5, handleLimit: 4, versions: newer...newer + 1)
    var second = node()
    second.linkOpened(now: now)
    #expect(
      run([other.record()[...]], &second).events == [
        "close: the other RE speaks versions \(newer) to \(newer + 1) of the link, "
          + "this one \(LinkVersion.supported.lowerBound) to \(LinkVersion.supported.upperBound)"
      ])
    #expect(second.linkVersion == nil)
  }

  @Test(
    "Both use the highest version that they share",
    arguments: [
      (1...1, 1), (1...2, 2), (2...2, 2), (1...3, 3), (3...7, 3), (1...7, 3),
    ] as [(ClosedRange<UInt16>, UInt16)])
  func versions(_ offered: ClosedRange<UInt16>, _ agreed: UInt16) {
    var node = node()
    node.linkOpened(now: now)
    let hello = Hello(slot: 0, node: "re0", session: 5, handleLimit: 4, versions: offered)
    #expect(run([hello.record()[...]], &node).events == [])
    #expect(node.linkVersion == agreed)
    node.linkClosed(.reset, now: now)
    #expect(node.linkVersion == nil)
  }

  @Test(
    "Two engines of different releases replicate, in whichever place the older one is",
    arguments: [0, 1], [1, 2] as [UInt16])
  func differentReleases(olderSlot: Int, version: UInt16) throws {
    var linkVersions = [LinkVersion.supported, LinkVersion.supported]
    linkVersions[olderSlot] = 1...version
    let pair = SimulatedPair(linkVersions: linkVersions)
    pair.start()
    #expect(pair.engines.map(\.node.linkVersion) == [version, version])
    let conversation = pair.converse()
    try pair.replicate(conversation)
    pair.advance(milliseconds: 50)
    pair.peerWrites(conversation, 500)
    pair.advance(milliseconds: 50)
    try pair.engines[0].node.unreplicate(conversation.primaryHandle!, now: pair.now)
    pair.advance(milliseconds: 50)
    #expect(pair.engines[0].unreplicated[conversation.primaryHandle!] == .requested)
    #expect(pair.engines[1].unreplicated[conversation.secondaryHandle!] == .requested)
    #expect(pair.violations == [])
  }

  @Test func aRecordAboutASocketThatIsGoneIsNoError() throws {
    var (node, handle) = try attached()
    try node.free(handle)
    let outcome = run([life(of: handle)[...]], &node)
    #expect(outcome.events == [] && outcome.rcv == [] && outcome.snd == [])
    #expect(node.statistics.staleRecords > 0)
  }

  @Test("Whoever is primary follows nobody: it closes the link rather than acknowledge what it does not keep")
  func recordsForAPrimary() throws {
    let pair = SimulatedPair()
    pair.start()
    let conversation = pair.converse()
    try pair.replicate(conversation)
    pair.settle()
    var node = pair.engines[1].node
    for milliseconds in stride(from: Int64(5), through: 2_000, by: 5) where node.arbiter.phase != .primary {
      node.tick(now: pair.now + .milliseconds(milliseconds))
      if node.actions.contains(where: { if case .grantLease = $0 { true } else { false } }) {
        node.leaseGranted(true, now: pair.now + .milliseconds(milliseconds))
      }
      node.actions = []
    }
    #expect(node.arbiter.phase == .primary)
    let outcome = run([segment(.prlSegment, conversation.secondaryHandle!, 1_000, [1])[...]], &node)
    #expect(outcome.events == ["close: record prlSegment is not allowed in this state"])
    #expect(outcome.acknowledged == 0)
  }

  @Test("Damaged records never bring the node down", arguments: 1...6 as ClosedRange<UInt64>)
  func mutations(seed: UInt64) throws {
    let (fresh, handle) = try attached()
    let stream = life(of: handle)
    var generator = SeededGenerator(seed: seed)
    for _ in 0..<150 {
      var damaged = stream
      for _ in 0..<Int.random(in: 1...4, using: &generator) {
        damaged[Int.random(in: 0..<damaged.count, using: &generator)] = UInt8.random(
          in: 0...255, using: &generator)
      }
      var node = fresh
      let outcome = run([damaged[...]], &node)
      #expect(outcome.events.count { $0.hasPrefix("close") } <= 1)
      node.linkClosed(.endOfStream, now: now)
      node.linkOpened(now: now)
      node.actions = []
      #expect(run([hello[...]], &node).events.allSatisfy { !$0.hasPrefix("close") })
    }
  }
}

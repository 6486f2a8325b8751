import Packet
import Testing

@testable import Replication

/// Records that are well formed and that no honest RE sends: what fuzzing found, and what stands beside it.
@Suite struct HostileRecordTests {
  private let now = Instant(nanoseconds: 1_000_000_000)
  private static let primary = Handle(slot: 0, generation: 1, index: 0)
  private static let holdLimit = 10_000

  private func keepalive(
    term: UInt64, phase: MastershipPhase = .primary, echoAnywhere: Int64 = .min
  ) -> Keepalive {
    Keepalive(
      slot: 0, phase: phase, term: term, priority: 200, sentAt: 1, echo: .min, echoAnywhere: echoAnywhere,
      leaseIsTimed: true, uplinkIsRunning: true, linkIsUp: true, session: 5, voidedSession: 0)
  }

  private func record(
    _ kind: RecordKind, to handle: Handle = Handle(rawValue: 0), _ body: (inout ByteWriter) -> Void = { _ in }
  ) -> [UInt8] {
    var writer = ByteWriter(kind, to: handle)
    body(&writer)
    return writer.record()
  }

  /// A secondary that is up, and the handle that waits for the handshake.
  private func attached() throws -> (ReplicationNode, Handle) {
    var node = ReplicationNode(
      .init(
        node: "re1", slot: 1, priority: 100, timing: PairTiming(interval: .milliseconds(100), misses: 3),
        mode: .overlap, timeouts: LayerTimeouts(), socketLimit: 4, holdLimit: Self.holdLimit,
        recordLimit: 4_096, incarnation: 7), now: now)
    greet(&node)
    let handle = try node.attach(primary: Self.primary)
    return (node, handle)
  }

  private func greet(
    _ node: inout ReplicationNode, versions: ClosedRange<UInt16> = LinkVersion.supported
  ) {
    node.linkOpened(now: now)
    let hello = Hello(slot: 0, node: "re0", session: 5, handleLimit: 4, versions: versions)
    let reason = receive(hello.record() + keepalive(term: 3).record(), &node)
    #expect(reason == nil)
    #expect(node.arbiter.phase == .secondary)
  }

  /// - Returns: why the node wants the link closed, if it does.
  private func receive(_ bytes: [UInt8], _ node: inout ReplicationNode) -> String? {
    node.actions = []
    let used = bytes.withUnsafeBytes { node.linkReceived($0, now: now) }
    #expect(used == bytes.count)
    for case .closeLink(let reason) in node.actions { return reason }
    return nil
  }

  /// The handshake up to the snapshot, without it.
  private func beginning(_ handle: Handle) -> [UInt8] {
    record(.ihaBegin, to: handle) {
      $0.handle(Self.primary)
      $0.flow(
        Flow(.tcp, local: Endpoint(IPAddress(v4: 1), 2), remote: Endpoint(IPAddress(v4: 3), 4)),
        version: LinkVersion.supported.upperBound)
      $0.byteArray([])
    }
  }

  private let block = ControlBlock(
    sendUnacknowledged: SequenceNumber(0), sendNext: SequenceNumber(0), sendWindow: 100,
    sendWindowUpdate: SequenceNumber(0), maximumSendWindow: 100, receiveAcknowledged: SequenceNumber(0),
    receiveNext: SequenceNumber(0), receiveWindow: 200, timestampRecent: 1, timestampSent: 1,
    negotiated: NegotiatedOptions(
      maximumSegmentSize: 100, sendWindowScale: nil, receiveWindowScale: nil, sackPermitted: false,
      timestamps: true))

  /// The rest of the handshake.
  private func rest(_ handle: Handle) -> [UInt8] {
    record(.sdrlInitial, to: handle) { $0.byteArray([1]) }
      + record(.psrmSnapshot, to: handle) {
        block.write(to: &$0)
        $0.sequence(block.sendUnacknowledged)
        $0.boolean(false)
        $0.boolean(false)
      } + record(.prlInitial, to: handle) { $0.byteArray([2]) } + record(.ihaCommit, to: handle)
  }

  private func rejections(_ node: ReplicationNode) -> Int {
    node.actions.count {
      guard case .send(let bytes) = $0 else { return false }
      return bytes.starts(with: [4, 4]) && bytes.dropFirst(8).starts(with: [0, 0, 0, 1])
    }
  }

  @Test("6.1 A handle that an application made up costs its socket the handshake, and nobody the link")
  func madeUpHandle() throws {
    var (node, handle) = try attached()
    for madeUp in [
      Handle(slot: 1, generation: 99, index: 3), Handle(slot: 1, generation: 99, index: handle.index),
      Handle(slot: 0, generation: 1, index: 0),
    ] {
      #expect(receive(beginning(madeUp) + rest(madeUp), &node) == nil)
      #expect(rejections(node) == 1)
      // The primary gave the handshake up before it heard of that.
      let end = end(of: Self.primary, to: madeUp)
      #expect(receive(end, &node) == nil)
      #expect(rejections(node) == 0)
    }
    #expect(receive(beginning(handle) + rest(handle), &node) == nil)
    #expect(rejections(node) == 0)
    #expect(try node.socket(handle).phase == .receiving)

    // In the middle of a handshake, and after one, a handle is the other engine's word.
    for madeUp in [1, 2] as [UInt32] {
      for bytes in [
        rest(Handle(slot: 1, generation: 99, index: madeUp)),
        record(.psrmUpdate, to: Handle(slot: 1, generation: 99, index: madeUp)),
      ] {
        let reason = receive(bytes, &node)
        #expect(reason?.contains("never allocated") == true)
        node.linkClosed(.closedHere, now: now)
        greet(&node)
      }
    }
  }

  private func end(of primary: Handle, to handle: Handle) -> [UInt8] {
    record(.ihaEnd, to: handle) {
      $0.handle(primary)
      $0.integer(UnreplicateReason.requested.rawValue)
    }
  }

  @Test("6.1 The end of a replication ends no pair but its own")
  func endOfAnother() throws {
    var (node, handle) = try attached()
    #expect(receive(beginning(handle) + rest(handle), &node) == nil)
    #expect(try node.socket(handle).phase == .receiving)
    // Another application of the primary took the handle for its own; the handshake was refused, and ends.
    let another = Handle(slot: 0, generation: Self.primary.generation, index: Self.primary.index + 1)
    #expect(receive(end(of: another, to: handle), &node) == nil)
    #expect(try node.socket(handle).phase == .receiving)
    #expect(receive(end(of: Self.primary, to: handle), &node) == nil)
    #expect(try node.socket(handle).phase == .unreplicated(.requested))
  }

  @Test("6.1 A handle that no RE can have allocated is refused before anything is said of it")
  func impossibleHandle() throws {
    var (node, _) = try attached()
    for handle in [Handle(slot: 2, generation: 1, index: 0), Handle(slot: 0, generation: 0, index: 0)] {
      #expect(throws: SocketError.handle(.neverAllocated(handle))) { _ = try node.attach(primary: handle) }
    }
    let own = Handle(slot: 1, generation: 1, index: 0)
    #expect(throws: SocketError.sameSide(own)) { _ = try node.attach(primary: own) }
  }

  @Test(
    "A term that could not rise any more is refused, on the link and on the uplink",
    arguments: [.max, .max / 2 + 1])
  func highTerm(term: UInt64) throws {
    for bytes in [
      keepalive(term: term).record(),
      record(.mastershipHandover) {
        $0.integer(term)
        $0.integer(Int64(1))
      },
      record(.mastershipGrant) {
        $0.integer(term)
        $0.integer(Int64(1))
      },
    ] {
      var (node, _) = try attached()
      #expect(receive(bytes, &node) == "record has an invalid term")
      node.linkClosed(.endOfStream, now: now)
      greet(&node)
    }
    #expect(keepalive(term: term).uplinkPayload().withUnsafeBytes { Keepalive(uplinkPayload: $0) } == nil)
  }

  @Test("The highest term that is taken can still rise")
  func highestTerm() throws {
    var (node, _) = try attached()
    #expect(receive(keepalive(term: .max / 2).record(), &node) == nil)
    node.linkClosed(.carrierLost, now: now)
    for milliseconds in stride(from: Int64(5), through: 5_000, by: 5) {
      node.tick(now: now + .milliseconds(milliseconds))
    }
    #expect(node.arbiter.term == UInt64.max / 2 + 1)
  }

  @Test func mastershipIsNotHandedOverInATermBeforeTheFirst() throws {
    var (node, _) = try attached()
    let handover = record(.mastershipHandover) {
      $0.integer(UInt64(0))
      $0.integer(now.nanoseconds)
    }
    #expect(receive(handover, &node) == "record has an invalid term")
    #expect(node.arbiter.phase == .secondary)
  }

  @Test("What happens to a connection before its state is known closes the link", arguments: 0..<3)
  func changeBeforeSnapshot(index: Int) throws {
    var (node, handle) = try attached()
    #expect(receive(beginning(handle), &node) == nil)
    let change =
      switch index {
      case 0:
        record(.psrmUpdate, to: handle) {
          block.write(to: &$0)
          $0.sequence(SequenceNumber(900))
        }
      case let index:
        record(index == 1 ? .sdrlSegment : .prlSegment, to: handle) { writer in
          for _ in 0..<24 { writer.integer(UInt8(0)) }
        }
      }
    #expect(receive(change, &node)?.hasSuffix("is not allowed in this state") == true)
    node.linkClosed(.endOfStream, now: now)
    greet(&node)
    #expect(throws: Never.self) { try node.free(handle) }
    #expect(node.occupancy == Occupancy())
  }

  @Test("A send queue beyond the limit is not kept, however many pieces it comes in")
  func endlessSendQueue() throws {
    var (node, handle) = try attached()
    #expect(receive(beginning(handle), &node) == nil)
    let piece = record(.sdrlInitial, to: handle) { $0.byteArray([UInt8](repeating: 7, count: 1_000)) }
    for _ in 0..<100 {
      #expect(receive(piece, &node) == nil)
      #expect(node.occupancy.bufferedBytes <= Self.holdLimit)
    }
    #expect(try node.socket(handle).phase == .unreplicated(.limitReached))
  }

  // MARK: Datagrams

  private static let local = Endpoint(IPAddress(v4: 1), 2)
  private static let peer = Endpoint(IPAddress(v4: 3), 4)

  private func datagram(
    _ kind: RecordKind, to handle: Handle, remote: Endpoint = peer, local: Endpoint = local,
    _ payload: [UInt8] = [1], change: (inout [UInt8]) -> Void = { _ in }
  ) -> [UInt8] {
    let record = DatagramRecord(
      kind: kind, handle: handle, remote: remote, local: local, payload: 0..<payload.count)
    var bytes = [UInt8](repeating: 0xff, count: DatagramRecord.fixedByteCount)
    bytes.withUnsafeMutableBytes { record.store(in: $0) }
    bytes += payload
    change(&bytes)
    return bytes
  }

  private func beginning(_ handle: Handle, _ flow: Flow, version: UInt16 = 3) -> [UInt8] {
    record(.ihaBegin, to: handle) {
      $0.handle(Self.primary)
      $0.flow(flow, version: version)
      $0.byteArray([])
    }
  }

  /// A secondary whose pair is for UDP, in the middle of its handshake.
  private func receivingDatagrams() throws -> (ReplicationNode, Handle) {
    var (node, tcp) = try attached()
    try node.free(tcp)
    let handle = try node.attach(primary: Self.primary, transport: .udp)
    let flow = Flow(.udp, local: Self.local, remote: Self.peer)
    #expect(receive(beginning(handle, flow), &node) == nil)
    #expect(try node.socket(handle).phase == .receiving)
    return (node, handle)
  }

  private func snoopingDatagrams() throws -> (ReplicationNode, Handle) {
    var (node, handle) = try receivingDatagrams()
    #expect(receive(record(.ihaCommit, to: handle), &node) == nil)
    node.steered(handle)
    #expect(try node.socket(handle).phase == .snooping)
    return (node, handle)
  }

  @Test func aDatagramSurvivesItsRecord() throws {
    for (remote, local) in [
      (Self.peer, Self.local),
      (Endpoint(IPAddress("2001:db8::4")!, 65_535), Endpoint(IPAddress("fe80::1")!, 1)),
    ] {
      let bytes = datagram(.sdrlDatagram, to: Self.primary, remote: remote, local: local, [7, 8])
      let read = try bytes.withUnsafeBytes {
        try DatagramRecord(try RecordHeader($0, lengthLimit: 100), $0, at: 100)
      }
      #expect(read.kind == .sdrlDatagram && read.handle == Self.primary)
      #expect(read.remote == remote && read.local == local && read.payload == 156..<158)
      #expect(bytes.count == read.byteCount)
    }
  }

  @Test("A datagram record that says what none can say closes the link", arguments: 0..<6)
  func impossibleDatagram(index: Int) throws {
    var (node, handle) = try snoopingDatagrams()
    let (bytes, reason) =
      switch index {
      case 0:
        (datagram(.prlDatagram, to: handle) { $0[16] = 5 }, "record has an invalid address family")
      case 1: (datagram(.prlDatagram, to: handle) { $0[19] = 1 }, "record has an invalid datagram record")
      case 2: (datagram(.prlDatagram, to: handle) { $0[30] = 1 }, "record has an invalid datagram record")
      case 3: (datagram(.sdrlDatagram, to: handle) { $0[55] = 1 }, "record has an invalid datagram record")
      case 4:
        (
          record(.sdrlDatagram, to: handle) { $0.byteArray([UInt8](repeating: 0, count: 35)) },
          "record ends before its last field"
        )
      default:
        (
          datagram(.sdrlDatagram, to: Handle(slot: 1, generation: 99, index: 1)),
          "record for handle 0x100006300000001, which was never allocated"
        )
      }
    #expect(receive(bytes, &node) == reason)
  }

  @Test("Datagrams of others than the pair's flow close the link; the unread ones may be anybody's")
  func foreignDatagram() throws {
    let stranger = Endpoint(IPAddress(v4: 9), 9)
    for (remote, local) in [(stranger, Self.local), (Self.peer, stranger)] {
      for kind in [RecordKind.prlDatagram, .sdrlDatagram] {
        var (node, handle) = try snoopingDatagrams()
        #expect(
          receive(datagram(kind, to: handle, remote: remote, local: local), &node)
            == "record has an invalid datagram's flow")
      }
    }
    var (node, handle) = try receivingDatagrams()
    #expect(receive(datagram(.prlDatagram, to: handle, remote: stranger, []), &node) == nil)
    let shown = node.actions.compactMap { action in
      if case .snoopOwnedDatagram(handle, .rcv, let datagram) = action { datagram } else { nil }
    }
    #expect(shown == [Datagram(remote: stranger, local: Self.local, payload: [])])
    let other = Endpoint(IPAddress(v6High: 1, low: 2), 3)
    #expect(
      receive(datagram(.prlDatagram, to: handle, remote: other, local: other), &node)?
        .hasSuffix("is not allowed in this state") == true)
  }

  @Test("Streams of a UDP socket and datagrams of a TCP connection close the link", arguments: 0..<10)
  func otherTransport(index: Int) throws {
    var (node, handle) = try index < 5 ? receivingDatagrams() : snoopingDatagrams()
    let segment: (inout ByteWriter) -> Void = { writer in
      for _ in 0..<24 { writer.integer(UInt8(0)) }
    }
    let bytes: [UInt8]
    switch index {
    case 0: bytes = record(.sdrlInitial, to: handle) { $0.byteArray([1]) }
    case 1: bytes = record(.prlInitial, to: handle) { $0.byteArray([1]) }
    case 2:
      bytes = record(.psrmSnapshot, to: handle) {
        block.write(to: &$0)
        $0.sequence(block.sendUnacknowledged)
        $0.boolean(false)
        $0.boolean(false)
      }
    // What has happened since the handshake cannot be told in it.
    case 3: bytes = datagram(.sdrlDatagram, to: handle)
    case 4, 5: bytes = record(.prlSegment, to: handle, segment)
    case 6: bytes = record(.sdrlSegment, to: handle, segment)
    case 7:
      bytes = record(.psrmUpdate, to: handle) {
        block.write(to: &$0)
        $0.sequence(SequenceNumber(900))
      }
    case 8:
      bytes = record(.sdrlRecord, to: handle) { writer in
        for _ in 0..<9 { writer.integer(UInt8(0)) }
      }
    default:
      (node, handle) = try attached()
      #expect(receive(beginning(handle) + rest(handle), &node) == nil)
      bytes = datagram(.prlDatagram, to: handle)
    }
    #expect(receive(bytes, &node)?.hasSuffix("is not allowed in this state") == true)
    node.linkClosed(.endOfStream, now: now)
    greet(&node)
    #expect(throws: Never.self) { try node.free(handle) }
    #expect(node.occupancy == Occupancy())
  }

  @Test("6.1 A made-up handle in the handshake of a UDP socket costs nobody the link")
  func madeUpDatagramHandle() throws {
    var (node, _) = try attached()
    let madeUp = Handle(slot: 1, generation: 99, index: 3)
    let flow = Flow(unconnected: Self.local)
    let handshake =
      beginning(madeUp, flow) + datagram(.prlDatagram, to: madeUp) + record(.ihaCommit, to: madeUp)
    #expect(receive(handshake, &node) == nil)
    #expect(rejections(node) == 1)
  }

  @Test("A flow that no socket has is refused") func impossibleFlow() throws {
    let wild = Endpoint(IPAddress(v4: 9), 0)
    let v6 = Endpoint(IPAddress(v6High: 1, low: 2), 3)
    for flow in [
      Flow(.tcp, local: Self.local, remote: wild), Flow(.udp, local: Self.local, remote: wild),
      Flow(.tcp, local: Self.local, remote: Endpoint(.unspecified(.v4), 0)),
      Flow(.udp, local: Self.local, remote: v6),
    ] {
      var (node, handle) = try attached()
      #expect(receive(beginning(handle, flow), &node) == "record has an invalid flow", "\(flow)")
    }
  }

  @Test("An older link has no datagrams, and says so") func olderLink() throws {
    let flow = Flow(.udp, local: Self.local, remote: Self.peer)
    for version in [1, 2] as [UInt16] {
      for bytes in [
        beginning(Self.primary, flow, version: version), datagram(.prlDatagram, to: Self.primary),
        datagram(.sdrlDatagram, to: Self.primary),
      ] {
        var (node, tcp) = try attached()
        node.linkClosed(.reset, now: now)
        greet(&node, versions: 1...version)
        var bytes = bytes
        bytes.replaceSubrange(8..<16, with: withUnsafeBytes(of: tcp.rawValue.bigEndian) { Array($0) })
        let reason = receive(bytes, &node)
        let isBegin = bytes[0] == 4
        #expect(
          isBegin
            ? reason == "record has an invalid transport"
            : reason?.hasSuffix("is not allowed in this state") == true)
      }
    }
  }

  @Test("A pair for UDP that waits is not filled by an older engine") func olderEngineAndAPair() throws {
    var (node, tcp) = try attached()
    try node.free(tcp)
    let handle = try node.attach(primary: Self.primary, transport: .udp)
    node.linkClosed(.reset, now: now)
    greet(&node, versions: 1...2)
    let flow = Flow(.tcp, local: Self.local, remote: Self.peer)
    #expect(receive(beginning(handle, flow, version: 2), &node) == nil)
    #expect(rejections(node) == 1)
    // A reason that it knows.
    let reasons = node.actions.compactMap { action -> UInt8? in
      if case .send(let bytes) = action, bytes.starts(with: [4, 4]) { bytes.last } else { nil }
    }
    #expect(reasons == [UnreplicateReason.notAttached.rawValue])
    #expect(try node.socket(handle).phase == .attached)
  }

  @Test(
    "A grant that answers a keepalive from before all time is too old",
    arguments: [.min, .min + 1, -1] as [Int64])
  func ancientGrant(echo: Int64) {
    var arbiter = PairArbiter(
      slot: 1, priority: 255, timing: PairTiming(interval: .milliseconds(100), misses: 3), now: now)
    arbiter.linkCameUp(primaryRestarted: false, now: now)
    let greeting = keepalive(term: 0, phase: .starting, echoAnywhere: now.nanoseconds)
    _ = arbiter.received(greeting, onLink: true, now: now)
    _ = arbiter.tick(now: now)
    _ = arbiter.leaseGranted(true, now: now)
    #expect(arbiter.phase == .primary)
    _ = arbiter.leaseRenewed(false, now: now)
    #expect(arbiter.phase == .suspended)
    #expect(arbiter.granted(term: arbiter.term, echo: echo, now: now) == [])
    #expect(arbiter.phase == .suspended)
    #expect(arbiter.granted(term: arbiter.term, echo: now.nanoseconds, now: now) != [])
    #expect(arbiter.phase == .primary)
  }
}

import CLinux
import Descriptors
import Glibc
import LinuxNetworking
import Packet
import Testing

@Suite("The fence", .serialized)
struct FenceTests {
  /// Whether the peer gets an answer to a probe for the replicated address: by ARP, or by neighbour discovery.
  private func answers(
    _ engine: RoutingEngine, _ family: IPAddress.Family = .v4, within milliseconds: Int32 = 150
  ) throws -> Bool {
    let address = TestNetwork.replicated(family)
    return try engine.network.peer.run {
      let bridge = try NetworkInterface(named: "br0")
      let socket = try PacketSocket(interface: bridge, mark: 1)
      let listener = try UplinkListener(
        interface: bridge, for: family == .v4 ? .addressResolution : .neighborDiscovery)
      let probe =
        family == .v4
        ? AddressResolution.probe(for: address, from: bridge.hardwareAddress)
        : NeighborDiscovery.probe(for: address, from: bridge.hardwareAddress)
      let frame = [UInt8](repeating: 0, count: VirtioNetHeader.byteCount) + probe
      guard frame.withUnsafeBytes({ socket.send($0) }) == 0 else { throw SystemError("send") }
      let clock = ContinuousClock()
      let end = clock.now + .milliseconds(Int(milliseconds))
      var buffer = [UInt8](repeating: 0, count: 2000)
      while clock.now < end {
        var query = pollfd(fd: listener.descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&query, 1, 10) > 0 else { continue }
        let count = read(listener.descriptor, &buffer, buffer.count)
        let isAnswer = buffer[..<max(0, count)].withUnsafeBytes { frame in
          if let message = AddressResolution.Message(frame) {
            return message.operation == .reply && message.sender == address
          }
          guard let message = NeighborDiscovery.Message(frame) else { return false }
          // To everybody, since nobody in particular has asked; nothing of it is the question's.
          return message.kind == .advertisement && message.target == address && message.overrides
            && !message.isSolicited && message.linkLayerAddress == engine.uplink.hardwareAddress
        }
        if isAnswer { return true }
      }
      return false
    }
  }

  /// Tells the peer the engine's hardware address, so that it need not ask.
  private func introduce(_ engine: RoutingEngine) throws {
    for address in RoutingEngine.replicated {
      try engine.network.peer.ip(
        "neigh replace \(address) lladdr \(engine.uplink.hardwareAddress) dev br0")
    }
  }

  private func connects(
    _ engine: RoutingEngine, _ family: IPAddress.Family, within milliseconds: Int32 = 200
  ) throws -> Bool {
    let endpoint = Endpoint(TestNetwork.replicated(family), 179)
    let listener = try engine.network.engines[0].run { try StreamSocket.listening(at: endpoint) }
    return try engine.network.peer.run {
      let descriptor = socket(
        family == .v4 ? AF_INET : AF_INET6, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
      guard descriptor >= 0 else { throw SystemError("socket") }
      let client = StreamSocket(owning: OwnedDescriptor(owning: descriptor))
      client.startConnecting(to: endpoint)
      var query = pollfd(fd: client.descriptor, events: Int16(POLLOUT), revents: 0)
      _ = listener
      return poll(&query, 1, milliseconds) > 0
    }
  }

  @Test("lets nothing of a replicated address out without a lease, and everything with one")
  func leaseDecides() throws {
    let engine = try RoutingEngine()
    #expect(try !answers(engine, .v4))
    #expect(try !answers(engine, .v6))
    try introduce(engine)
    #expect(try !connects(engine, .v4))
    #expect(try !connects(engine, .v6))
    #expect(try engine.filter.fencedPacketCount() >= 4)

    try engine.filter.grantLease(RoutingEngine.replicated, for: nil)
    #expect(try answers(engine, .v4))
    #expect(try answers(engine, .v6))
    // The engine's own question for the peer's hardware address was fenced off, too, and is asked again.
    #expect(try connects(engine, .v4, within: 5000))
    #expect(try connects(engine, .v6, within: 5000))

    try engine.filter.revokeLease(RoutingEngine.replicated)
    #expect(try !answers(engine, .v4))
    #expect(try !answers(engine, .v6))
    #expect(try !connects(engine, .v4))
    #expect(try !connects(engine, .v6))
  }

  @Test("does not touch what is not of a replicated address")
  func othersPass() throws {
    let engine = try RoutingEngine()
    for family in [IPAddress.Family.v4, .v6] {
      let endpoint = Endpoint(TestNetwork.own(family, 0), 22)
      let listener = try engine.network.engines[0].run { try StreamSocket.listening(at: endpoint) }
      let client = try engine.network.peer.run { try StreamSocket.connected(to: endpoint) }
      let server = try listener.accepted()
      try server.write([1])
      #expect(try client.read(1) == [1])
    }
    #expect(try engine.filter.fencedPacketCount() == 0)
  }

  /// What the peer receives of frames that the engine releases under its mark.
  private func released(_ frame: [UInt8], by engine: RoutingEngine) throws -> Int {
    let capture = try Capture(on: "port0", in: engine.network.peer)
    let whole = [UInt8](repeating: 0, count: VirtioNetHeader.byteCount) + frame
    _ = whole.withUnsafeBytes { engine.packetSocket.send($0) }
    pause(milliseconds: 50)
    return capture.frames().count { $0 == frame }
  }

  @Test("stops packets that carry the engine's mark as well")
  func marked() throws {
    let engine = try RoutingEngine()
    let mac = engine.uplink.hardwareAddress
    func segment(_ family: IPAddress.Family) -> [UInt8] {
      TCPFrameBuilder(
        sourceMAC: mac, destinationMAC: .broadcast,
        source: Endpoint(TestNetwork.replicated(family), 179),
        destination: Endpoint(TestNetwork.peerAddress(family), 50_000)
      ).frame(
        sequence: SequenceNumber(1), acknowledgment: SequenceNumber(1), flags: .ack, window: 1,
        timestamps: nil, payload: UnsafeRawBufferPointer(start: nil, count: 0))
    }
    let frames = [
      segment(.v4), segment(.v6),
      AddressResolution.announcement(of: TestNetwork.replicated(.v4), at: mac),
      AddressResolution.announcement(of: TestNetwork.replicated(.v4), at: mac, as: .reply),
      neighborAdvertisement(of: TestNetwork.replicated(.v6), from: TestNetwork.replicated(.v6), mac),
      // Proxied: the source is somebody else.
      neighborAdvertisement(of: TestNetwork.replicated(.v6), from: TestNetwork.own(.v6, 0), mac),
    ]
    for (index, frame) in frames.enumerated() {
      #expect(try released(frame, by: engine) == 0, "frame \(index)")
    }
    #expect(try engine.filter.fencedPacketCount() == UInt64(frames.count))
    try engine.filter.grantLease(RoutingEngine.replicated, for: nil)
    for (index, frame) in frames.enumerated() {
      #expect(try released(frame, by: engine) == 1, "frame \(index)")
    }
  }

  private func neighborAdvertisement(of target: IPAddress, from source: IPAddress, _ mac: MACAddress)
    -> [UInt8]
  {
    var frame = [UInt8](repeating: 0, count: 14 + 40 + 24)
    frame.withUnsafeMutableBytes { bytes in
      Ethernet.store(destination: .broadcast, source: mac, type: Ethernet.typeIPv6, in: bytes)
      bytes.storeBigEndian(UInt32(6) << 28, at: 14)
      bytes.storeBigEndian(UInt16(24), at: 18)
      bytes[20] = 58
      bytes[21] = 255
      source.store(in: bytes, at: 22)
      IPAddress(v6High: 0xff02_0000_0000_0000, low: 1).store(in: bytes, at: 38)
      bytes[54] = 136
      target.store(in: bytes, at: 62)
    }
    return frame
  }

  @Test(
    "shuts by itself when the lease has run out, and not before",
    arguments: [IPAddress.Family.v4, .v6])
  func expiry(family: IPAddress.Family) throws {
    let engine = try RoutingEngine()
    let clock = ContinuousClock()
    let start = clock.now
    try engine.filter.grantLease(RoutingEngine.replicated, for: .milliseconds(600))
    var last = start
    while try answers(engine, family, within: 60) { last = clock.now }
    let lasted = last - start
    // The last probe that was answered may have been asked up to one try before the end.
    #expect(lasted > .milliseconds(400) && lasted < .milliseconds(700), "\(lasted)")
    #expect(try !answers(engine, family))
  }

  @Test("stays open as long as the lease is renewed in time")
  func renewal() throws {
    let engine = try RoutingEngine()
    try engine.filter.grantLease(RoutingEngine.replicated, for: .milliseconds(400))
    for _ in 0..<8 {
      pause(milliseconds: 100)
      #expect(try engine.filter.renewLease(RoutingEngine.replicated, for: .milliseconds(400)))
    }
    #expect(try answers(engine))
  }

  @Test("cannot be opened again by renewing a lease that has run out, even one not yet collected")
  func renewalComesTooLate() throws {
    let engine = try RoutingEngine()
    let replicated = RoutingEngine.replicated
    // The kernel collects dead elements once a second by default; every round hits another phase.
    for round in 0..<20 {
      try engine.filter.grantLease(replicated, for: .milliseconds(50))
      pause(milliseconds: 60 + 7 * round)
      #expect(try !engine.filter.renewLease(replicated, for: .seconds(10)))
      #expect(try !engine.filter.renewLease(replicated, for: .seconds(10)))
    }
    #expect(try !answers(engine))
  }

  @Test("is not opened for any address if the lease of one has run out")
  func renewalIsWhole() throws {
    let engine = try RoutingEngine()
    try engine.filter.grantLease([TestNetwork.replicated(.v4)], for: .milliseconds(300))
    #expect(try !engine.filter.renewLease(RoutingEngine.replicated, for: .seconds(10)))
    pause(milliseconds: 350)
    #expect(try !answers(engine))
  }

  @Test("is opened and shut by the last word, whatever was granted before")
  func grantsReplace() throws {
    let engine = try RoutingEngine()
    let v4 = [TestNetwork.replicated(.v4)]
    try engine.filter.grantLease(v4, for: .milliseconds(100))
    try engine.filter.grantLease(v4, for: nil)
    pause(milliseconds: 200)
    #expect(try answers(engine))
    try engine.filter.grantLease(v4 + v4, for: .milliseconds(100))
    pause(milliseconds: 200)
    #expect(try !answers(engine))
    try engine.filter.revokeLease(v4)
    try engine.filter.grantLease(v4, for: nil)
    #expect(try engine.filter.renewLease(v4 + v4, for: .seconds(10)))
    #expect(try answers(engine))
  }

  @Test("stays shut while a new run replaces the table of an earlier one")
  func replacement() throws {
    let engine = try RoutingEngine()
    let capture = try Capture(on: "port0", in: engine.network.peer)
    let announcement =
      [UInt8](repeating: 0, count: VirtioNetHeader.byteCount)
      + AddressResolution.announcement(of: TestNetwork.replicated(.v4), at: engine.uplink.hardwareAddress)
    let stop = Flag()
    let talker = Background { () -> Int in
      var sent = 0
      while !stop.isSet {
        _ = announcement.withUnsafeBytes { engine.packetSocket.send($0) }
        sent += 1
      }
      return sent
    }
    for _ in 0..<100 { try engine.install() }
    stop.set()
    #expect(try talker.join() > 1000)
    let escaped = capture.frames().count { frame in
      frame.withUnsafeBytes { AddressResolution.Message($0)?.sender == TestNetwork.replicated(.v4) }
    }
    #expect(escaped == 0)
  }

  @Test("is shut again by a new run, drops what an earlier one steered, and makes its way past strangers")
  func reinstallation() throws {
    let engine = try RoutingEngine()
    try engine.filter.grantLease(RoutingEngine.replicated, for: nil)
    #expect(try answers(engine))
    try engine.install()
    #expect(try !answers(engine))

    // A table of another make, with a set of the same name and another type.
    try engine.filter.remove()
    try engine.network.engines[0].nft("add table netdev jsr; add set netdev jsr lease4 { type mark; }")
    try engine.install()
    #expect(try !answers(engine))
    try engine.filter.grantLease(RoutingEngine.replicated, for: nil)
    #expect(try answers(engine))
  }

  /// What is sent from the replicated address to a peer of unknown hardware address, while the fence is shut, waits in
  /// the kernel. Whether it reaches the peer when the fence is opened.
  private func escapes(_ family: IPAddress.Family, afterForgetting: Bool) throws -> Bool {
    let engine = try RoutingEngine()
    let capture = try Capture(on: "port0", in: engine.network.peer)
    let uplink = engine.uplink
    try engine.network.engines[0].run {
      let socket = try OwnedDescriptor(
        returnedBy: "socket", socket(family == .v4 ? AF_INET : AF_INET6, Int32(SOCK_DGRAM.rawValue), 0))
      let descriptor = socket.rawValue
      let ends = [
        Endpoint(TestNetwork.replicated(family), 7000), Endpoint(TestNetwork.peerAddress(family), 7),
      ]
      guard StreamSocket.withAddress(ends[0], { bind(descriptor, $0, $1) }) == 0,
        StreamSocket.withAddress(ends[1], { connect(descriptor, $0, $1) }) == 0,
        send(descriptor, "waits", 5, 0) == 5
      else { throw SystemError("send") }
      if afterForgetting { try NeighborTable.forgetUnresolved(on: uplink) }
    }
    try engine.filter.grantLease(RoutingEngine.replicated, for: nil)
    // The kernel asks once a second.
    for _ in 0..<15 {
      pause(milliseconds: 100)
      if capture.frames().contains(where: { $0.suffix(5).elementsEqual("waits".utf8) }) { return true }
    }
    return false
  }

  @Test(
    "does not hold back what waits for a hardware address until it opens, so that has to be thrown away",
    arguments: [IPAddress.Family.v4, .v6])
  func waiting(family: IPAddress.Family) throws {
    #expect(try escapes(family, afterForgetting: false))
    #expect(try !escapes(family, afterForgetting: true))
  }

  @Test("guards an interface that came under the name of another, and nothing else changes")
  func reappearance() throws {
    let engine = try RoutingEngine()
    let flow = Flow(
      .tcp, local: Endpoint(TestNetwork.replicated(.v4), 179),
      remote: Endpoint(TestNetwork.peerAddress(.v4), 40_000))
    try engine.filter.steer(adding: [flow])
    try engine.filter.grantLease(RoutingEngine.replicated, for: nil)
    let uplink = try engine.replaceUplink()
    #expect(uplink.index != engine.uplink.index)
    for _ in 0..<2 {
      try engine.update(uplink)
      #expect(try answers(engine))
    }
    #expect(try engine.filter.steeredFlows() == [flow])
    try engine.filter.revokeLease(RoutingEngine.replicated)
    #expect(try !answers(engine))
    let names = try engine.network.engines[0].chains()
    #expect(names == ["egress_\(uplink.index)", "fence", "ingress_\(uplink.index)"])
  }

  @Test("is gone with its table, and renewing a lease then says so")
  func removal() throws {
    let engine = try RoutingEngine()
    try engine.filter.remove()
    try engine.filter.remove()
    #expect(try answers(engine))
    #expect(throws: PacketFilterError.self) {
      try engine.filter.renewLease(RoutingEngine.replicated, for: .seconds(1))
    }
  }
}

import Packet
import Testing

@Suite struct UDPPacketTests {
  /// A UDP header and payload, put together by hand: ports 40000 to 16000.
  private static func datagram(_ payload: [UInt8], length: UInt16? = nil, checksum: UInt16 = 0) -> [UInt8] {
    var bytes: [UInt8] = [0x9c, 0x40, 0x3e, 0x80]
    bytes.appendBigEndian(length ?? UInt16(8 + payload.count))
    bytes.appendBigEndian(checksum)
    return bytes + payload
  }

  private static func frame(_ datagram: [UInt8], _ shape: TestFrame = TestFrame()) -> [UInt8] {
    var frame = shape.bytes
    let end = frame.count - shape.padding
    let start = end - shape.segment.count
    frame.replaceSubrange(start..<end, with: datagram)
    // The length of the packet, and what it carries.
    let change = datagram.count - shape.segment.count
    let place = shape.isV6 ? 18 : 16
    let length = Int(frame[place]) << 8 + Int(frame[place + 1]) + change
    frame[place] = UInt8(length >> 8)
    frame[place + 1] = UInt8(length & 255)
    return frame
  }

  private static var shapes: [TestFrame] {
    [
      TestFrame(transport: 17), TestFrame(transport: 17, padding: 10),
      TestFrame(ipOptions: [0x94, 4, 0, 0, 1, 1, 1, 0], transport: 17), TestFrame(isV6: true, transport: 17),
      TestFrame(isV6: true, extensions: [TestFrame.hopByHop, TestFrame.routing], transport: 17),
      TestFrame(isV6: true, extensions: [(44, [0, 0, 0, 1, 2, 3, 4])], transport: 17),
    ]
  }

  private func read(_ frame: [UInt8]) -> UDPPacket? {
    // In memory of exactly its size: whatever is found must lie inside.
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: frame.count, alignment: 1)
    defer { memory.deallocate() }
    memory.copyBytes(from: frame)
    let packet = UDPPacket(UnsafeRawBufferPointer(memory))
    if let packet {
      #expect(packet.payload.lowerBound == packet.transportOffset + 8 && packet.transportOffset >= 34)
      #expect(packet.payload.upperBound <= frame.count)
      _ = packet.checksumIsValid(UnsafeRawBufferPointer(memory))
    }
    return packet
  }

  @Test("Every shape of a good datagram is read, an empty one too", arguments: shapes.indices)
  func good(index: Int) throws {
    let shape = Self.shapes[index]
    for payload in [[], [7], Array("a whole datagram".utf8)] as [[UInt8]] {
      let frame = Self.frame(Self.datagram(payload), shape)
      let packet = try #require(read(frame))
      #expect(packet.source.port == 40_000 && packet.destination.port == 16_000)
      #expect(packet.source.address.bytes == (shape.isV6 ? TestFrame.source6 : TestFrame.source4))
      #expect(
        packet.destination.address.bytes == (shape.isV6 ? TestFrame.destination6 : TestFrame.destination4))
      #expect(Array(frame[packet.payload]) == payload)
      // The next layer's business is nobody else's.
      #expect(frame.withUnsafeBytes { TCPPacket($0) } == nil)
    }
  }

  @Test func theLengthThatTheHeaderTellsIsTheOneThatCounts() throws {
    let payload = Array("short".utf8)
    let shorter = Self.frame(Self.datagram(payload, length: 10))
    #expect(try #require(read(withTransport(shorter))).payload.count == 2)
    for length in [0, 1, 7, 14, 0xffff] as [UInt16] {
      #expect(read(withTransport(Self.frame(Self.datagram(payload, length: length)))) == nil, "\(length)")
    }
    // In IPv6 a length of 0 would be a jumbogram.
    #expect(read(Self.frame(Self.datagram(payload, length: 0), TestFrame(isV6: true, transport: 17))) == nil)
    #expect(read(withTransport(Self.frame([0, 1, 0, 2, 0, 8, 0]))) == nil, "half a header")
  }

  private func withTransport(_ frame: [UInt8]) -> [UInt8] {
    var frame = frame
    frame[23] = 17
    return frame
  }

  @Test("A fragment is no datagram", arguments: [0x2000, 0x0001, 0x3000] as [UInt16])
  func fragments(field: UInt16) {
    let shape = TestFrame(fragment: field, transport: 17)
    #expect(read(Self.frame(Self.datagram([1, 2]), shape)) == nil)
  }

  @Test("No checksum is right over IPv4, and wrong over IPv6") func noChecksum() throws {
    for isV6 in [false, true] {
      let frame = Self.frame(Self.datagram([1, 2, 3]), TestFrame(isV6: isV6, transport: 17))
      let packet = try #require(read(frame))
      #expect(frame.withUnsafeBytes { packet.checksumIsValid($0) } == !isV6)
    }
  }

  @Test("The checksum covers pseudo header, header and payload, and nothing behind them") func checksum()
    throws
  {
    for shape in Self.shapes {
      for payload in [[], [0xff], Array("even".utf8), Array("odd".utf8)] as [[UInt8]] {
        // By RFC 768, 16 bits at a time.
        let addresses =
          shape.isV6 ? TestFrame.source6 + TestFrame.destination6 : TestFrame.source4 + TestFrame.destination4
        var bytes = addresses
        bytes.appendBigEndian(UInt32(8 + payload.count))
        bytes.appendBigEndian(UInt32(17))
        bytes += Self.datagram(payload)
        if bytes.count % 2 == 1 { bytes.append(0) }
        var sum: UInt32 = 0
        for place in stride(from: 0, to: bytes.count, by: 2) {
          sum += UInt32(bytes[place]) << 8 | UInt32(bytes[place + 1])
          sum = sum & 0xffff + sum >> 16
        }
        let value = UInt16(truncatingIfNeeded: ~sum)
        let frame = Self.frame(Self.datagram(payload, checksum: value == 0 ? 0xffff : value), shape)
        let packet = try #require(read(frame))
        #expect(frame.withUnsafeBytes { packet.checksumIsValid($0) })
        var broken = frame
        broken[packet.transportOffset + 1] ^= 1
        #expect(!broken.withUnsafeBytes { packet.checksumIsValid($0) })
      }
    }
  }

  @Test func aFlowNamesItsInstanceOnlyIfItIsNotTheMainOne() throws {
    let packet = try #require(read(Self.frame(Self.datagram([1]), TestFrame(transport: 17))))
    #expect("\(packet.inboundFlow())" == "udp 5.5.5.5:16000 - 5.5.5.4:40000")
    #expect(packet.outboundFlow() == Flow(.udp, local: packet.source, remote: packet.destination))
    let other = RoutingInstanceID(rawValue: 0x2a)
    #expect("\(packet.inboundFlow(in: other))" == "udp 5.5.5.5:16000 - 5.5.5.4:40000 instance 0x2a")
    #expect(packet.inboundFlow(in: other) != packet.inboundFlow())
    #expect(packet.outboundFlow(in: other).instance == other)
  }

  @Test func anUnconnectedSocketHasNoRemoteEnd() throws {
    for text in ["5.5.5.5", "2001:db8::5"] {
      let address = try #require(IPAddress(text))
      let flow = Flow(unconnected: Endpoint(address, 53))
      #expect(flow.isUnconnected && flow.transport == .udp && flow.remote.port == 0)
      #expect(
        flow.remote.address.family == address.family && flow.remote.address.bytes.allSatisfy { $0 == 0 })
      #expect(!Flow(.udp, local: flow.local, remote: Endpoint(address, 1)).isUnconnected)
      #expect(!Flow(.tcp, local: flow.local, remote: flow.remote).isUnconnected)
    }
  }

  @Test("Random changes never lead outside the frame", arguments: 1...4 as ClosedRange<UInt64>)
  func mutations(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    let frames = Self.shapes.map { Self.frame(Self.datagram(Array("changed".utf8)), $0) }
    for _ in 0..<3_000 {
      var frame = frames.randomElement(using: &generator)!
      for _ in 0..<Int.random(in: 1...6, using: &generator) {
        let place = Int.random(in: 12..<frame.count, using: &generator)
        frame[place] =
          Bool.random(using: &generator)
          ? [0, 0xff, 8, 17].randomElement(using: &generator)! : .random(in: 0...255, using: &generator)
      }
      if Bool.random(using: &generator) {
        frame.removeLast(Int.random(in: 0...frame.count - 13, using: &generator))
      }
      _ = read(frame)
    }
  }
}

@Suite struct UDPFrameBuilderTests {
  private func builder(_ source: String, _ destination: String) throws -> UDPFrameBuilder {
    UDPFrameBuilder(
      sourceMAC: MACAddress(rawValue: 0x0200_0000_0005),
      destinationMAC: MACAddress(rawValue: 0x0200_0000_0004),
      source: Endpoint(try #require(IPAddress(source)), 53),
      destination: Endpoint(try #require(IPAddress(destination)), 40_000), timeToLive: 255,
      typeOfService: 0xc0)
  }

  @Test(
    "What is built reads as what it was built from, at every length",
    arguments: [("5.5.5.5", "5.5.5.4"), ("2001:db8::5", "fe80::4")])
  func readsAgain(source: String, destination: String) throws {
    let builder = try builder(source, destination)
    let family = builder.source.address.family
    let most = UDPFrameBuilder.maximumPayloadByteCount(family)
    #expect(most == (family == .v4 ? 65_507 : 65_527))
    for count in [0, 1, 2, 1_471, 1_472, most] {
      let payload = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7) }
      let frame = payload.withUnsafeBytes { builder.frame(payload: $0) }
      try frame.withUnsafeBytes {
        let packet = try #require(UDPPacket($0))
        #expect(packet.source == builder.source && packet.destination == builder.destination)
        #expect(packet.checksumIsValid($0))
        #expect(Array($0[packet.payload]) == payload)
        #expect(
          Ethernet.source($0) == builder.sourceMAC && Ethernet.destination($0) == builder.destinationMAC)
        #expect(packet.payload.upperBound == $0.count)
      }
    }
  }

  @Test func theHeaderOfIPIsWholeToo() throws {
    let frame = try ([1, 2, 3] as [UInt8]).withUnsafeBytes {
      try builder("5.5.5.5", "5.5.5.4").frame(payload: $0)
    }
    #expect(Array(frame[14..<24]) == [0x45, 0xc0, 0, 31, 0, 0, 0x40, 0, 255, 17])
    var header = InternetChecksum()
    frame.withUnsafeBytes { header.add(UnsafeRawBufferPointer(rebasing: $0[14..<34])) }
    #expect(header.value == 0)
  }

  @Test func aChecksumThatComesToNothingIsSentAsAllOnes() throws {
    let builder = try builder("5.5.5.5", "5.5.5.4")
    // Two bytes of payload can make any sum.
    let empty = ([0, 0] as [UInt8]).withUnsafeBytes { builder.frame(payload: $0) }
    let sum = [empty[40], empty[41]]
    let frame = sum.withUnsafeBytes { builder.frame(payload: $0) }
    #expect(Array(frame[40..<42]) == [0xff, 0xff])
    frame.withUnsafeBytes { #expect(UDPPacket($0)?.checksumIsValid($0) == true) }
  }
}

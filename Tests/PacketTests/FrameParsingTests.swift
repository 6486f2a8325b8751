import Packet
import Testing

@Suite struct FrameParsingTests {
  @Test(
    "Every shape of a good frame is read, and padding is not payload", arguments: TestFrame.samples.indices)
  func good(index: Int) throws {
    let sample = TestFrame.samples[index]
    let frame = sample.bytes
    let packet = try #require(frame.withUnsafeBytes { TCPPacket($0) })
    #expect(packet.source.port == 40_000)
    #expect(packet.destination.port == 16_000)
    #expect(packet.source.address.bytes == (sample.isV6 ? TestFrame.source6 : TestFrame.source4))
    #expect(
      packet.destination.address.bytes == (sample.isV6 ? TestFrame.destination6 : TestFrame.destination4))
    #expect(packet.segment.sequence == SequenceNumber(0xffff_fff0))
    #expect(packet.segment.acknowledgment == SequenceNumber(0x0102_0304))
    #expect(packet.segment.window == 502)
    #expect(packet.segment.flags.rawValue == sample.flags)
    #expect(packet.segment.payload == sample.payloadRange)
    #expect(packet.segment.payload.map { frame[$0] } == sample.payload)
    let hasTimestamps = sample.tcpOptions.contains(8)
    #expect(packet.segment.timestamps == (hasTimestamps ? TCPTimestamps(value: 0x1000, echo: 0x2000) : nil))
  }

  @Test func theTwoFlowsOfAPacketAreMirrorImages() throws {
    let frame = TestFrame().bytes
    let packet = try #require(frame.withUnsafeBytes { TCPPacket($0) })
    #expect(packet.inboundFlow().local == packet.destination)
    #expect(packet.inboundFlow().remote == packet.source)
    #expect(packet.outboundFlow().local == packet.source)
    #expect(packet.outboundFlow().remote == packet.destination)
  }

  @Test func aSegmentEndsBehindItsPayloadSynAndFin() throws {
    func end(_ flags: UInt8) throws -> UInt32 {
      let frame = TestFrame(payload: [UInt8](repeating: 0, count: 0x20), flags: flags).bytes
      return try #require(frame.withUnsafeBytes { TCPPacket($0) }).segment.end.rawValue
    }
    #expect(try end(0x10) == 0x10)
    #expect(try end(0x11) == 0x11)
    #expect(try end(0x02) == 0x11)
    #expect(try end(0x03) == 0x12)
  }

  @Test(
    "Fragments are known as such, and are no TCP segments",
    arguments: [0x2000, 0x0001, 0x1fff, 0x3000] as [UInt16])
  func fragments(field: UInt16) throws {
    let frame = TestFrame(fragment: field).bytes
    #expect(try #require(frame.withUnsafeBytes { IPPacket($0) }).isFragment)
    #expect(frame.withUnsafeBytes { TCPPacket($0) } == nil)
  }

  @Test func doNotFragmentIsNoFragment() {
    #expect(TestFrame(fragment: 0x4000).bytes.withUnsafeBytes { TCPPacket($0) } != nil)
  }

  @Test(
    "An IPv6 fragment is known as such, the first and any other",
    arguments: [0x0001, 0x0008, 0xfff9] as [UInt16])
  func fragments6(field: UInt16) throws {
    let rest: [UInt8] = [0, UInt8(field >> 8), UInt8(field & 255), 0, 0, 0, 9]
    let frame = TestFrame(isV6: true, extensions: [(44, rest)]).bytes
    #expect(try #require(frame.withUnsafeBytes { IPPacket($0) }).isFragment)
    #expect(frame.withUnsafeBytes { TCPPacket($0) } == nil)
  }

  @Test func otherProtocolsAreNotTakenForTCP() {
    #expect(TestFrame(transport: 17).bytes.withUnsafeBytes { TCPPacket($0) } == nil)
    #expect(TestFrame(isV6: true, transport: 58).bytes.withUnsafeBytes { TCPPacket($0) } == nil)
    var arp = TestFrame().bytes
    arp[13] = 6
    #expect(arp.withUnsafeBytes { IPPacket($0) } == nil)
  }

  @Test(
    "Malformed TCP options are refused",
    arguments: [[8, 0, 0, 0], [8, 1, 0, 0], [8, 10, 0, 0], [1, 1, 1, 8], [2, 255, 0, 0]] as [[UInt8]])
  func badOptions(options: [UInt8]) {
    #expect(TestFrame(tcpOptions: options).bytes.withUnsafeBytes { TCPPacket($0) } == nil)
  }

  @Test func aTimestampsOptionOfTheWrongLengthIsNotBelieved() throws {
    let frame = TestFrame(tcpOptions: [8, 8, 0, 0, 0, 1, 0, 0]).bytes
    #expect(try #require(frame.withUnsafeBytes { TCPPacket($0) }).segment.timestamps == nil)
  }
}

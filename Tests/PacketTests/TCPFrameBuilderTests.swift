import Packet
import Testing

@Suite struct TCPFrameBuilderTests {
  private func builder(_ source: String, _ destination: String) throws -> TCPFrameBuilder {
    TCPFrameBuilder(
      sourceMAC: MACAddress(rawValue: 0x0200_0000_0005),
      destinationMAC: MACAddress(rawValue: 0x0200_0000_0004),
      source: Endpoint(try #require(IPAddress(source)), 179),
      destination: Endpoint(try #require(IPAddress(destination)), 40_001), timeToLive: 255,
      typeOfService: 0xc0)
  }

  @Test(
    "What is built is read back, with valid checksums, for both families and all lengths",
    arguments: [("5.5.5.5", "5.5.5.4"), ("2001:db8::5", "fe80::4")])
  func roundTrip(source: String, destination: String) throws {
    let builder = try builder(source, destination)
    var generator = SeededGenerator(seed: 5)
    for count in [0, 1, 2, 3, 19, 100, 1_447, 1_448, 9_001] {
      for timestamps in [nil, TCPTimestamps(value: 0xffff_ffff, echo: 7)] {
        let payload = (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
        let frame = payload.withUnsafeBytes {
          builder.frame(
            sequence: SequenceNumber(0xffff_ff00), acknowledgment: SequenceNumber(9), flags: [.ack, .psh],
            window: 65_535, timestamps: timestamps, payload: $0)
        }
        try frame.withUnsafeBytes { bytes in
          let packet = try #require(TCPPacket(bytes))
          #expect(packet.source == builder.source && packet.destination == builder.destination)
          #expect(Ethernet.source(bytes) == builder.sourceMAC)
          #expect(Ethernet.destination(bytes) == builder.destinationMAC)
          #expect(packet.segment.sequence == SequenceNumber(0xffff_ff00))
          #expect(packet.segment.acknowledgment == SequenceNumber(9))
          #expect(packet.segment.flags == [.ack, .psh])
          #expect(packet.segment.window == 65_535)
          #expect(packet.segment.timestamps == timestamps)
          #expect(Array(bytes[packet.segment.payload]) == payload)
          #expect(packet.segment.payload.upperBound == frame.count)
          #expect(packet.checksumIsValid(bytes))
        }
      }
    }
  }

  @Test func theIPv4HeaderHasAValidChecksumAndTheGivenTTL() throws {
    let frame = try builder("5.5.5.5", "5.5.5.4").frame(
      sequence: SequenceNumber(1), acknowledgment: SequenceNumber(2), flags: .ack, window: 1, timestamps: nil,
      payload: UnsafeRawBufferPointer(start: nil, count: 0))
    var sum = InternetChecksum()
    frame.withUnsafeBytes { sum.add(UnsafeRawBufferPointer(rebasing: $0[14..<34])) }
    #expect(sum.value == 0)
    #expect(frame[14 + 8] == 255)
    #expect(frame[14 + 1] == 0xc0)
    #expect(frame.count == 54)
  }

  @Test func theIPv6HeaderHasTheGivenHopLimitAndTrafficClass() throws {
    let frame = try builder("::5", "::4").frame(
      sequence: SequenceNumber(1), acknowledgment: SequenceNumber(2), flags: .ack, window: 1, timestamps: nil,
      payload: UnsafeRawBufferPointer(start: nil, count: 0))
    #expect(Array(frame[14..<22]) == [0x6c, 0, 0, 0, 0, 20, 6, 255])
  }

  @Test func anyFlippedBitOfTheSegmentMakesItsChecksumWrong() throws {
    let text = Array("a byte that depends on its position".utf8)
    let frame = try text.withUnsafeBytes {
      try builder("5.5.5.5", "5.5.5.4").frame(
        sequence: SequenceNumber(1), acknowledgment: SequenceNumber(2), flags: .ack, window: 1,
        timestamps: TCPTimestamps(value: 3, echo: 4), payload: $0)
    }
    for place in 34..<frame.count {
      for bit in 0..<8 {
        var broken = frame
        broken[place] ^= 1 << UInt8(bit)
        let packet = broken.withUnsafeBytes { TCPPacket($0) }
        if let packet { #expect(!broken.withUnsafeBytes { packet.checksumIsValid($0) }, "byte \(place)") }
      }
    }
  }

  @Test(
    "A signature is right for its key and its segment alone, and stands before the timestamps",
    arguments: [("5.5.5.5", "5.5.5.4"), ("2001:db8::5", "fe80::4")])
  func signature(source: String, destination: String) throws {
    var builder = try builder(source, destination)
    let key = Array("a key".utf8)
    for timestamps in [nil, TCPTimestamps(value: 3, echo: 4)] {
      let text = Array("signed".utf8)
      func frame() -> [UInt8] {
        text.withUnsafeBytes {
          builder.frame(
            sequence: SequenceNumber(1), acknowledgment: SequenceNumber(2), flags: .ack, window: 1,
            timestamps: timestamps, payload: $0)
        }
      }
      builder.signingKey = nil
      let plain = frame()
      builder.signingKey = key
      let signed = frame()
      try plain.withUnsafeBytes {
        let packet = try #require(TCPPacket($0))
        #expect(!packet.isSigned($0) && !packet.signatureIsValid($0, key: key))
      }
      #expect(signed.count == plain.count + TCPSignature.optionByteCount)
      let start = try signed.withUnsafeBytes {
        let packet = try #require(TCPPacket($0))
        #expect(packet.isSigned($0) && packet.signatureIsValid($0, key: key))
        #expect(!packet.signatureIsValid($0, key: key + [0]))
        #expect(packet.checksumIsValid($0))
        #expect(packet.segment.timestamps == timestamps)
        #expect(Array($0[packet.segment.payload]) == text)
        return packet.transportOffset
      }
      // All but the checksum and the other options is signed; addresses and ports too.
      for place in [start - 1, start, start + 4, start + 8, start + 13, start + 14, signed.count - 1] {
        var broken = signed
        broken[place] ^= 1
        broken.withUnsafeBytes {
          #expect(TCPPacket($0)?.signatureIsValid($0, key: key) != true, "byte \(place)")
        }
      }
    }
  }
}

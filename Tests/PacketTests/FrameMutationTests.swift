import Packet
import Testing

@Suite struct FrameMutationTests {
  /// Reads a frame that lies in memory of exactly its size; whatever is found must lie inside.
  private func readAll(_ frame: [UInt8]) {
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: frame.count, alignment: 1)
    defer { memory.deallocate() }
    memory.copyBytes(from: frame)
    let bytes = UnsafeRawBufferPointer(memory)
    if let packet = IPPacket(bytes) {
      #expect(packet.transport.lowerBound >= 34 && packet.transport.upperBound <= frame.count)
    }
    if let packet = TCPPacket(bytes) {
      #expect(packet.transportOffset >= 34)
      #expect(packet.segment.payload.lowerBound >= packet.transportOffset + 20)
      #expect(packet.segment.payload.upperBound <= frame.count)
      _ = packet.checksumIsValid(bytes)
    }
    _ = AddressResolution.Message(bytes)
    _ = NeighborDiscovery.Message(bytes)
  }

  @Test("No truncation of a frame is read past its end, nor taken for a whole one")
  func truncations() {
    for sample in TestFrame.samples {
      let frame = sample.bytes
      for count in 0..<frame.count {
        let short = Array(frame[..<count])
        readAll(short)
        if count < frame.count - sample.padding {
          #expect(short.withUnsafeBytes { TCPPacket($0) } == nil, "\(count) of \(frame.count) bytes")
        }
      }
    }
  }

  @Test("Random changes never lead outside the frame", arguments: 1...8 as ClosedRange<UInt64>)
  func mutations(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    let address = IPAddress(v6High: 0x2001_0db8_0000_0000, low: 5)
    let samples =
      TestFrame.samples.dropLast().map(\.bytes) + [
        NeighborDiscovery.announcement(of: address, at: MACAddress(rawValue: 0x0200_0000_0005)),
        NeighborDiscovery.probe(for: address, from: MACAddress(rawValue: 0x0200_0000_0005)),
      ]
    for _ in 0..<3_000 {
      var frame = samples.randomElement(using: &generator)!
      for _ in 0..<Int.random(in: 1...6, using: &generator) {
        let place = Int.random(in: 12..<frame.count, using: &generator)
        switch Int.random(in: 0..<3, using: &generator) {
        case 0: frame[place] = UInt8.random(in: 0...255, using: &generator)
        case 1: frame[place] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
        default: frame[place] = [0, 0xff, 0x7f, 0x80].randomElement(using: &generator)!
        }
      }
      if Bool.random(using: &generator) {
        frame.removeLast(Int.random(in: 0...frame.count - 13, using: &generator))
      }
      readAll(frame)
    }
  }
}

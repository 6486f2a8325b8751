import Packet
import Testing

@Suite struct ChecksumTests {
  private func checksum(_ bytes: [UInt8]) -> UInt16 {
    var sum = InternetChecksum()
    bytes.withUnsafeBytes { sum.add($0) }
    return sum.value
  }

  /// RFC 1071, section 4.1, in the plainest way.
  private func naive(_ bytes: [UInt8]) -> UInt16 {
    var sum: UInt32 = 0
    for index in stride(from: 0, to: bytes.count, by: 2) {
      sum += UInt32(bytes[index]) << 8 | (index + 1 < bytes.count ? UInt32(bytes[index + 1]) : 0)
    }
    while sum > 0xffff { sum = (sum & 0xffff) + (sum >> 16) }
    return ~UInt16(sum)
  }

  @Test("The example of RFC 1071, section 3, sums to ddf2")
  func exampleOfTheRFC() {
    var sum = InternetChecksum()
    ([0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7] as [UInt8]).withUnsafeBytes { sum.add($0) }
    #expect(sum.folded == 0xddf2)
    #expect(sum.value == 0x220d)
  }

  @Test("An IPv4 header from a capture has the checksum it carries")
  func header() {
    var header: [UInt8] = [
      0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0x00, 0x01, 0xc0, 0xa8,
      0x00, 0xc7,
    ]
    #expect(checksum(header) == 0xb861)
    header[10] = 0xb8
    header[11] = 0x61
    #expect(checksum(header) == 0)
  }

  @Test("Every length, odd ones too, gives what the plain way gives")
  func lengths() {
    var generator = SeededGenerator(seed: 3)
    for count in 0..<200 {
      let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
      #expect(checksum(bytes) == naive(bytes), "\(count) bytes")
    }
    let ones = [UInt8](repeating: 0xff, count: 65_535)
    #expect(checksum(ones) == naive(ones))
  }

  @Test func addingInEvenPiecesIsAddingTheWhole() {
    var generator = SeededGenerator(seed: 4)
    let bytes = (0..<301).map { _ in UInt8.random(in: 0...255, using: &generator) }
    for cut in stride(from: 0, through: 300, by: 2) {
      var sum = InternetChecksum()
      bytes.withUnsafeBytes {
        sum.add(UnsafeRawBufferPointer(rebasing: $0[..<cut]))
        sum.add(UnsafeRawBufferPointer(rebasing: $0[cut...]))
      }
      #expect(sum.value == naive(bytes))
    }
  }

  @Test("The pseudo header counts addresses, protocol and length as RFC 9293 and RFC 8200 lay them out")
  func pseudoHeader() throws {
    for (source, destination, length) in [("5.5.5.4", "5.5.5.5", 20), ("fe80::1", "2001:db8::ffff", 70_000)] {
      let source = try #require(IPAddress(source))
      let destination = try #require(IPAddress(destination))
      var sum = InternetChecksum()
      sum.addPseudoHeader(source: source, destination: destination, transport: .udp, length: length)
      var bytes = source.bytes + destination.bytes
      if source.family == .v6 {
        bytes.appendBigEndian(UInt32(length))
        bytes += [0, 0, 0, 17]
      } else {
        bytes += [0, 17]
        bytes.appendBigEndian(UInt16(length))
      }
      #expect(sum.value == naive(bytes))
    }
  }
}

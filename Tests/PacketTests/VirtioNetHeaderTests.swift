import Packet
import Testing

@Suite struct VirtioNetHeaderTests {
  @Test func aHeaderSurvivesItsTenBytes() {
    var header = VirtioNetHeader()
    header.flags = VirtioNetHeader.needsChecksum
    header.gsoType = VirtioNetHeader.gsoTCPv6
    header.headerLength = 0x0102
    header.gsoSize = 0x0304
    header.checksumStart = 0x0506
    header.checksumOffset = 0x0708
    var bytes = [UInt8](repeating: 0xaa, count: 12)
    bytes.withUnsafeMutableBytes { header.store(in: $0) }
    #expect(bytes.withUnsafeBytes { VirtioNetHeader($0) } == header)
    #expect(Array(bytes[10...]) == [0xaa, 0xaa])
    // Host byte order, as the kernel has it on a device that is not declared big or little endian.
    #expect(bytes[2] == UInt8(truncatingIfNeeded: UInt16(0x0102).littleEndian == 0x0102 ? 2 : 1))
  }

  @Test("Only a partial or a verified checksum may be trusted", arguments: 0...255 as ClosedRange<UInt8>)
  func trust(flags: UInt8) {
    var header = VirtioNetHeader()
    header.flags = flags
    #expect(header.checksumIsTrusted == (flags & 3 != 0))
  }

  @Test func anEmptyHeaderAsksForNothing() {
    var bytes = [UInt8](repeating: 0xaa, count: 10)
    bytes.withUnsafeMutableBytes { VirtioNetHeader().store(in: $0) }
    #expect(bytes == [UInt8](repeating: 0, count: 10))
  }
}

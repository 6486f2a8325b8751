import Packet
import Testing

@Suite struct IPAddressTests {
  @Test(
    "Dotted decimal is read and printed", arguments: ["0.0.0.0", "5.5.5.5", "192.0.2.255", "255.255.255.255"])
  func v4(text: String) throws {
    let address = try #require(IPAddress(text))
    #expect(address.family == .v4)
    #expect("\(address)" == text)
  }

  @Test func bitsOfAnIPv4AddressAreInHostOrderAndItsBytesInNetworkOrder() throws {
    let address = try #require(IPAddress("192.0.2.33"))
    #expect(address.v4Value == 0xc000_0221)
    #expect(address.v6Halves == nil)
    #expect(address.bytes == [192, 0, 2, 33])
    #expect(address == IPAddress(v4: 0xc000_0221))
  }

  // RFC 5952, sections 4 and 5; RFC 4291, section 2.2.
  @Test(
    "IPv6 in any form is printed in the canonical one",
    arguments: [
      ("::", "::"), ("::1", "::1"), ("1::", "1::"), ("0:0:0:0:0:0:0:0", "::"),
      ("2001:0db8:0000:0000:0000:0000:0000:0001", "2001:db8::1"),
      ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
      ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
      ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
      ("2001:DB8::ABCD", "2001:db8::abcd"),
      ("fe80::5054:ff:fe12:3456", "fe80::5054:ff:fe12:3456"),
      ("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"), ("::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"),
      ("64:ff9b::192.0.2.33", "64:ff9b::c000:221"), ("::ffff:5.5.5.5", "::ffff:505:505"),
      ("1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:102:304"),
    ])
  func v6(text: String, canonical: String) throws {
    let address = try #require(IPAddress(text))
    #expect(address.family == .v6)
    #expect("\(address)" == canonical)
    #expect(IPAddress(canonical) == address)
  }

  @Test(
    "What is no address is refused",
    arguments: [
      "", ".", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.4 ", " 1.2.3.4", "1..2.3", "+1.2.3.4",
      "1.2.3.-4", "٣.2.3.4", "a.b.c.d", ":", ":::", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9",
      "1:2:3:4::5:6:7:8", "1::2::3", "12345::", "g::", "::1.2.3", "::1.2.3.4:5", "1.2.3.4::",
      ":1:2:3:4:5:6:7",
      "1:2:3:4:5:6:7:", "::1%eth0", "::+1", "1:2:3:4:5:6:7:1.2.3.4",
    ])
  func refused(text: String) {
    #expect(IPAddress(text) == nil)
  }

  @Test func everyAddressSurvivesItsBytesAndItsText() {
    var generator = SeededGenerator(seed: 2)
    for round in 0..<500 {
      // Zero halves and groups are where shortening goes wrong.
      let mask: UInt64 = [.max, 0xffff_0000_ffff_0000, 0x0000_ffff_0000_0000, 0xffff][round % 4]
      let address =
        round % 5 == 0
        ? IPAddress(v4: UInt32.random(in: 0...(.max), using: &generator))
        : IPAddress(v6High: generator.next() & mask, low: generator.next() & ~mask)
      #expect(IPAddress("\(address)") == address)
      let bytes = address.bytes
      #expect(bytes.count == address.byteCount)
      #expect(bytes.withUnsafeBytes { IPAddress(address.family, $0, at: 0) } == address)
      var stored = [UInt8](repeating: 0xaa, count: 20)
      stored.withUnsafeMutableBytes { address.store(in: $0, at: 3) }
      #expect(Array(stored[3..<3 + bytes.count]) == bytes)
      #expect(stored[2] == 0xaa && stored[3 + bytes.count] == 0xaa)
    }
  }

  @Test func linkLocalAddressesAreThoseOfIPv6() {
    for text in ["fe80::1", "febf:ffff::"] { #expect(IPAddress(text)?.isLinkLocal == true, "\(text)") }
    for text in ["fec0::1", "fe7f::1", "2001:db8::fe80", "ff02::1", "169.254.1.1"] {
      #expect(IPAddress(text)?.isLinkLocal == false, "\(text)")
    }
  }

  @Test func endpointsAndFlowsPrintAsUsual() throws {
    let v4 = Endpoint(try #require(IPAddress("5.5.5.5")), 16000)
    let v6 = Endpoint(try #require(IPAddress("2001:db8::1")), 179)
    #expect("\(v4)" == "5.5.5.5:16000")
    #expect("\(v6)" == "[2001:db8::1]:179")
    #expect("\(Flow(.tcp, local: v4, remote: v4))" == "tcp 5.5.5.5:16000 - 5.5.5.5:16000")
  }
}

import Control
import Glibc
import Packet
import Testing

@Suite("A datagram on a snoop descriptor")
struct SnoopedDatagramTests {
  @Test(
    "is read as it was written, and its header is what system calls take",
    arguments: [("5.5.5.4", "5.5.5.5", [1, 2, 3]), ("2001:db8::4", "2001:db8::5", [])]
      as [(String, String, [UInt8])])
  func roundTrip(source: String, destination: String, payload: [UInt8]) throws {
    let datagram = SnoopedDatagram(
      source: Endpoint(try #require(IPAddress(source)), 7000),
      destination: Endpoint(try #require(IPAddress(destination)), 16001), payload: payload)
    let message = datagram.message
    #expect(message.count == 56 + payload.count)
    #expect(message.withUnsafeBytes { SnoopedDatagram(message: $0) } == datagram)

    var host = [CChar](repeating: 0, count: Int(NI_MAXHOST))
    var port = [CChar](repeating: 0, count: Int(NI_MAXSERV))
    for (offset, end) in [(0, datagram.source), (28, datagram.destination)] {
      let result = message.withUnsafeBytes { bytes in
        getnameinfo(
          (bytes.baseAddress! + offset).assumingMemoryBound(to: sockaddr.self),
          socklen_t(end.address.family == .v4 ? 16 : 28), &host, socklen_t(host.count), &port,
          socklen_t(port.count), NI_NUMERICHOST | NI_NUMERICSERV)
      }
      #expect(result == 0)
      #expect(text(host) == "\(end.address)" && text(port) == "\(end.port)")
    }
  }

  private func text(_ characters: [CChar]) -> String {
    String(decoding: characters.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  @Test("is none if it is too short, or its addresses are of no family")
  func none() {
    let message = SnoopedDatagram(
      source: Endpoint(IPAddress(v4: 1), 1), destination: Endpoint(IPAddress(v4: 2), 2), payload: []
    ).message
    #expect(message.dropLast().withUnsafeBytes { SnoopedDatagram(message: $0) } == nil)
    for offset in [0, 28] {
      var damaged = message
      damaged[offset] = 99
      #expect(damaged.withUnsafeBytes { SnoopedDatagram(message: $0) } == nil)
    }
    #expect([UInt8]().withUnsafeBytes { SnoopedDatagram(message: $0) } == nil)
  }
}

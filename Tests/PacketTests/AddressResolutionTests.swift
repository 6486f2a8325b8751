import Packet
import Testing

@Suite struct AddressResolutionTests {
  private let mac = MACAddress(rawValue: 0x0200_5e10_0001)

  @Test(
    "An announcement is read back as what it announces",
    arguments: [AddressResolution.Operation.request, .reply])
  func announcement(operation: AddressResolution.Operation) throws {
    let address = try #require(IPAddress("5.5.5.5"))
    let frame = AddressResolution.announcement(of: address, at: mac, as: operation)
    #expect(frame.count == AddressResolution.frameByteCount)
    let message = try #require(frame.withUnsafeBytes { AddressResolution.Message($0) })
    #expect(message.operation == operation)
    #expect(message.sender == address && message.target == address)
    #expect(message.senderMAC == mac)
    #expect(frame.withUnsafeBytes { Ethernet.destination($0) } == .broadcast)
    #expect(frame.withUnsafeBytes { Ethernet.source($0) } == mac)
  }

  @Test("A probe claims nothing: its sender address is zero (RFC 5227, section 2.1.1)")
  func probe() throws {
    let address = try #require(IPAddress("192.0.2.7"))
    let frame = AddressResolution.probe(for: address, from: mac)
    let message = try #require(frame.withUnsafeBytes { AddressResolution.Message($0) })
    #expect(message.operation == .request)
    #expect(message.sender == IPAddress(v4: 0))
    #expect(message.target == address)
    #expect(message.targetMAC == .zero)
  }

  @Test func whatIsNotARPForIPv4OverEthernetIsRefused() throws {
    let good = AddressResolution.probe(for: IPAddress(v4: 1), from: mac)
    #expect(good.withUnsafeBytes { AddressResolution.Message($0) } != nil)
    for place in 12..<22 {
      var bad = good
      bad[place] ^= 0x40
      #expect(bad.withUnsafeBytes { AddressResolution.Message($0) } == nil, "byte \(place)")
    }
    #expect(good.dropLast().withUnsafeBytes { AddressResolution.Message($0) } == nil)
  }

  @Test func hardwareAddressesPrintWithLeadingZeros() {
    #expect("\(MACAddress(rawValue: 0x0200_5e10_00a1))" == "02:00:5e:10:00:a1")
    #expect("\(MACAddress.zero)" == "00:00:00:00:00:00")
    #expect(MACAddress(rawValue: 0xabcd_0000_0000_0001) == MACAddress(rawValue: 1))
  }
}

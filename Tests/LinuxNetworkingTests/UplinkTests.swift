import Descriptors
import Glibc
import LinuxNetworking
import Packet
import Testing

@Suite("An uplink", .serialized)
struct UplinkTests {
  private final class Listeners: Sendable {
    let arp: UplinkListener
    let discovery: UplinkListener
    let keepalives: UplinkListener

    init(on device: String) throws {
      let interface = try NetworkInterface(named: device)
      arp = try UplinkListener(interface: interface, for: .addressResolution)
      discovery = try UplinkListener(interface: interface, for: .neighborDiscovery)
      keepalives = try UplinkListener(interface: interface, for: .keepalives)
    }
  }

  private func frames(_ descriptor: Int32) -> [[UInt8]] {
    var frames: [[UInt8]] = []
    var buffer = [UInt8](repeating: 0, count: 70_000)
    while true {
      let count = read(descriptor, &buffer, buffer.count)
      if count <= 0 { return frames }
      frames.append(Array(buffer[..<count]))
    }
  }

  @Test("is heard by kind of traffic, one frame per read, and nothing else is")
  func kinds() throws {
    let network = try TestNetwork(engines: 2)
    let listeners = try network.engines[0].run { try Listeners(on: "eth0") }
    pause(milliseconds: 100)
    for descriptor in [
      listeners.arp.descriptor, listeners.discovery.descriptor, listeners.keepalives.descriptor,
    ] { _ = frames(descriptor) }

    let keepalive = [UInt8](unsafeUninitializedCapacity: 60) { buffer, count in
      let bytes = UnsafeMutableRawBufferPointer(buffer)
      bytes.initializeMemory(as: UInt8.self, repeating: 7)
      Ethernet.store(
        destination: .broadcast, source: MACAddress(rawValue: 0x0200_0000_0009),
        type: Ethernet.typeLocalExperimental, in: bytes)
      count = 60
    }
    let probe = AddressResolution.probe(
      for: TestNetwork.own(.v4, 0), from: MACAddress(rawValue: 0x0200_0000_0009))
    try network.engines[1].run {
      let uplink = try NetworkInterface(named: "eth0")
      let socket = try PacketSocket(interface: uplink, mark: 1)
      for frame in [keepalive, probe, keepalive] {
        let whole = [UInt8](repeating: 0, count: VirtioNetHeader.byteCount) + frame
        let status = whole.withUnsafeBytes { socket.send($0) }
        guard status == 0 else { throw SystemError("send", code: status) }
      }
      // Makes the kernel solicit and advertise, and then carry a connection over both families.
      for family in [IPAddress.Family.v4, .v6] {
        let endpoint = Endpoint(TestNetwork.own(family, 0), 22)
        let listener = try network.engines[0].run { try StreamSocket.listening(at: endpoint) }
        let client = try StreamSocket.connected(to: endpoint)
        try client.write([1])
        _ = listener
      }
    }
    pause(milliseconds: 50)
    #expect(frames(listeners.keepalives.descriptor) == [keepalive, keepalive])
    let arp = frames(listeners.arp.descriptor)
    #expect(arp.contains { $0.prefix(probe.count) == probe[...] })
    #expect(arp.allSatisfy { $0.withUnsafeBytes { AddressResolution.Message($0) != nil } })
    let discovery = frames(listeners.discovery.descriptor)
    #expect(!discovery.isEmpty)
    #expect(discovery.allSatisfy { $0[20] == 58 && ($0[54] == 135 || $0[54] == 136) })
  }

  @Test("refuses a packet socket to an interface that is gone")
  func gone() throws {
    let network = try TestNetwork()
    try network.engines[0].run {
      let uplink = try NetworkInterface(named: "eth0")
      try network.engines[0].ip("link del eth0")
      do {
        _ = try PacketSocket(interface: uplink, mark: 1)
        throw SystemError("unexpected", code: 0)
      } catch let error as SystemError where error.code == ENODEV {}
    }
  }
}

import Descriptors
import Glibc
import LinuxNetworking
import Packet
import Testing

@Suite("A network interface", .serialized)
struct NetworkInterfaceTests {
  @Test("is found by name in the namespace of the caller, with index, address and MTU")
  func found() throws {
    let network = try TestNetwork()
    try network.engines[0].ip("link set eth0 mtu 1400 address 02:00:00:00:12:34")
    let interface = try network.engines[0].run { try NetworkInterface(named: "eth0") }
    #expect(interface.mtu == 1400)
    #expect(interface.hardwareAddress == MACAddress(rawValue: 0x0200_0000_1234))
    #expect(interface.index > 1)
    #expect(throws: SystemError.self) {
      try network.peer.run { try NetworkInterface(named: "eth0") }
    }
    for name in ["", "a-name-that-is-too-long"] {
      #expect(throws: SystemError.self) { try NetworkInterface(named: name) }
    }
    #expect(try NetworkInterface(named: "lo").hardwareAddress == .zero)
  }

  @Test("runs while it is up and the other end of the wire is")
  func carrier() throws {
    final class Kept: Sendable {
      let carrier: Carrier
      init() throws { carrier = try Carrier(of: "eth0") }
    }
    let network = try TestNetwork()
    let kept = try network.engines[0].run { try Kept() }
    #expect(eventually { kept.carrier.isRunning })
    #expect(try network.engines[0].run { NetworkInterface.isRunning(named: "eth0") })
    try network.peer.ip("link set port0 down")
    #expect(eventually { !kept.carrier.isRunning })
    try network.peer.ip("link set port0 up")
    #expect(eventually { kept.carrier.isRunning })
    try network.engines[0].ip("link set eth0 down mtu 1300")
    #expect(eventually { !kept.carrier.isRunning })
    #expect(kept.carrier.interface?.mtu == 1300)
    try network.engines[0].ip("link del eth0")
    #expect(kept.carrier.interface == nil && !kept.carrier.isRunning)
    #expect(try !network.engines[0].run { NetworkInterface.isRunning(named: "none0") })
  }

  @Test("comes, changes and goes, and there is news of it, and of no other")
  func news() throws {
    final class Kept: Sendable {
      let news: InterfaceNews
      init() throws { news = try InterfaceNews() }
    }
    let namespace = try NetworkNamespace("news")
    let kept = try namespace.run { try Kept() }
    #expect(kept.news.take().isEmpty)
    try namespace.ip("link add eth0 type veth peer name eth1")
    let coming = kept.news.take()
    #expect(coming.concern("eth0", nil) && coming.concern("eth1", nil) && !coming.concern("eth2", nil))
    #expect(kept.news.take().isEmpty)

    let interface = try namespace.run { try NetworkInterface(named: "eth0") }
    try namespace.ip("link set eth0 mtu 1400")
    #expect(kept.news.take().concern("eth0", interface))
    try namespace.ip("link set eth0 name eth7")
    // Known by its number under whatever name.
    let renaming = kept.news.take()
    #expect(renaming.concern("eth0", interface) && renaming.concern("eth7", nil))
    // More than the socket holds: nothing can be excluded.
    let path = "/tmp/\(namespace.name).batch"
    defer { unlink(path) }
    try shell("for n in $(seq 1000); do echo link set eth7 mtu $((1300 + n % 2)); done >\(path)")
    try namespace.ip("-batch \(path)")
    #expect(kept.news.take().concern("eth9", nil))
    #expect(eventually { kept.news.take().isEmpty })

    try namespace.ip("link del eth7")
    #expect(kept.news.take().concern("eth0", interface))
  }

  private static func unspecified(_ family: IPAddress.Family) -> IPAddress {
    family == .v4 ? IPAddress(v4: 0) : IPAddress(v6High: 0, low: 0)
  }

  @Test("takes and gives up addresses at once, any number of times", arguments: [IPAddress.Family.v4, .v6])
  func addresses(family: IPAddress.Family) throws {
    let network = try TestNetwork()
    let address = TestNetwork.replicated(family)
    let prefix = TestNetwork.prefix(family)
    let entry = AddressConfiguration.Entry(address, prefixLength: prefix)
    try network.engines[0].run {
      let uplink = try NetworkInterface(named: "eth0")
      let before = Set(try AddressConfiguration.list(on: uplink))
      for _ in 0..<2 { try AddressConfiguration.add(address, prefixLength: prefix, to: uplink) }
      guard Set(try AddressConfiguration.list(on: uplink)) == before.union([entry]) else {
        throw SystemError("list", code: EINVAL)
      }
      // Usable at once: no duplicate address detection is awaited.
      _ = try StreamSocket.listening(at: Endpoint(address, 179))
      for _ in 0..<2 { try AddressConfiguration.remove(address, prefixLength: prefix, from: uplink) }
      // And packets for it are delivered.
      let listener = try StreamSocket.listening(at: Endpoint(Self.unspecified(family), 180))
      for _ in 0..<100 {
        try AddressConfiguration.add(address, prefixLength: prefix, to: uplink)
        try StreamSocket.connected(to: Endpoint(address, 180)).write([1])
        _ = try listener.accepted()
        try AddressConfiguration.remove(address, prefixLength: prefix, from: uplink)
      }
      guard Set(try AddressConfiguration.list(on: uplink)) == before else {
        throw SystemError("list", code: EINVAL)
      }
    }
    let gone = try network.engines[0].run { try NetworkInterface(named: "eth0") }
    try network.peer.ip("link del port0")
    #expect(throws: SystemError.self) {
      try network.engines[0].run { try AddressConfiguration.add(address, prefixLength: prefix, to: gone) }
    }
  }
}

import Descriptors
import Glibc
import LinuxNetworking
import Packet
import Testing

/// Where the kernel has no VRF a bridge takes its place: see VRF.swift.
@Suite("A VRF", .serialized)
struct VRFTests {
  /// Makes devices that can have ports, and returns what `body` makes of them.
  private static func devices<Result: Sendable>(
    _ names: [String], in namespace: NetworkNamespace, _ body: @escaping @Sendable ([VRF]) throws -> Result
  ) throws -> Result {
    for (number, name) in names.enumerated() {
      do {
        try namespace.ip("link add \(name) type vrf table \(10 + number) 2>/dev/null")
      } catch {
        if number == 0 {
          print("VRF: skipped with VRFs, which this kernel has not: bridges take their place")
        }
        try namespace.ip("link add \(name) type bridge")
      }
      try namespace.ip("link set \(name) up")
    }
    return try namespace.run { try body(names.map { try VRF(named: $0) }) }
  }

  @Test("has the interfaces that are its ports, a TAP device among them")
  func ports() throws {
    let namespace = try NetworkNamespace("re")
    try namespace.ip("link add eth0 type veth peer name eth1")
    let (has, hasNot) = try Self.devices(["blue", "red"], in: namespace) { vrfs in
      let tap = try TapDevice(named: "jsr0", mtu: 1400, in: vrfs[0])
      try namespace.ip("link set eth0 master blue")
      func answers(_ vrf: VRF) throws -> [Bool] {
        try [tap.name, "eth0", "eth1"].map { vrf.has(try NetworkInterface(named: $0)) }
      }
      return (try answers(vrfs[0]), try answers(vrfs[1]))
    }
    #expect(has == [true, true, false])
    #expect(hasNot == [false, false, false])
    #expect(throws: SystemError("ioctl(SIOCGIFINDEX)", code: ENODEV, on: "green")) {
      try namespace.run { try VRF(named: "green") }
    }
  }

  @Test("keeps its sockets apart from those of the same ends in another")
  func sockets() throws {
    let network = try TestNetwork()
    try network.giveReplicatedAddress(.v4, to: 0)
    let (server, client) = try StreamSocket.pair(on: network)
    try network.isolate(0)
    let snapshot = try TCPRepair.snapshot(of: server.descriptor)
    try TCPRepair.disconnectSilently(server.descriptor)
    let flow = Flow(.tcp, local: snapshot.local, remote: snapshot.remote)
    let ends = UDPSocket.Ends(local: snapshot.local, remote: snapshot.remote, isIPv6Socket: false)
    try Self.devices(["blue", "red"], in: network.engines[0]) { vrfs in
      // In a VRF the address is that of a port.
      for vrf in vrfs {
        let device = try NetworkInterface(named: vrf.name)
        try AddressConfiguration.add(snapshot.local.address, prefixLength: 24, to: device, in: vrf)
      }
      var sockets: [(StreamSocket, DatagramSocket)] = []
      for vrf in vrfs {
        let stream = StreamSocket(owning: try TCPRepair.restore(snapshot, in: vrf))
        let datagrams = DatagramSocket(
          owning: try UDPSocket.restore(ends, in: vrf, options: snapshot.options))
        #expect(try VRF.device(of: stream.descriptor) == vrf.index)
        #expect(try VRF.device(of: datagrams.descriptor) == vrf.index)
        sockets.append((stream, datagrams))
      }
      defer { withExtendedLifetime(sockets) {} }
      func existing() throws -> [Bool] { try vrfs.map { try LiveConnection.exists(flow, in: $0) } }
      #expect(try existing() == [true, true])
      #expect(try !LiveConnection.exists(flow))

      let blue = vrfs[0].index
      #expect(try StaleConnections.destroy(local: flow.local.address) { $0 == 0 } == 0)
      #expect(try StaleConnections.destroy(local: flow.local.address) { $0 == blue } == 1)
      #expect(try existing() == [false, true])
      #expect(
        try StaleConnections.destroy(local: flow.local.address, among: [flow]) { $0 != blue } == 1)
      #expect(try existing() == [false, false])
    }
    withExtendedLifetime(client) {}
  }

  @Test("has a packet filter of its own beside that of others")
  func filters() throws {
    let network = try TestNetwork()
    try network.engines[0].ip("link add eth1 type veth peer name other")
    let flow = Flow(
      .tcp, local: Endpoint(TestNetwork.replicated(.v4), 179),
      remote: Endpoint(TestNetwork.peerAddress(.v4), 4000))
    let replicated = [flow.local.address]
    try network.engines[0].run {
      let filters = [
        try PacketFilter(mark: RoutingEngine.mark),
        try PacketFilter(mark: RoutingEngine.mark, table: "jsr_1"),
      ]
      for (number, filter) in filters.enumerated() {
        let tap = try TapDevice(named: "jsr\(number)", mtu: 1500)
        let uplink = try NetworkInterface(named: "eth\(number)")
        try filter.install(uplinks: [.init(uplink, tapName: tap.name)], replicated: replicated)
      }
      try filters[0].steer(adding: [flow])
      #expect(try filters.map { try $0.steeredFlows() } == [[flow], []])
      try filters[1].grantLease(replicated, for: .seconds(10))
      #expect(try filters.map { try $0.renewLease(replicated, for: .seconds(10)) } == [false, true])
      try filters[0].remove()
      #expect(try filters[1].renewLease(replicated, for: .seconds(10)))
    }
  }
}

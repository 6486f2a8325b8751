import Descriptors
import Glibc
import LinuxNetworking
import Packet

/// A peer and two routing engines on one Ethernet segment: a bridge in the peer's namespace, on which the
/// peer has its own address, and a veth to each engine, called `eth0` there.
final class TestNetwork: Sendable {
  let peer: NetworkNamespace
  let engines: [NetworkNamespace]

  static let prefix4: UInt8 = 24
  static let prefix6: UInt8 = 64

  static func peerAddress(_ family: IPAddress.Family) -> IPAddress { address(family, 4) }
  static func replicated(_ family: IPAddress.Family) -> IPAddress { address(family, 5) }
  static func own(_ family: IPAddress.Family, _ engine: Int) -> IPAddress {
    address(family, UInt64(10 + engine))
  }
  static func prefix(_ family: IPAddress.Family) -> UInt8 { family == .v4 ? prefix4 : prefix6 }

  private static func address(_ family: IPAddress.Family, _ host: UInt64) -> IPAddress {
    family == .v4
      ? IPAddress(v4: 0x0a09_0000 | UInt32(host))
      : IPAddress(v6High: 0xfd09_0000_0000_0000, low: host)
  }

  init(engines count: Int = 1) throws {
    let peer = try NetworkNamespace("peer")
    let engines = try (0..<count).map { try NetworkNamespace("re\($0)") }
    try peer.ip("link add br0 type bridge")
    for (index, engine) in engines.enumerated() {
      try peer.ip("link add port\(index) type veth peer name eth0 netns \(engine.name)")
      try peer.ip("link set port\(index) master br0 up")
      try engine.ip("link set eth0 up")
      for family in [IPAddress.Family.v4, .v6] {
        try Self.add(Self.own(family, index), to: engine, "eth0")
      }
    }
    try peer.ip("link set br0 up")
    for family in [IPAddress.Family.v4, .v6] { try Self.add(Self.peerAddress(family), to: peer, "br0") }
    self.peer = peer
    self.engines = engines
  }

  private static func add(_ address: IPAddress, to namespace: NetworkNamespace, _ device: String) throws {
    let noDetection = address.family == .v6 ? " nodad" : ""
    try namespace.ip("addr add \(address)/\(prefix(address.family)) dev \(device)\(noDetection)")
  }

  /// Gives the replicated address to an engine, and tells the segment.
  func giveReplicatedAddress(_ family: IPAddress.Family, to engine: Int) throws {
    let address = Self.replicated(family)
    try engines[engine].run {
      let uplink = try NetworkInterface(named: "eth0")
      try AddressConfiguration.add(address, prefixLength: Self.prefix(family), to: uplink)
    }
    // What the peer learned of an earlier owner.
    try? peer.ip("neigh flush to \(address) dev br0")
  }

  func takeReplicatedAddress(_ family: IPAddress.Family, from engine: Int) throws {
    try engines[engine].run {
      let uplink = try NetworkInterface(named: "eth0")
      try AddressConfiguration.remove(
        Self.replicated(family), prefixLength: Self.prefix(family), from: uplink)
    }
  }

  /// Lets no packet in or out of an engine, so that none of its sockets, and no missing socket, can answer.
  func isolate(_ engine: Int) throws {
    try engines[engine].nft(
      """
      add table netdev isolation
      add chain netdev isolation in { type filter hook ingress device eth0 priority 0; policy drop; }
      add chain netdev isolation out { type filter hook egress device eth0 priority 0; policy drop; }
      """)
  }

  func endIsolation(_ engine: Int) throws { try engines[engine].nft("delete table netdev isolation") }
}

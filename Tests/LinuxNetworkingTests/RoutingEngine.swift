import Descriptors
import Glibc
import LinuxNetworking
import Packet

/// A routing engine with uplink, TAP device, packet socket and packet filter, on a segment with a peer: all
/// that the real one has, save the protocol.
final class RoutingEngine: Sendable {
  static let mark: UInt32 = 0x4a53_5201
  static let replicated = [TestNetwork.replicated(.v4), TestNetwork.replicated(.v6)]

  let network: TestNetwork
  let uplink: NetworkInterface
  let tap: TapDevice
  let packetSocket: PacketSocket
  /// Made in the engine's namespace, used by the one thread of a test.
  nonisolated(unsafe) let filter: PacketFilter

  private final class Parts: @unchecked Sendable {
    var uplink: NetworkInterface
    var tap: TapDevice?
    var packetSocket: PacketSocket?
    var filter: PacketFilter

    init() throws {
      uplink = try NetworkInterface(named: "eth0")
      tap = try TapDevice(named: "jsr0", mtu: uplink.mtu)
      packetSocket = try PacketSocket(interface: uplink, mark: RoutingEngine.mark)
      filter = try PacketFilter(mark: RoutingEngine.mark)
      try filter.install(
        uplinks: [.init(uplink, tapName: "jsr0")], replicated: RoutingEngine.replicated)
    }
  }

  init() throws {
    let network = try TestNetwork()
    for family in [IPAddress.Family.v4, .v6] { try network.giveReplicatedAddress(family, to: 0) }
    let parts = try network.engines[0].run { try Parts() }
    guard let tap = parts.tap.take(), let packetSocket = parts.packetSocket.take() else {
      preconditionFailure("made a moment ago")
    }
    self.network = network
    uplink = parts.uplink
    self.tap = tap
    self.packetSocket = packetSocket
    filter = parts.filter
  }

  /// Installs the packet filter again, as a new run of the engine would.
  func install() throws {
    try network.engines[0].run { [self] in
      try filter.install(
        uplinks: [.init(uplink, tapName: "jsr0")], replicated: RoutingEngine.replicated)
    }
  }

  /// Takes the uplink away and gives the engine another one under its name, with the replicated addresses.
  func replaceUplink() throws -> NetworkInterface {
    let namespace = network.engines[0]
    try namespace.ip("link del eth0")
    try network.peer.ip("link add port0 type veth peer name eth0 netns \(namespace.name)")
    try network.peer.ip("link set port0 master br0 up")
    try namespace.ip("link set eth0 up")
    for family in [IPAddress.Family.v4, .v6] { try network.giveReplicatedAddress(family, to: 0) }
    return try namespace.run { try NetworkInterface(named: "eth0") }
  }

  /// Has the packet filter look after an uplink that has come.
  func update(_ uplink: NetworkInterface) throws {
    try network.engines[0].run { [self] in
      try filter.update(uplinks: [.init(uplink, tapName: "jsr0")], absent: [])
    }
  }

  /// The frames that were steered to the engine since the last call, each behind its virtio-net header.
  func steeredFrames() -> [[UInt8]] {
    var frames: [[UInt8]] = []
    var buffer = [UInt8](repeating: 0, count: 70_000)
    while true {
      let count = read(tap.descriptor, &buffer, buffer.count)
      if count <= 0 { return frames }
      frames.append(Array(buffer[..<count]))
    }
  }

  /// Puts a steered frame back on its way: to the uplink if this engine sent it, else to its sockets.
  func release(_ frame: [UInt8]) -> Int32 {
    var frame = frame
    let header = VirtioNetHeader.byteCount
    let isOutgoing = frame.withUnsafeBytes {
      Ethernet.source(UnsafeRawBufferPointer(rebasing: $0[header...])) == uplink.hardwareAddress
    }
    if isOutgoing { return frame.withUnsafeBytes { packetSocket.send($0) } }
    frame.withUnsafeMutableBytes { tap.hardwareAddress.store(in: $0, at: header) }
    return frame.withUnsafeBytes { tap.write($0) }
  }

  /// Releases everything at once, on a thread of its own, until `stop` is set.
  func releasing(until stop: Flag) -> Background<Int> {
    Background { [self] in
      var released = 0
      while !stop.isSet {
        var query = pollfd(fd: tap.descriptor, events: Int16(POLLIN), revents: 0)
        if poll(&query, 1, 20) > 0 {
          for frame in steeredFrames() where release(frame) == 0 { released += 1 }
        }
      }
      return released
    }
  }
}

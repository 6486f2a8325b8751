import Descriptors
import Glibc
import LinuxNetworking
import Packet
import Testing

@Suite("A TAP device", .serialized)
struct TapDeviceTests {
  private func parameter(_ path: String, in namespace: NetworkNamespace) throws -> String {
    try namespace.run {
      let descriptor = open("/proc/sys/net/" + path, O_RDONLY)
      guard descriptor >= 0 else { throw SystemError("open", on: path) }
      let file = OwnedDescriptor(owning: descriptor)
      var buffer = [UInt8](repeating: 0, count: 64)
      let count = read(file.rawValue, &buffer, buffer.count)
      return String(decoding: buffer[..<max(0, count - 1)], as: UTF8.self)
    }
  }

  private final class Kept: Sendable {
    let tap: TapDevice
    init(_ name: String, mtu: Int, hardwareAddress: MACAddress? = nil) throws {
      tap = try TapDevice(named: name, mtu: mtu, hardwareAddress: hardwareAddress)
    }
  }

  @Test("is up, has the MTU and hardware address it was given, no address, and goes with its owner")
  func life() throws {
    let namespace = try NetworkNamespace("tap")
    let mac = MACAddress(rawValue: 0x0200_0000_4242)
    try namespace.run {
      let kept = try Kept("jsr0", mtu: 9000, hardwareAddress: mac)
      let interface = try NetworkInterface(named: "jsr0")
      guard interface.mtu == 9000, interface.hardwareAddress == mac, kept.tap.hardwareAddress == mac,
        kept.tap.index == interface.index, NetworkInterface.isRunning(named: "jsr0"),
        try AddressConfiguration.list(on: interface).isEmpty
      else { throw SystemError("TAP", code: EINVAL) }
      do {
        _ = try TapDevice(named: "jsr0", mtu: 1500)
        throw SystemError("second", code: 0)
      } catch let error as SystemError where error.code == EBUSY {}
    }
    #expect(throws: SystemError.self) { try namespace.run { try NetworkInterface(named: "jsr0") } }
  }

  @Test("takes over what its uplink has become, without being taken down")
  func following() throws {
    let namespace = try NetworkNamespace("tap")
    try namespace.ip("link add eth0 type veth peer name eth1")
    try namespace.ip("link set eth0 mtu 1400 address 02:00:00:00:43:43")
    try namespace.run {
      var tap = try TapDevice(named: "jsr0", mtu: 9000)
      let uplink = try NetworkInterface(named: "eth0")
      try tap.follow(uplink)
      let interface = try NetworkInterface(named: "jsr0")
      guard interface.mtu == 1400, interface.hardwareAddress == uplink.hardwareAddress,
        tap.hardwareAddress == uplink.hardwareAddress, tap.index == interface.index,
        NetworkInterface.isRunning(named: "jsr0")
      else { throw SystemError("TAP", code: EINVAL) }
    }
  }

  @Test("takes packets of any source, and leaves the filter in force on other interfaces as it was")
  func reversePathFilter() throws {
    let network = try TestNetwork()
    let engine = network.engines[0]
    try shell(
      "ip netns exec \(engine.name) sysctl -q net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.eth0.rp_filter=2")
    let kept = try engine.run { try Kept("jsr0", mtu: 1500) }
    #expect(try parameter("ipv4/conf/all/rp_filter", in: engine) == "0")
    #expect(try parameter("ipv4/conf/jsr0/rp_filter", in: engine) == "0")
    #expect(try parameter("ipv4/conf/eth0/rp_filter", in: engine) == "2")
    #expect(try parameter("ipv4/conf/lo/rp_filter", in: engine) == "1")
    #expect(try parameter("ipv4/conf/default/rp_filter", in: engine) == "1")
    #expect(try parameter("ipv6/conf/jsr0/disable_ipv6", in: engine) == "0")
    #expect(try parameter("ipv6/conf/jsr0/accept_ra", in: engine) == "0")
    _ = kept
  }

  @Test("refuses what is not a frame")
  func nonsense() throws {
    let namespace = try NetworkNamespace("tap")
    let kept = try namespace.run { try Kept("jsr0", mtu: 1500) }
    let short = [UInt8](repeating: 0, count: 5)
    #expect(short.withUnsafeBytes { kept.tap.write($0) } == EINVAL)
    try namespace.ip("link set jsr0 down")
    let frame = [UInt8](repeating: 0, count: 10 + 60)
    #expect(frame.withUnsafeBytes { kept.tap.write($0) } == EIO)
  }
}

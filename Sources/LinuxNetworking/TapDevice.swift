// Theory of operation
//
// Packets of replicated flows are forwarded to this device by nftables, and come out of its descriptor,
// one Ethernet frame per read(2), behind a virtio-net header of 10 bytes. A frame written to the
// descriptor arrives on the device as if from a wire, and its packet is delivered to the local sockets.
//
// Relied on, from drivers/net/tun.c; all but the last was tried:
//
// - With IFF_VNET_HDR and TUNSETOFFLOAD (checksums, large TCP segments of both families) the kernel hands
//   out frames of up to 64 KiB with partial checksums instead of cutting and summing them first.
// - One write(2) is one frame. So is one writev(2), which therefore cannot carry several.
// - A non-persistent device goes away with its last descriptor. What nftables forwards to a device that is
//   gone is dropped: a flow of a dead engine falls silent.
// - The device's queue (tun_net_xmit) drops what does not fit; it holds `queueLength` frames.
//
// A packet that comes in here carries a source address that is routed elsewhere. IPv4 takes it only with
// reverse path filtering off (rp_filter, net/ipv4/fib_frontend.c; the effective value is the larger of the
// device's and that of `all`). IPv6 has no such filter. IPv6 stays enabled, since a device without it
// receives no IPv6 at all, but takes no address and no router advertisement: the device must never be a
// way out.

import CLinux
import Descriptors
import Glibc
import Packet

/// The device through which packets of replicated flows reach the engine, and through which it delivers
/// them.
public struct TapDevice: ~Copyable, Sendable {
  public let name: String
  public let index: Int32
  public private(set) var hardwareAddress: MACAddress
  private let file: OwnedDescriptor

  /// Frames that wait for the engine before the kernel drops any. A frame can be 64 KiB, but TCP keeps few
  /// of its own in flight per connection (TCP small queues), so the bound in bytes is that of the flows.
  public static let queueLength: Int32 = 4096

  /// Makes the device and brings it up, with `mtu` bytes per IP packet: the MTU of its uplink.
  ///
  /// Needs CAP_NET_ADMIN, /dev/net/tun and a writable /proc/sys. If `rp_filter` of `all` is not 0 it is set
  /// to 0, after every interface's own value has been raised to it: what is in force on each of them stays
  /// as it was.
  ///
  /// - Parameters:
  ///   - address: what the device shall have; one of the kernel's choice if `nil`. With that of its uplink, frames go
  ///     back and forth between the two as they are.
  ///   - vrf: of which it becomes a port.
  /// - Throws: `EBUSY` if another process has a device of this name, `EPERM` without the privilege, `ENOENT`
  ///   without the driver.
  public init(
    named name: String, mtu: Int, hardwareAddress address: MACAddress? = nil, in vrf: VRF? = nil
  ) throws(SystemError) {
    let descriptor = jsr_open_tap(name, Int32(VirtioNetHeader.byteCount))
    guard descriptor >= 0 else { throw SystemError("ioctl(TUNSETIFF)", on: name) }
    let file = OwnedDescriptor(owning: descriptor)

    try Self.disableReversePathFilter(on: name)
    // Before the device comes up, which is when IPv6 would give it an address.
    for (parameter, value) in [
      ("addr_gen_mode", "1"), ("accept_ra", "0"), ("router_solicitations", "0"), ("autoconf", "0"),
      ("accept_redirects", "0"),
    ] {
      do {
        try SystemControl.write(value, to: "net/ipv6/conf/\(name)/\(parameter)")
      } catch  where error.code == ENOENT {
        break  // A kernel without IPv6.
      }
    }

    let query = try queryingSocket()
    guard jsr_interface_set_queue_length(query.rawValue, name, Self.queueLength) == 0 else {
      throw SystemError("ioctl(SIOCSIFTXQLEN)", on: name)
    }
    try Self.set(mtu: mtu, hardwareAddress: address, of: name, asking: query)
    if let vrf { try vrf.add(port: NetworkInterface(named: name)) }
    guard
      jsr_interface_set_flags(
        query.rawValue, name, Int32(IFF_UP) | Int32(IFF_NOARP),
        Int32(IFF_MULTICAST)) == 0
    else { throw SystemError("ioctl(SIOCSIFFLAGS)", on: name) }

    let interface = try NetworkInterface(named: name)
    self.name = name
    index = interface.index
    hardwareAddress = interface.hardwareAddress
    self.file = file
  }

  /// Makes the device fit an uplink: its MTU and hardware address are those of `interface` from now on. The device need
  /// not be taken down for that (IFF_LIVE_ADDR_CHANGE, tun_net_init).
  public mutating func follow(_ interface: NetworkInterface) throws(SystemError) {
    let query = try queryingSocket()
    try Self.set(mtu: interface.mtu, hardwareAddress: interface.hardwareAddress, of: name, asking: query)
    hardwareAddress = interface.hardwareAddress
  }

  private static func set(
    mtu: Int, hardwareAddress address: MACAddress?, of name: String, asking query: borrowing OwnedDescriptor
  ) throws(SystemError) {
    guard jsr_interface_set_mtu(query.rawValue, name, Int32(clamping: mtu)) == 0 else {
      throw SystemError("ioctl(SIOCSIFMTU)", on: name)
    }
    guard let address else { return }
    var bytes: [UInt8] = [0, 0, 0, 0, 0, 0]
    bytes.withUnsafeMutableBytes { address.store(in: $0) }
    guard jsr_interface_set_hardware_address(query.rawValue, name, bytes) == 0 else {
      throw SystemError("ioctl(SIOCSIFHWADDR)", on: name)
    }
  }

  /// Takes the frame that has waited longest, behind its virtio-net header, and cuts what `buffer` does not hold. Never
  /// waits.
  ///
  /// - Returns: its length; `nil` if none waits, or the device cannot be read.
  public borrowing func read(into buffer: UnsafeMutableRawBufferPointer) -> Int? {
    while true {
      let count = Glibc.read(file.rawValue, buffer.baseAddress, buffer.count)
      if count > 0 { return count }
      if count == 0 || errno != EINTR { return nil }
    }
  }

  /// Non-blocking; one frame per read, behind its virtio-net header. Borrow or duplicate it, never close it.
  public var descriptor: Int32 { file.rawValue }

  /// Delivers a frame, which starts with its virtio-net header and is addressed to `hardwareAddress`.
  ///
  /// Returns 0, or `errno`: `EAGAIN` and `ENOBUFS` mean that the kernel is short of memory for it, `EIO` that
  /// the device is down, `EINVAL` that header and frame do not fit.
  public borrowing func write(_ frame: UnsafeRawBufferPointer) -> Int32 {
    while true {
      if Glibc.write(file.rawValue, frame.baseAddress, frame.count) >= 0 { return 0 }
      if errno != EINTR { return errno }
    }
  }

  private static func disableReversePathFilter(on name: String) throws(SystemError) {
    let directory = "net/ipv4/conf"
    func value(of interface: String) throws(SystemError) -> Int {
      Int(try SystemControl.read("\(directory)/\(interface)/rp_filter")) ?? 0
    }
    let all = try value(of: "all")
    if all != 0 {
      for interface in try SystemControl.entries(of: directory) where interface != "all" {
        if try value(of: interface) < all {
          try SystemControl.write("\(all)", to: "\(directory)/\(interface)/rp_filter")
        }
      }
      try SystemControl.write("0", to: "\(directory)/all/rp_filter")
    }
    try SystemControl.write("0", to: "\(directory)/\(name)/rp_filter")
  }
}

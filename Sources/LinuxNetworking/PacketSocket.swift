// Theory of operation
//
// Frames that the engine releases leave through a packet socket on the uplink (packet(7)).
//
// Relied on, from net/packet/af_packet.c, each point tried:
//
// - With PACKET_VNET_HDR every frame sent is preceded by a virtio-net header of 10 bytes, the same that a
//   TAP device hands out; large segments and partial checksums are finished on the way out.
// - A socket of protocol 0 receives nothing and costs the receive path nothing; the EtherType of what it
//   sends is read from the frame (packet_parse_headers), so that nftables sees the right protocol.
// - Every frame passes the nftables egress hook, also one sent with PACKET_QDISC_BYPASS. The mark (SO_MARK)
//   is how the steering rule tells a released frame from one that is still to be held. It does not open
//   the fence, which is asked first.
//
// PACKET_QDISC_BYPASS is not used: a frame that was steered away at the egress hook has not been through
// the uplink's queueing discipline yet, and should be, once.

import CLinux
import Descriptors
import Glibc
import Packet

/// Puts whole frames on an uplink.
public struct PacketSocket: ~Copyable, Sendable {
  private let socket: OwnedDescriptor

  /// Bytes that may wait below the socket, in the queueing discipline and the driver.
  static let sendBuffer: Int32 = 32 << 20

  /// - Parameter mark: what ``PacketFilter`` was given, so that it lets these frames pass.
  /// - Throws: `EPERM` without CAP_NET_RAW or CAP_NET_ADMIN, `ENODEV` or `ENETDOWN` if the uplink is gone or
  ///   down.
  public init(interface: NetworkInterface, mark: UInt32) throws(SystemError) {
    let socket = try OwnedDescriptor(
      returnedBy: "socket(AF_PACKET)",
      Glibc.socket(
        AF_PACKET,
        Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0))
    let descriptor = socket.rawValue
    try setSocketOption(
      descriptor, SOL_PACKET, PACKET_VNET_HDR, Int32(1), "setsockopt(PACKET_VNET_HDR)")
    try setSocketOption(descriptor, SOL_SOCKET, SO_MARK, mark, "setsockopt(SO_MARK)")
    try setSocketOption(
      descriptor, SOL_SOCKET, SO_SNDBUFFORCE, Self.sendBuffer, "setsockopt(SO_SNDBUFFORCE)")
    try bindPacketSocket(descriptor, to: interface, etherType: 0)
    self.socket = socket
  }

  /// Sends a frame, which starts with its virtio-net header.
  ///
  /// Returns 0, or `errno`: `EAGAIN` if the send buffer is full, `ENOBUFS` if the queueing discipline dropped
  /// it, `EPERM` if a firewall did (the fence of ``PacketFilter`` among them, on some paths), `ENETDOWN`.
  public borrowing func send(_ frame: UnsafeRawBufferPointer) -> Int32 {
    while true {
      if Glibc.send(socket.rawValue, frame.baseAddress, frame.count, Int32(MSG_DONTWAIT)) >= 0 {
        return 0
      }
      if errno != EINTR { return errno }
    }
  }
}

/// Binds a packet socket to one interface and EtherType (0 for none).
func bindPacketSocket(_ descriptor: Int32, to interface: NetworkInterface, etherType: UInt16)
  throws(SystemError)
{
  var address = sockaddr_ll()
  address.sll_family = UInt16(AF_PACKET)
  address.sll_protocol = etherType.bigEndian
  address.sll_ifindex = interface.index
  let result = withUnsafeBytes(of: &address) {
    bind(descriptor, $0.baseAddress?.assumingMemoryBound(to: sockaddr.self), socklen_t($0.count))
  }
  guard result == 0 else { throw SystemError("bind(AF_PACKET)", on: interface.name) }
}

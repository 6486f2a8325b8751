// Theory of operation
//
// The engine listens on an uplink for keepalives of the other routing engine, and for answers to its own
// probes for a replicated address. A packet socket bound to one EtherType is only consulted for frames of
// that type (ptype_base, net/core/dev.c), where one bound to all of them, with a filter, would run for
// every packet of the data path. Hence one socket for each kind of traffic. Neighbour discovery alone
// shares its EtherType with the data path: its socket carries a classic BPF filter, which runs once per
// IPv6 packet, before any copy is made (packet_rcv, net/packet/af_packet.c).
//
// The socket is made with protocol 0 and gets its EtherType when it is bound: between the two it would
// otherwise receive from every interface.

import CLinux
import Descriptors
import Glibc
import Packet

/// Receives one kind of frames from one uplink.
public struct UplinkListener: ~Copyable, Sendable {
  /// What is listened for.
  public enum Traffic: Sendable, Hashable, CaseIterable {
    /// ARP, requests and replies.
    case addressResolution
    /// IPv6 neighbour solicitations and advertisements.
    case neighborDiscovery
    /// Frames of EtherType 0x88b5, between the routing engines.
    case keepalives

    var etherType: UInt16 {
      switch self {
      case .addressResolution: Ethernet.typeARP
      case .neighborDiscovery: Ethernet.typeIPv6
      case .keepalives: Ethernet.typeLocalExperimental
      }
    }
  }

  private let socket: OwnedDescriptor

  /// - Throws: `EPERM` without CAP_NET_RAW, `ENODEV` if the uplink is gone.
  public init(interface: NetworkInterface, for traffic: Traffic) throws(SystemError) {
    let socket = try OwnedDescriptor(
      returnedBy: "socket(AF_PACKET)",
      Glibc.socket(
        AF_PACKET,
        Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0))
    let descriptor = socket.rawValue
    try setSocketOption(
      descriptor, SOL_PACKET, JSR_PACKET_IGNORE_OUTGOING, Int32(1),
      "setsockopt(PACKET_IGNORE_OUTGOING)")
    if traffic == .neighborDiscovery { try Self.attachNeighborDiscoveryFilter(to: descriptor) }
    try bindPacketSocket(descriptor, to: interface, etherType: traffic.etherType)
    self.socket = socket
  }

  /// Non-blocking; one whole Ethernet frame per read(2). Borrow or duplicate it, never close it.
  public var descriptor: Int32 { socket.rawValue }

  private static func attachNeighborDiscoveryFilter(to descriptor: Int32) throws(SystemError) {
    func load(_ offset: Int) -> sock_filter {
      sock_filter(code: UInt16(BPF_LD | BPF_B | BPF_ABS), jt: 0, jf: 0, k: UInt32(offset))
    }
    func jump(ifEqual value: UInt32, _ then: UInt8, else otherwise: UInt8) -> sock_filter {
      sock_filter(code: UInt16(BPF_JMP | BPF_JEQ | BPF_K), jt: then, jf: otherwise, k: value)
    }
    func keep(_ bytes: UInt32) -> sock_filter {
      sock_filter(code: UInt16(BPF_RET | BPF_K), jt: 0, jf: 0, k: bytes)
    }
    let next = Ethernet.headerByteCount + 6
    let type = Ethernet.headerByteCount + 40
    // RFC 4861, section 4: ICMPv6 (58), types 135 and 136. They carry no extension header before ICMPv6.
    var program = [
      load(next), jump(ifEqual: 58, 0, else: 4), load(type), jump(ifEqual: 135, 1, else: 0),
      jump(ifEqual: 136, 0, else: 1), keep(0xffff), keep(0),
    ]
    try program.withUnsafeMutableBufferPointer { (instructions) throws(SystemError) in
      try setSocketOption(
        descriptor, SOL_SOCKET, SO_ATTACH_FILTER,
        sock_fprog(len: UInt16(instructions.count), filter: instructions.baseAddress),
        "setsockopt(SO_ATTACH_FILTER)")
    }
  }
}

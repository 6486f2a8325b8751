/// One end of a conversation: an address and a port.
public struct Endpoint: Hashable, Sendable, CustomStringConvertible {
  public var address: IPAddress
  public var port: UInt16

  @inlinable public init(_ address: IPAddress, _ port: UInt16) {
    self.address = address
    self.port = port
  }

  /// `5.5.5.5:16000`, or `[2001:db8::1]:16000` for IPv6.
  public var description: String {
    address.family == .v4 ? "\(address):\(port)" : "[\(address)]:\(port)"
  }
}

/// The transport protocols that can be replicated, by their IP protocol number.
public enum TransportProtocol: UInt8, Sendable, Hashable, CustomStringConvertible {
  case tcp = 6
  case udp = 17

  public var description: String {
    switch self {
    case .tcp: "tcp"
    case .udp: "udp"
    }
  }
}

/// One of several routing instances (a VRF, a network namespace) that one engine serves: each has addresses of its
/// own, which may be the same as another's.
public struct RoutingInstanceID: Hashable, Sendable, CustomStringConvertible {
  public var rawValue: UInt64

  /// The one that is there without being configured.
  public static let main = RoutingInstanceID(rawValue: 0)

  @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }

  /// One by its name: FNV-1a of its UTF-8 (draft-eastlake-fnv), which is the same on every machine.
  public init(name: String) {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    for byte in name.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
    rawValue = hash
  }

  /// Hexadecimal with prefix.
  public var description: String { "0x" + String(rawValue, radix: 16) }
}

/// What tells one conversation from another, seen from the routing engine: its own end and the peer's, in a routing
/// instance.
///
/// An unconnected UDP socket talks with any peer: its flow has no remote end, which is written as the unspecified
/// address and port 0.
public struct Flow: Hashable, Sendable, CustomStringConvertible {
  public var transport: TransportProtocol
  public var local: Endpoint
  public var remote: Endpoint
  public var instance: RoutingInstanceID

  @inlinable public init(
    _ transport: TransportProtocol, local: Endpoint, remote: Endpoint, instance: RoutingInstanceID = .main
  ) {
    self.transport = transport
    self.local = local
    self.remote = remote
    self.instance = instance
  }

  /// The flow of a UDP socket that is bound to `local` and not connected.
  @inlinable public init(unconnected local: Endpoint, instance: RoutingInstanceID = .main) {
    self.init(
      .udp, local: local, remote: Endpoint(.unspecified(local.address.family), 0), instance: instance)
  }

  /// Whether any peer may be at the other end.
  @inlinable public var isUnconnected: Bool { transport == .udp && remote.port == 0 }

  /// `tcp 5.5.5.5:16000 - 5.5.5.4:40000`, and the routing instance if it is not the main one:
  /// `tcp 5.5.5.5:16000 - 5.5.5.4:40000 instance 0x2`.
  public var description: String {
    "\(transport) \(local) - \(remote)" + (instance == .main ? "" : " instance \(instance)")
  }
}

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

/// What tells one conversation from another, seen from the routing engine: its own end and the peer's.
public struct Flow: Hashable, Sendable, CustomStringConvertible {
  public var transport: TransportProtocol
  public var local: Endpoint
  public var remote: Endpoint

  @inlinable public init(_ transport: TransportProtocol, local: Endpoint, remote: Endpoint) {
    self.transport = transport
    self.local = local
    self.remote = remote
  }

  /// `tcp 5.5.5.5:16000 - 5.5.5.4:40000`
  public var description: String { "\(transport) \(local) - \(remote)" }
}

import Descriptors

/// Why a socket cannot be replicated, and what to do about it.
public enum ReplicationRefusal: Error, Hashable, Sendable, CustomStringConvertible {
  /// The number is not that of an open descriptor.
  case notOpen
  case notASocket
  /// Neither IPv4 nor IPv6; the value is the address family.
  case unsupportedFamily(Int32)
  /// An Internet socket of another kind; the value is its protocol.
  case unsupportedProtocol(Int32)
  /// A UDP socket without a local port.
  case notBound
  case multipath
  /// A protocol such as TLS works inside the socket (TCP_ULP), with state that cannot be read.
  case upperLayerProtocol(String)
  /// The segments carry the authentication option of RFC 5925 (TCP-AO), whose keys and counters are the
  /// kernel's.
  case authenticated
  case listening
  case connecting
  case notConnected
  /// Both directions have been ended.
  case closing
  /// The packets of the socket never come by the engine.
  case otherNamespace
  /// The socket takes packets only from the interface of this name (SO_BINDTODEVICE), which is no VRF of the engine's.
  case boundToInterface(String)
  /// The socket could not be asked.
  case system(SystemError)

  public var description: String {
    switch self {
    case .notOpen: "the descriptor is not open"
    case .notASocket: "the descriptor is not a socket; give a connected TCP socket, or a UDP socket"
    case .unsupportedFamily(let family):
      "a socket of address family \(family) cannot be replicated; use IPv4 or IPv6"
    case .unsupportedProtocol(let number):
      "the socket speaks IP protocol \(number), which cannot be replicated"
    case .notBound: "the socket has no local address yet; bind it to a replicated one"
    case .multipath:
      "the socket is MPTCP, whose subflows cannot be rebuilt; create it with IPPROTO_TCP"
    case .upperLayerProtocol(let name):
      "the kernel runs \(name) inside the socket (TCP_ULP); replicate it before that is enabled"
    case .authenticated:
      "the connection is authenticated with TCP-AO (RFC 5925), which is not supported; use TCP_MD5SIG"
    case .listening: "a listening socket is not replicated; replicate the connections it accepts"
    case .connecting: "the connection is not established yet; wait until the socket is writable"
    case .notConnected: "the socket is not connected, or its connection has ended; connect it first"
    case .closing: "the connection is being closed in both directions; there is nothing left to protect"
    case .otherNamespace:
      "the socket belongs to another network namespace than the engine; make it in the engine's"
    case .boundToInterface(let name):
      "the socket is bound to \(name) (SO_BINDTODEVICE), and would get none of the packets that the engine delivers; "
        + "bind it to no interface, or to the VRF of a routing instance"
    case .system(let error): "the socket cannot be examined: \(error)"
    }
  }
}

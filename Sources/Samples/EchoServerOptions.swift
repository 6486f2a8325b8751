import JSR

/// What `jsrutil` was asked to do.
public struct EchoServerOptions: Sendable {
  /// Which part to play at the start; later, mastership decides.
  public enum Mode: String, Sendable, CaseIterable {
    /// The primary instance.
    case primary = "nsr_server"
    /// The snooping instance.
    case secondary = "nsr_client"
    /// The part that mastership gives this routing engine.
    case byMastership = "jsr_echo_server"
  }

  /// Where the engine listens unless its configuration says otherwise.
  public static let defaultControlSocket = Session.defaultPath

  public var mode: Mode = .byMastership
  /// Port for peers.
  public var port: UInt16 = 16000
  /// Address for peers; `nil` for all of this machine, of both families, which lets the server listen before a
  /// replicated address is there.
  public var listenAddress: String?
  /// The device of the VRF to listen for peers in; `nil` for none.
  public var vrf: String?
  /// Port of the channel between the two instances.
  public var channelPort: UInt16 = 17000
  /// This routing engine's address on the inter-RE link; `nil` to listen at all addresses.
  public var channelListenAddress: String?
  /// The other routing engine's address on the inter-RE link; `nil` for an instance that will never have to
  /// connect, because it is the primary as long as it runs.
  public var otherAddress: String?
  /// Stop replicating each connection after so many messages; `nil` for never.
  public var unreplicateAfter: UInt64?
  /// The two instances meet through the engines, and have no channel of their own.
  public var usesRendezvous = false
  /// The engine's control socket.
  public var controlSocket = defaultControlSocket
  /// No replication at all: an ordinary echo server.
  public var isPlain = false
  /// The slot to answer with, instead of the engine's.
  public var slot: UInt8?
  /// Verify the pattern of every payload.
  public var verifiesPayload = false
  /// Echoes are given as records while a connection is replicated.
  public var givesRecords = false
  /// What peers have to sign every segment with (RFC 2385), 1 to 80 bytes; `nil` for unsigned connections.
  public var signingKey: [UInt8]?
  /// One line a second instead of lines for every connection and message.
  public var isQuiet = false

  /// The name under which the instances find each other.
  var service: String? { usesRendezvous && !isPlain ? serviceName ?? "jsrutil:\(port)" : nil }
  /// The name to meet by, instead of one that is made of the port.
  public var serviceName: String?

  public init() {}
}

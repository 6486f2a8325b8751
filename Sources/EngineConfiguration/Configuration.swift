public import Logging
public import Packet
public import Replication

/// What `jsrd` is told by its configuration file, checked. The keys are those of the file.
public struct Configuration: Sendable, Hashable {
  /// The connection between the two engines.
  public struct Link: Sendable, Hashable {
    /// Where this routing engine listens.
    public var listen: Endpoint
    /// Where the other one does.
    public var connect: Endpoint
    public var security: LinkSecurity
    /// What may be spoken on the link, within `LinkVersion.supported`.
    public var versions: ClosedRange<UInt16>

    public init(
      listen: Endpoint, connect: Endpoint, security: LinkSecurity,
      versions: ClosedRange<UInt16> = LinkVersion.supported
    ) {
      self.listen = listen
      self.connect = connect
      self.security = security
      self.versions = versions
    }
  }

  /// How the two engines know that they speak to each other.
  public enum LinkSecurity: Sendable, Hashable {
    /// Each proves its name with a certificate; what they say is encrypted.
    case tls(LinkTLS)
    /// Not at all: the link is plain text, and whoever reaches its port can speak.
    case insecure
  }

  /// The files, all in PEM, with which this routing engine proves its name and judges the other's. Their paths are
  /// absolute, or relative to the working directory.
  public struct LinkTLS: Sendable, Hashable {
    /// This routing engine's certificate, and behind it those that lead to the authority, if there are any.
    public var certificate: String
    /// The private key of the certificate.
    public var key: String
    /// The certificates of the authorities that the other routing engine's certificate may come from.
    public var ca: String
    /// The DNS name that this routing engine's certificate must carry.
    public var name: String
    /// The DNS name that the other one's must carry.
    public var peer: String

    public init(certificate: String, key: String, ca: String, name: String, peer: String) {
      self.certificate = certificate
      self.key = key
      self.ca = ca
      self.name = name
      self.peer = peer
    }
  }

  /// An address that moves with mastership.
  public struct ReplicatedAddress: Sendable, Hashable, CustomStringConvertible {
    public var address: IPAddress
    /// 1 to 32, or to 128 for IPv6.
    public var prefixLength: Int

    /// `5.5.5.5/24`
    public var description: String { "\(address)/\(prefixLength)" }
  }

  /// One of several places with addresses and uplinks of their own, which may be the same as another's: what is in one is
  /// never taken for what is in another.
  public struct Instance: Sendable, Hashable {
    public enum Place: Sendable, Hashable {
      /// A network namespace, by its path.
      case namespace(String)
      /// A VRF of the namespace that the engine is in, by the name of its device.
      case vrf(String)

      public var isNamespace: Bool { if case .namespace = self { true } else { false } }
    }

    /// 1 to 32 letters, digits, dots, dashes and underscores; the same on both routing engines.
    public var name: String
    public var place: Place
    /// At least one.
    public var addresses: [ReplicatedAddress]
    /// As of the engine itself, in the namespace; of a VRF its ports.
    public var uplinks: [String]
  }

  /// Who decides which routing engine is primary.
  public enum Arbiter: String, Sendable, Hashable, CaseIterable {
    /// The two of them, by keepalives and a probe.
    case pair
  }

  public struct Keepalive: Sendable, Hashable {
    /// 10 ms to 10 s.
    public var interval: Duration
    /// After how many intervals without a sign of life the other one is lost: 2 to 100.
    public var misses: Int
  }

  public struct Mastership: Sendable, Hashable {
    public var arbiter: Arbiter
    /// 0 to 255; the higher starts as primary.
    public var priority: Int
    public var keepalive: Keepalive
  }

  /// What happens to packets that arrive for a replicated socket.
  public enum Mode: String, Sendable, Hashable, CaseIterable {
    /// They are delivered at once; what leaves waits until all that was taken in is safe.
    case overlap
    /// They wait until the secondary has them.
    case strict
  }

  /// What happens to the sockets that an application leaves behind when it ends without closing them. The
  /// engine holds a duplicate of each, so that nothing has been said to their peers.
  public enum ApplicationFailurePolicy: String, Sendable, Hashable, CaseIterable {
    /// Mastership goes to a secondary that is in step, whose application goes on with the connections. Where
    /// there is none they stay as they are, until one comes or their replication ends, which leaves nobody who
    /// could go on with them: then they are closed in order.
    case switchover
    /// The connections are closed in order: the peer gets all that was written, and a FIN behind it.
    case close
  }

  /// How long a record of each layer may be unacknowledged before sockets that wait on it are unreplicated.
  public struct Timeouts: Sendable, Hashable {
    /// What each may be.
    public static let range = Duration.milliseconds(10) ... .seconds(60)

    public var prl: Duration
    public var sdrl: Duration
    public var psrm: Duration
  }

  public struct Limits: Sendable, Hashable {
    /// How many handles there may be at once.
    public var sockets: Int
    /// Bytes of one direction of one snoop pair that its application has not read.
    public var snoopBuffer: Int
    /// Bytes of packets of all sockets held back until they are safe.
    public var holdBuffer: Int
    /// Bytes of one record on the link.
    public var record: Int
  }

  /// Where log lines go.
  public enum LogDestination: String, Sendable, Hashable, CaseIterable {
    case stderr
    /// The syslog daemon of this machine.
    case syslog
  }

  public struct Log: Sendable, Hashable {
    public var level: Logger.Level
    public var destination: LogDestination
  }

  /// The name of this routing engine.
  public var node: String
  /// 0 or 1; the other routing engine has the other.
  public var slot: UInt8
  public var link: Link
  /// At least one.
  public var addresses: [ReplicatedAddress]
  /// The interfaces towards peers, of which the first one that is there has the addresses. At least one.
  public var uplinks: [String]
  /// Routing instances beside the one that the engine itself is in, to which `addresses` and `uplinks` belong.
  public var instances: [Instance]
  public var mastership: Mastership
  /// The path of the control socket.
  public var control: String
  public var mode: Mode
  /// For how long the engine looks for more after a packet or a record, instead of sleeping at once; at most 1 ms.
  public var busyPoll: Duration
  public var timeouts: Timeouts
  public var limits: Limits
  public var log: Log
  public var onApplicationFailure: ApplicationFailurePolicy
  /// Whether fault injection is allowed.
  public var debug: Bool
}

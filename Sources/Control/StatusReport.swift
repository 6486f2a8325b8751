/// `show status`: the state of one routing engine. A field without a value is missing in JSON.
public struct StatusReport: Sendable, Hashable, Codable {
  /// What the kernel's permission to send for the replicated addresses looks like.
  public enum Lease: String, Sendable, Hashable, Codable {
    /// Nothing of a replicated address leaves.
    case none
    /// Runs out unless it is renewed.
    case timed
    /// Has no end, because no secondary could take over.
    case endless
  }

  /// How the two engines know that they speak to each other.
  public enum LinkSecurity: String, Sendable, Hashable, Codable {
    case tls
    /// The inter-RE link is plain text.
    case insecure
  }

  /// The other routing engine, as far as it is known.
  public struct Peer: Sendable, Hashable, Codable {
    /// Its name; missing before the first contact.
    public var node: String?
    /// 0 or 1.
    public var slot: UInt8
    /// The inter-RE link is established.
    public var linkUp: Bool
    /// The version that both speak on the link; missing while there is none.
    public var linkVersion: UInt16?
    /// The part it says that it plays.
    public var role: MastershipRole
    /// It could take over: it has everything that was acknowledged to peers.
    public var inStep: Bool

    public init(
      node: String?, slot: UInt8, linkUp: Bool, linkVersion: UInt16?, role: MastershipRole, inStep: Bool
    ) {
      self.node = node
      self.slot = slot
      self.linkUp = linkUp
      self.linkVersion = linkVersion
      self.role = role
      self.inStep = inStep
    }

    private enum CodingKeys: String, CodingKey {
      case node, slot, role
      case linkUp = "link_up"
      case linkVersion = "link_version"
      case inStep = "in_step"
    }
  }

  /// An interface towards peers.
  public struct Uplink: Sendable, Hashable, Codable {
    public var name: String
    /// It is up and has carrier.
    public var running: Bool

    public init(name: String, running: Bool) {
      self.name = name
      self.running = running
    }
  }

  /// A routing instance beside the main one.
  public struct Instance: Sendable, Hashable, Codable {
    public var name: String
    /// The path of its network namespace; `nil` if it is a VRF.
    public var namespace: String?
    /// The name of the device of its VRF; `nil` if it is a namespace.
    public var vrf: String?
    /// Replicated addresses with prefix length.
    public var addresses: [String]
    public var uplinks: [Uplink]

    public init(
      name: String, namespace: String? = nil, vrf: String? = nil, addresses: [String], uplinks: [Uplink]
    ) {
      self.name = name
      self.namespace = namespace
      self.vrf = vrf
      self.addresses = addresses
      self.uplinks = uplinks
    }

    private enum CodingKeys: String, CodingKey {
      case name, vrf, addresses, uplinks
      case namespace = "netns"
    }
  }

  public var node: String
  /// 0 or 1.
  public var slot: UInt8
  public var role: MastershipRole
  /// The state of the mastership machine, for people.
  public var mastership: String
  public var lease: Lease
  /// Rises with every change of mastership.
  public var term: UInt64
  public var peer: Peer
  /// `pair`.
  public var arbiter: String
  /// `overlap` or `strict`.
  public var mode: String
  /// Replicated addresses of the main routing instance with prefix length, such as `5.5.5.5/24`.
  public var addresses: [String]
  /// Those of the main routing instance.
  public var uplinks: [Uplink]
  /// The other routing instances; missing if there are none.
  public var instances: [Instance]?
  public var linkSecurity: LinkSecurity
  /// When this engine's own certificate ends, such as `2027-03-01T12:00:00Z`; missing without TLS.
  public var certificateExpires: String?
  /// The same of the authority.
  public var authorityExpires: String?
  /// The version of the engine.
  public var version: String
  /// Milliseconds since the engine started.
  public var uptimeMilliseconds: Int64

  public init(
    node: String, slot: UInt8, role: MastershipRole, mastership: String, lease: Lease, term: UInt64,
    peer: Peer, arbiter: String, mode: String, addresses: [String], uplinks: [Uplink],
    instances: [Instance]? = nil, linkSecurity: LinkSecurity, certificateExpires: String?,
    authorityExpires: String?, version: String,
    uptimeMilliseconds: Int64
  ) {
    self.node = node
    self.slot = slot
    self.role = role
    self.mastership = mastership
    self.lease = lease
    self.term = term
    self.peer = peer
    self.arbiter = arbiter
    self.mode = mode
    self.addresses = addresses
    self.uplinks = uplinks
    self.instances = instances
    self.linkSecurity = linkSecurity
    self.certificateExpires = certificateExpires
    self.authorityExpires = authorityExpires
    self.version = version
    self.uptimeMilliseconds = uptimeMilliseconds
  }

  private enum CodingKeys: String, CodingKey {
    case node, slot, role, mastership, lease, term, peer, arbiter, mode, addresses, uplinks, instances,
      version
    case linkSecurity = "link_security"
    case certificateExpires = "certificate_expires"
    case authorityExpires = "ca_expires"
    case uptimeMilliseconds = "uptime_ms"
  }
}

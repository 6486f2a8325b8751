/// The first record in each direction of a new link: who speaks, and in which versions.
struct Hello: Hashable {
  static let magic: UInt32 = 0x4a53_5231  // "JSR1"

  var versions: ClosedRange<UInt16>
  var slot: UInt8
  var node: String
  /// Names this link among all that the sender has had, across its restarts.
  var session: UInt64
  var handleLimit: UInt32

  /// How many links of one run of the engine have names of their own.
  static let sessionsPerIncarnation: UInt64 = 1 << 20

  /// Tells the run of the engine that made up `session` from all others.
  static func incarnation(of session: UInt64) -> UInt64 { session / sessionsPerIncarnation }

  func record() -> [UInt8] {
    var writer = ByteWriter(.kkcmHello)
    writer.integer(Self.magic)
    writer.integer(versions.lowerBound)
    writer.integer(versions.upperBound)
    writer.integer(slot)
    writer.text(node)
    writer.integer(session)
    writer.integer(handleLimit)
    return writer.record()
  }

  init(
    slot: UInt8, node: String, session: UInt64, handleLimit: UInt32,
    versions: ClosedRange<UInt16> = LinkVersion.supported
  ) {
    self.versions = versions
    self.slot = slot
    self.node = node
    self.session = session
    self.handleLimit = handleLimit
  }

  init(_ reader: inout ByteReader) throws(RecordError) {
    guard try reader.integer(UInt32.self) == Self.magic else { throw .invalidField("magic number") }
    let lowest: UInt16 = try reader.integer()
    let highest: UInt16 = try reader.integer()
    guard lowest <= highest else { throw .invalidField("version range") }
    versions = lowest...highest
    slot = try reader.integer()
    node = try reader.text(limit: 255)
    session = try reader.integer()
    handleLimit = try reader.integer()
    try reader.finish()
    guard slot <= 1 else { throw .invalidField("slot") }
  }
}

/// Versions of what is spoken on the link. Each side says in its greeting which it speaks, and both use the highest
/// that they share; the greeting itself, and keepalives on an uplink, are the same in all.
public enum LinkVersion {
  /// What this engine speaks. Two releases that follow each other always share one, so that a pair can be upgraded
  /// one RE at a time.
  public static let supported: ClosedRange<UInt16> = 1...3

  /// From this one on the end of a replication names both handles, so that a record which comes late, or for a
  /// handle that an application made up, ends nobody else's pair.
  static let endsNamePrimary: UInt16 = 2

  /// From this one on instances of applications find each other through the engines.
  static let hasServices: UInt16 = 2

  /// From this one on a flow, and a late frame, names its routing instance.
  static let namesInstances: UInt16 = 3

  /// From this one on UDP sockets are replicated.
  static let hasDatagrams: UInt16 = 3
}

/// A sign of life, on the link and, beside it, on the uplink: what the sender is, and what it knows.
public struct Keepalive: Hashable, Sendable {
  public var slot: UInt8
  public var phase: MastershipPhase
  /// Rises with every change of mastership.
  public var term: UInt64
  public var priority: UInt16
  /// The sender's clock when it sent this.
  public var sentAt: Int64
  /// `sentAt` of the last keepalive that the sender had from the receiver on the link, or `Int64.min`.
  public var echo: Int64
  /// The same, on whatever path.
  public var echoAnywhere: Int64
  /// The sender's lease runs out by itself unless renewed: another RE may count on it.
  public var leaseIsTimed: Bool
  /// The sender's uplink has a carrier.
  public var uplinkIsRunning: Bool
  /// The link is up, as far as the sender knows.
  public var linkIsUp: Bool
  /// The sender's name for its current link, or the last one if there is none.
  public var session: UInt64
  /// The receiver's name for the last link whose snoop pairs the sender has given up; 0 if none.
  public var voidedSession: UInt64

  func write(to writer: inout ByteWriter) {
    writer.integer(slot)
    writer.integer(phase.rawValue)
    writer.integer(term)
    writer.integer(priority)
    writer.integer(sentAt)
    writer.integer(echo)
    writer.integer(echoAnywhere)
    writer.boolean(leaseIsTimed)
    writer.boolean(uplinkIsRunning)
    writer.boolean(linkIsUp)
    writer.integer(session)
    writer.integer(voidedSession)
  }

  /// As a record on the link.
  func record() -> [UInt8] {
    var writer = ByteWriter(.kkcmKeepalive)
    write(to: &writer)
    return writer.record()
  }

  init(
    slot: UInt8, phase: MastershipPhase, term: UInt64, priority: UInt16, sentAt: Int64, echo: Int64,
    echoAnywhere: Int64, leaseIsTimed: Bool, uplinkIsRunning: Bool, linkIsUp: Bool, session: UInt64,
    voidedSession: UInt64
  ) {
    self.slot = slot
    self.phase = phase
    self.term = term
    self.priority = priority
    self.sentAt = sentAt
    self.echo = echo
    self.echoAnywhere = echoAnywhere
    self.leaseIsTimed = leaseIsTimed
    self.uplinkIsRunning = uplinkIsRunning
    self.linkIsUp = linkIsUp
    self.session = session
    self.voidedSession = voidedSession
  }

  init(_ reader: inout ByteReader) throws(RecordError) {
    slot = try reader.integer()
    guard let phase = MastershipPhase(rawValue: try reader.integer()) else {
      throw .invalidField("mastership phase")
    }
    self.phase = phase
    term = try reader.term()
    priority = try reader.integer()
    sentAt = try reader.integer()
    echo = try reader.integer()
    echoAnywhere = try reader.integer()
    leaseIsTimed = try reader.boolean()
    uplinkIsRunning = try reader.boolean()
    linkIsUp = try reader.boolean()
    session = try reader.integer()
    voidedSession = try reader.integer()
    guard slot <= 1 else { throw .invalidField("slot") }
  }

  /// The payload of an uplink frame: a record like the one on the link.
  public func uplinkPayload() -> [UInt8] { record() }

  /// Reads the payload of an uplink frame, which may be padded; `nil` if it is not a keepalive.
  public init?(uplinkPayload payload: UnsafeRawBufferPointer) {
    guard payload.count >= RecordHeader.byteCount,
      let header = try? RecordHeader(payload, lengthLimit: payload.count), header.kind == .kkcmKeepalive
    else { return nil }
    var reader = ByteReader(
      UnsafeRawBufferPointer(rebasing: payload[RecordHeader.byteCount..<header.byteCount]))
    guard let keepalive = try? Keepalive(&reader), (try? reader.finish()) != nil else { return nil }
    self = keepalive
  }
}

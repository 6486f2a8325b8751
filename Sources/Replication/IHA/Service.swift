import OrderedCollections
import Packet

/// The name under which the instances of an application find each other: 1 to 64 printable characters of ASCII,
/// without spaces.
public struct ServiceName: Hashable, Sendable, CustomStringConvertible {
  public static let byteLimit = 64

  public let description: String

  public init?(_ text: String) {
    guard (1...Self.byteLimit).contains(text.utf8.count), text.utf8.allSatisfy({ (0x21...0x7e).contains($0) })
    else { return nil }
    description = text
  }
}

/// What the primary's instance asks of the secondary's: to follow one connection.
public struct ReplicationRequest: Hashable, Sendable {
  /// Bytes of a note, at most.
  public static let noteLimit = 256

  public var service: ServiceName
  /// The primary's name for the socket.
  public var primary: Handle
  public var flow: Flow
  /// From instance to instance; the engines do not look into it.
  public var note: [UInt8]
  /// Tells it from others for the same handle: an answer may cross a withdrawal.
  var number: UInt64 = 0

  public init(service: ServiceName, primary: Handle, flow: Flow, note: [UInt8]) {
    self.service = service
    self.primary = primary
    self.flow = flow
    self.note = note
  }

  /// - Parameter version: what the link speaks.
  func record(version: UInt16) -> [UInt8] {
    var writer = ByteWriter(.ihaRequest, capacity: 160 + note.count)
    writer.handle(primary)
    writer.integer(number)
    writer.text(service.description)
    writer.flow(flow, version: version)
    writer.byteArray(note)
    return writer.record()
  }

  init(_ reader: inout ByteReader, version: UInt16) throws(RecordError) {
    primary = try reader.handle()
    number = try reader.integer()
    service = try reader.serviceName()
    flow = try reader.flow(version: version)
    note = try reader.byteArray(limit: Self.noteLimit)
    try reader.finish()
  }
}

/// Why nobody on the other RE follows a connection that was to be replicated by service.
public struct RequestRefusal: Error, Hashable, Sendable, CustomStringConvertible {
  public enum Reason: Hashable, Sendable {
    /// The other engine speaks a version of the link that has no services.
    case engineTooOld(version: UInt16)
    /// Nobody has registered the service there.
    case notRegistered
    /// The instance there does not want to, for this reason.
    case declined(String)
    /// The instance there has not answered in time.
    case timedOut
    /// More requests of the service are unanswered there than may be.
    case busy
    /// The other RE is not secondary any more.
    case notSecondary
    case linkLost
    /// This RE is not primary any more.
    case notPrimary
    /// The handle was freed meanwhile.
    case withdrawn
  }

  public var service: ServiceName
  public var reason: Reason

  public var description: String {
    switch reason {
    case .engineTooOld(let version):
      "service \(service): the engine of the other RE is too old, it speaks version \(version) of the link"
    case .notRegistered: "service \(service): nobody has registered it on the other RE"
    case .declined(let text): "service \(service): the instance on the other RE declined: \(text)"
    case .timedOut: "service \(service): the instance on the other RE did not answer in time"
    case .busy: "service \(service): too many requests wait on the other RE"
    case .notSecondary: "service \(service): the other RE is not secondary"
    case .linkLost: "service \(service): the link to the other RE is lost"
    case .notPrimary: "service \(service): this RE is not primary any more"
    case .withdrawn: "service \(service): the handle was freed"
    }
  }
}

/// What happens to services and requests.
public enum ServiceAction: Hashable, Sendable {
  /// Whether requests that name the service can be made here now; for the instance that has registered it.
  case availabilityChanged(ServiceName, Bool)
  /// Secondary: the other RE's instance asks this.
  case requested(ReplicationRequest)
  /// Secondary: a request that was not answered yet is off.
  case withdrawn(ReplicationRequest)
  /// Primary: the other RE's instance has attached its pair `secondary`.
  case answered(Handle, secondary: Handle)
  /// Primary: nothing came of a request.
  case refused(Handle, RequestRefusal)
}

/// The services of this RE, and what was asked of the other one's and by it.
struct Services {
  /// Services that one RE may have.
  static let limit = 64
  /// Requests of one service that may be unanswered; more wait here. So many events fit into the queue of a client.
  static let window = 128
  /// How long an instance may take to answer.
  static let answerTime = Nanoseconds.seconds(2)

  /// What this RE's applications have registered, and whether they were told that requests can be made.
  var here: OrderedDictionary<ServiceName, Bool> = [:]
  /// What the other RE's have.
  var there: OrderedSet<ServiceName> = []
  /// Primary: requests on their way, and those that wait for them.
  var asked: OrderedDictionary<ServiceName, Asked> = [:]
  /// Of the request that was sent last.
  var lastNumber: UInt64 = 0
  /// Secondary: requests that the instance here has not answered yet.
  var unanswered: OrderedDictionary<Handle, ReplicationRequest> = [:]

  struct Asked {
    var sent: OrderedDictionary<Handle, (number: UInt64, since: Instant)> = [:]
    var waiting: OrderedDictionary<Handle, ReplicationRequest> = [:]
  }

  /// Requests that came to nothing yet, whoever made them.
  var openCount: Int {
    asked.values.reduce(0) { $0 + $1.sent.count + $1.waiting.count } + unanswered.count
  }

  /// The service that a request for this handle was made of.
  func service(askedFor handle: Handle) -> ServiceName? {
    asked.first { $0.value.sent[handle] != nil || $0.value.waiting[handle] != nil }?.key
  }
}

extension ByteReader {
  mutating func serviceName() throws(RecordError) -> ServiceName {
    guard let name = ServiceName(try text(limit: ServiceName.byteLimit)) else {
      throw .invalidField("service name")
    }
    return name
  }
}

import Control
import Descriptors

/// A connection to the engine of this routing engine, through which an application replicates sockets.
///
/// A session may be used from any task or thread. Calls are answered in any order and do not react to
/// cancellation: a call that could be given up in the middle would leave it open who owns the socket.
public final class Session: Sendable {
  /// Where `jsrd` listens unless its configuration says otherwise.
  public static let defaultPath = "/run/jsr/jsrd.sock"

  /// The name of this routing engine, such as `re0`.
  public let node: String
  /// The slot of this routing engine, 0 or 1; also the first byte of every handle allocated here.
  public let slot: UInt8
  /// The version of the engine.
  public let engineVersion: String

  /// What happens, in order, from the start of the session on; ends after `.engineGone`.
  ///
  /// There is one stream for each session, for one reader. Up to 16,384 events wait for a slow reader; those
  /// beyond are dropped and counted in `.missed`, which comes where they would have been.
  public let events: AsyncStream<Event>

  private let connection: EngineConnection

  private init(_ connection: EngineConnection, _ welcome: ControlReply.Welcome) {
    self.connection = connection
    node = welcome.node
    slot = welcome.slot
    engineVersion = welcome.engineVersion
    let buffer = connection.events
    events = AsyncStream { await buffer.next() }
  }

  deinit { connection.close() }

  /// Connects to the engine of this routing engine.
  ///
  /// - Parameters:
  ///   - path: the engine's control socket.
  ///   - application: a name that `jsrctl show sockets` prints.
  /// - Throws: `.unreachable` if no engine listens or answers within 5 seconds; `.refused` if it has too many
  ///   clients or speaks another version.
  public static func connect(
    to path: String = defaultPath, application: String
  ) async throws(JSRError) -> Session {
    let (connection, welcome) = try await EngineConnection.open(path: path, application: application)
    return Session(connection, welcome)
  }

  /// Ends the session: pending calls fail with `.engineGone`, the event stream ends with it, and the engine
  /// frees handles that have no socket. Also done when the session is let go.
  public func close() { connection.close() }

  /// Names a socket that is going to be replicated, on the primary.
  public func allocate() async throws(JSRError) -> Handle {
    try handle(in: await connection.call(.allocate))
  }

  /// Gives back a handle that has no socket.
  public func free(_ handle: Handle) async throws(JSRError) { try done(await connection.call(.free(handle))) }

  /// Replicates a connected socket. It is given to the engine for the handshake and comes back in the result,
  /// also when the engine refuses.
  ///
  /// - Parameters:
  ///   - socket: an established TCP connection; unread and unacknowledged bytes are no obstacle. Or a UDP socket that is
  ///     bound to a replicated address, connected or not; unread datagrams go along.
  ///   - primary: a handle from `allocate`.
  ///   - secondary: the handle that the other instance got from `attach(primary:)`.
  public func replicate(
    _ socket: consuming Socket, primary: Handle, secondary: Handle
  ) async -> ReplicationOutcome {
    do throws(JSRError) {
      let request = ControlRequest.Body.replicate(primary: primary, secondary: secondary)
      try done(await connection.call(request, lending: socket.descriptor))
    } catch {
      return .refused(socket, error)
    }
    return .replicating(socket)
  }

  /// Replicates a connected socket that its owner goes on naming by the number of its descriptor, as event loops
  /// and code in C do. It stays the caller's, who must not close it before this returns.
  ///
  /// Until then something else stands under that number, which is neither readable nor writable: `select`, `poll`
  /// and `epoll` do not report it, calls that do not wait fail with `EWOULDBLOCK`, others wait. All of them go on
  /// with the socket when it is back, also if the engine refuses. Calls that wait at that moment are interrupted
  /// with `SIGURG` and begun again by the kernel; a thread that blocks this signal, as those of Dispatch do, and
  /// reads or writes without a timeout would wait for ever. Duplicates under other numbers are not covered: leave them
  /// alone. The cost rises with the number of open descriptors; `replicate(_:primary:secondary:)` has none of it.
  ///
  /// - Throws: `.refused` with the reason, or `.engineGone`; the socket is an ordinary one then, as before.
  public func replicate(descriptor: Int32, primary: Handle, secondary: Handle) async throws(JSRError) {
    let standIn: StandIn
    do throws(SystemError) {
      standIn = try StandIn(for: descriptor)
    } catch {
      throw .refused(.unsuitableSocket, message: "descriptor \(descriptor) cannot be set aside: \(error)")
    }
    let request = ControlRequest.Body.replicate(primary: primary, secondary: secondary)
    let answer: Result<EngineAnswer, JSRError>
    do throws(JSRError) {
      answer = .success(try await connection.call(request, lending: standIn.descriptor))
    } catch {
      answer = .failure(error)
    }
    standIn.end()
    try done(try answer.get())
  }

  // MARK: - Rendezvous

  /// Makes this session the instance of a service on this routing engine, until it ends or `unregister`. Both instances
  /// of an application register the same name; they need no channel of their own then to exchange handles.
  ///
  /// - Parameter service: 1 to 64 printable characters of ASCII, without spaces.
  /// - Throws: `.refused` with `.serviceTaken` if another application has registered it and lives, `.malformed`, or
  ///   `.limit` above 64 services.
  public func register(service: String) async throws(JSRError) {
    try done(await connection.call(.registerService(service)))
  }

  /// Requests that have not been answered are refused.
  public func unregister(service: String) async throws(JSRError) {
    try done(await connection.call(.unregisterService(service)))
  }

  /// Replicates a connected socket with the pair that the instance of `service` on the other routing engine makes of it,
  /// which gets `.replicationRequested`. It may take two seconds to answer; then comes the handshake. After a refusal ask
  /// again under another handle: the instance there may be about to answer for this one.
  ///
  /// - Parameters:
  ///   - socket: as in `replicate(_:primary:secondary:)`; comes back in the result.
  ///   - primary: a handle from `allocate`.
  ///   - service: what the instance on the other routing engine has registered.
  ///   - note: for the other instance, at most 256 bytes.
  public func replicate(
    _ socket: consuming Socket, primary: Handle, service: String, note: [UInt8] = []
  ) async -> ReplicationOutcome {
    do throws(JSRError) {
      let request = ControlRequest.Body.requestReplication(primary: primary, service: service, note: note)
      try done(await connection.call(request, lending: socket.descriptor))
    } catch {
      return .refused(socket, error)
    }
    return .replicating(socket)
  }

  /// Follows the connection that a request is about: makes its snoop pair, which is what the other instance waits for.
  /// Should nothing come of it all the same, `.unreplicated` says so of the pair's handle.
  ///
  /// - Throws: `.refused` with `.unknownHandle` if it was withdrawn meanwhile.
  public func accept(_ request: RequestedReplication) async throws(JSRError) -> SnoopPair {
    try pair(in: await connection.call(.acceptReplication(primary: request.primary)))
  }

  /// Refuses a request.
  ///
  /// - Parameters:
  ///   - request: as the event gave it.
  ///   - reason: what the other instance is told, in at most 200 bytes.
  public func decline(_ request: RequestedReplication, reason: String) async throws(JSRError) {
    try done(await connection.call(.declineReplication(primary: request.primary, reason: reason)))
  }

  // MARK: -

  /// Ends replication of a socket, which goes on as an ordinary one. The snoop pair of the other routing
  /// engine ends after the bytes replicated so far.
  public func unreplicate(_ handle: Handle) async throws(JSRError) {
    try done(await connection.call(.unreplicate(handle)))
  }

  /// Ends a replicated or merged socket in order: closes `socket` and the engine's duplicate, so that the
  /// kernel sends its FIN. The engine frees the handle when both directions are closed.
  public func close(_ socket: consuming Socket, handle: Handle) async throws(JSRError) {
    _ = consume socket
    try done(await connection.call(.close(handle)))
  }

  /// Makes the snoop pair for a handle of the primary. Bytes come once the primary has replicated its socket
  /// with the pair's handle as `secondary`.
  ///
  /// - Parameters:
  ///   - primary: the primary's handle.
  ///   - transport: what the primary's socket speaks. For UDP each descriptor of the pair gives one datagram at a
  ///     time, with its addresses: read them with `SnoopedDatagram.read(from:)`.
  public func attach(
    primary: Handle, transport: TransportProtocol = .tcp
  ) async throws(JSRError) -> SnoopPair {
    try pair(in: await connection.call(.attach(primary: primary, transport: transport)))
  }

  /// Turns a snoop pair into the live socket, on the new primary, after `.mastershipGained`.
  ///
  /// What was not read from `rcv` when this is called becomes the receive queue of the live socket, and both
  /// descriptors of the pair end. Bytes already in `snd` stay readable: read them to the end to know where the
  /// outgoing stream stands. A byte is read either from `rcv` or from the live socket, never from both.
  ///
  /// - Parameters:
  ///   - handle: of the pair.
  ///   - signingKey: of a connection that was signed (TCP_MD5SIG, RFC 2385) when it was replicated: the key,
  ///     1 to 80 bytes, that this end and the peer have now. The engines tell each other that a connection is
  ///     signed, and never its key. The wrong key is only noticed by the peer, which ignores what is signed
  ///     with it.
  /// - Throws: `.refused` with `.signingKey` if the connection is signed and there is no key, or
  ///   `.invalidValue` if it is not signed, or the key is too long or empty: call again with the right one
  ///   then. With other codes as the message says.
  public func merge(
    _ handle: Handle, signingKey: [UInt8]? = nil
  ) async throws(JSRError) -> Socket {
    let answer = try await connection.call(.merge(handle, signingKey: signingKey))
    try done(answer)
    return try answer.takeSocket()
  }

  /// Whatever the application sends on a replicated socket from now on comes as records, each of which the peer gets whole
  /// or not at all, across any switchover. Nothing may be written to the socket itself until the channel has ended.
  ///
  /// What was written to the socket before must reach the other routing engine first; that is waited for, for at most a
  /// second.
  ///
  /// - Parameter handle: of a socket that `replicate` has given back as replicated.
  /// - Throws: `.refused` if the handle is not replicated, in record mode already, or shut down, or if what was written
  ///   before does not leave, since the peer does not read.
  public func beginRecords(_ handle: Handle) async throws(JSRError) -> RecordChannel {
    let answer = try await connection.call(.beginRecords(handle))
    return RecordChannel(try answer.requireRecordSender(handle))
  }

  /// The state of one handle of this routing engine.
  public func status(of handle: Handle) async throws(JSRError) -> SocketStatus {
    let answer = try await connection.call(.status(handle))
    guard case .socket(let report) = answer.body else { throw Self.unexpected }
    return SocketStatus(report)
  }

  /// The part that this routing engine plays at the moment.
  public func role() async throws(JSRError) -> Role {
    let answer = try await connection.call(.show(.status))
    guard case .status(let report) = answer.body else { throw Self.unexpected }
    return report.role
  }

  private func done(_ answer: EngineAnswer) throws(JSRError) { try answer.requireDone() }

  private func handle(in answer: EngineAnswer) throws(JSRError) -> Handle { try answer.requireHandle() }

  private func pair(in answer: EngineAnswer) throws(JSRError) -> SnoopPair { try answer.takePair() }

  private static var unexpected: JSRError { EngineAnswer.unexpected }
}

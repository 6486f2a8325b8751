import Glibc
import JSR
import Synchronization

@testable import Samples

/// Two engines in one process, as their application sees them: handles, handshake, snoop pairs, merge and
/// events as the contract of `JSR.Session` has them. Peers' connections run through a `SnoopingRelay`, so
/// they outlive a switchover.
final class EnginePairModel: Sendable {
  /// One replicated connection.
  private struct Replica {
    var primary: Handle
    var secondary: Handle
    /// The engine's ends of the snoop pair, and duplicates of the application's.
    var writers: (rcv: Int32, snd: Int32)
    var rcvReader: Int32
    var peer: Int32?
    var relay: SnoopingRelay?
  }

  private struct State {
    var primarySlot: UInt8 = 0
    var generation: UInt32 = 0
    var replicas: [Replica] = []
    /// Merged connections go on through relays that copy nothing.
    var merged: [Handle: (relay: SnoopingRelay, peer: Int32)] = [:]
    var replicatedCount = 0
    var refusesAttach = false
  }

  private let state = Mutex(State())
  let sessions: [ModelSession]

  init() {
    sessions = [ModelSession(slot: 0), ModelSession(slot: 1)]
    for session in sessions { session.model.withLock { $0 = self } }
  }

  /// How many handshakes have succeeded so far.
  var replicatedCount: Int { state.withLock { $0.replicatedCount } }

  func refuseAttach(_ refuses: Bool) { state.withLock { $0.refusesAttach = refuses } }

  /// Ends the primary's life in the middle of whatever it does, and makes the other engine primary.
  func switchOver() {
    let (primary, replicas) = state.withLock { state in
      let old = state.primarySlot
      state.primarySlot = 1 - old
      return (Int(old), state.replicas)
    }
    for replica in replicas where replica.relay != nil { stopped(replica) }
    sessions[primary].send(.mastershipLost)
    sessions[1 - primary].send(.mastershipGained)
  }

  /// Connections that were cut, by the handle of the secondary, with what is still to be delivered.
  private let cut = Mutex<[Handle: (uncopied: [UInt8], unsent: [UInt8])]>([:])

  private func stopped(_ replica: Replica) {
    guard let rest = replica.relay?.stop() else { return }
    cut.withLock { $0[replica.secondary] = rest }
  }

  fileprivate func role(_ slot: UInt8) -> Role {
    state.withLock { $0.primarySlot == slot } ? .primary : .secondary
  }

  fileprivate func allocate(_ slot: UInt8) -> Handle {
    state.withLock {
      $0.generation += 1
      return Handle(slot: slot, generation: $0.generation, index: 0)
    }
  }

  fileprivate func attach(_ slot: UInt8, primary: Handle) -> Result<(Handle, Int32, Int32), JSRError> {
    if state.withLock({ $0.refusesAttach }) { return .failure(.refused(.limit, message: "no more sockets")) }
    let rcv = Self.socketPair()
    let snd = Self.socketPair()
    let handle = allocate(slot)
    state.withLock {
      $0.replicas.append(
        Replica(
          primary: primary, secondary: handle, writers: (rcv.0, snd.0),
          rcvReader: fcntl(rcv.1, F_DUPFD_CLOEXEC, 0)))
    }
    return .success((handle, rcv.1, snd.1))
  }

  /// The application keeps the number of its descriptor, which leads to the relay from now on.
  fileprivate func replicate(_ descriptor: Int32, primary: Handle, secondary: Handle) -> JSRError? {
    state.withLock { state in
      guard
        let index = state.replicas.firstIndex(where: { $0.secondary == secondary && $0.primary == primary })
      else { return .refused(.unknownHandle, message: "no such pair") }
      let peer = fcntl(descriptor, F_DUPFD_CLOEXEC, 0)
      let (engine, application) = Self.socketPair()
      _ = fcntl(application, F_SETFL, O_NONBLOCK)
      dup2(application, descriptor)
      Glibc.close(application)
      state.replicas[index].peer = peer
      state.replicas[index].relay = SnoopingRelay(
        peer: peer, application: engine, snoop: state.replicas[index].writers)
      state.replicatedCount += 1
      return nil
    }
  }

  fileprivate func merge(_ handle: Handle) -> Result<Int32, JSRError> {
    let replica = state.withLock { state in
      state.replicas.firstIndex { $0.secondary == handle }.map { state.replicas.remove(at: $0) }
    }
    guard let replica, let peer = replica.peer, let rest = cut.withLock({ $0.removeValue(forKey: handle) })
    else { return .failure(.refused(.wrongState, message: "the handshake was never over")) }
    // What the application did not read from rcv becomes the receive queue of the live socket.
    var queue: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
      let count = recv(replica.rcvReader, &buffer, buffer.count, Int32(MSG_DONTWAIT))
      guard count > 0 else { break }
      queue += buffer[..<count]
    }
    Glibc.close(replica.rcvReader)
    replica.relay?.closeSnoopPair()
    queue += rest.uncopied
    Self.sendAll(rest.unsent, to: peer)
    let (engine, application) = Self.socketPair()
    let relay = SnoopingRelay(peer: peer, application: engine, snoop: nil, first: queue)
    state.withLock { $0.merged[handle] = (relay, peer) }
    return .success(application)
  }

  /// The connection goes on through a relay that copies nothing; both sides are told.
  fileprivate func unreplicate(_ handle: Handle) -> JSRError? {
    let replica = state.withLock { state in
      state.replicas.firstIndex { $0.primary == handle && $0.relay != nil }.map {
        state.replicas.remove(at: $0)
      }
    }
    guard let replica, let relay = replica.relay, let peer = replica.peer else {
      return .refused(.wrongState, message: "not replicated")
    }
    relay.carryEverything()
    let rest = relay.stop()
    relay.closeSnoopPair()
    close(replica.rcvReader)
    Self.sendAll(rest.unsent, to: peer)
    let plain = relay.withoutSnooping(first: rest.uncopied)
    state.withLock { $0.merged[handle] = (plain, peer) }
    for session in sessions {
      session.send(
        .unreplicated(session.slot == handle.slot ? handle : replica.secondary, reason: "requested"))
    }
    return nil
  }

  private static func sendAll(_ bytes: [UInt8], to descriptor: Int32) {
    var rest = bytes[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes {
        Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
      }
      if count > 0 { rest = rest.dropFirst(count) } else { usleep(1000) }
    }
  }

  private static func socketPair() -> (Int32, Int32) {
    var descriptors: [Int32] = [-1, -1]
    let result = socketpair(
      AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &descriptors)
    precondition(result == 0, "no socket pair")
    return (descriptors[0], descriptors[1])
  }
}

/// What an application has of one of the two engines.
final class ModelSession: EngineSession {
  let node: String
  let slot: UInt8
  let engineVersion = "model"
  let events: AsyncStream<Event>
  private let continuation: AsyncStream<Event>.Continuation
  fileprivate let model = Mutex<EnginePairModel?>(nil)

  init(slot: UInt8) {
    self.slot = slot
    node = "re\(slot)"
    (events, continuation) = AsyncStream.makeStream()
  }

  func send(_ event: Event) { continuation.yield(event) }

  private var engines: EnginePairModel {
    guard let model = model.withLock({ $0 }) else { preconditionFailure("the model is gone") }
    return model
  }

  func close() {
    continuation.yield(.engineGone)
    continuation.finish()
  }
  func role() async throws(JSRError) -> Role { engines.role(slot) }
  func allocate() async throws(JSRError) -> Handle { engines.allocate(slot) }
  func free(_ handle: Handle) async throws(JSRError) {}
  func unreplicate(_ handle: Handle) async throws(JSRError) {
    if let error = engines.unreplicate(handle) { throw error }
  }
  func close(_ socket: consuming Socket, handle: Handle) async throws(JSRError) {}
  func replicate(
    _ socket: consuming Socket, primary: Handle, secondary: Handle
  ) async -> ReplicationOutcome {
    if let error = engines.replicate(socket.descriptor, primary: primary, secondary: secondary) {
      return .refused(socket, error)
    }
    return .replicating(socket)
  }
  func register(service: String) async throws(JSRError) { throw Self.noServices }
  func replicate(
    _ socket: consuming Socket, primary: Handle, service: String, note: [UInt8]
  ) async -> ReplicationOutcome { .refused(socket, Self.noServices) }
  func accept(_ request: RequestedReplication) async throws(JSRError) -> SnoopPair { throw Self.noServices }
  func decline(_ request: RequestedReplication, reason: String) async throws(JSRError) {
    throw Self.noServices
  }
  private static var noServices: JSRError { .refused(.noService, message: "the model has no services") }
  func attach(primary: Handle, transport _: TransportProtocol) async throws(JSRError) -> SnoopPair {
    let (handle, rcv, snd) = try engines.attach(slot, primary: primary).get()
    return SnoopPair(handle: handle, rcv: Socket(owning: rcv), snd: Socket(owning: snd))
  }
  func beginRecords(_ handle: Handle) async throws(JSRError) -> RecordChannel {
    throw .refused(.wrongState, message: "the model takes no records")
  }
  func merge(_ handle: Handle, signingKey: [UInt8]?) async throws(JSRError) -> Socket {
    Socket(owning: try engines.merge(handle).get())
  }
}

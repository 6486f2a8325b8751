import Descriptors
import Glibc
import JSR

/// One of the two instances of the mini tools: exchanges numbered datagrams with a peer over a replicated UDP socket, or
/// follows the other instance that does, and takes its place.
///
/// The two meet by rendezvous. After a switchover the new primary goes on with the number behind the last one that it has
/// seen on `snd`, and expects the one behind the last of `rcv`.
public final class MiniInstance {
  public struct Options: Sendable {
    /// Address of the peer, and its port.
    public var peer: String
    public var peerPort: UInt16
    /// Whether this instance begins as the primary one. Later on mastership decides.
    public var isPrimary: Bool
    /// The replicated address; `nil` for that from which packets to the peer leave.
    public var local: String?
    /// The device of the VRF that the peer is in; `nil` for none. `local` is not `nil` then.
    public var vrf: String?
    /// The port of this end, on both REs.
    public var localPort: UInt16 = 16001
    /// The socket is not connected, and each datagram is sent to the peer's address.
    public var isUnconnected = false
    /// Between two datagrams.
    public var pauseMilliseconds: UInt64 = 100
    /// More bytes behind each number, so that datagrams are cut into fragments.
    public var padding = 0
    /// The name to meet by, instead of one that is made of the port.
    public var service: String?
    /// The engine's control socket.
    public var controlSocket = Session.defaultPath
    /// No line for each datagram.
    public var isQuiet = false

    public init(peer: String, peerPort: UInt16, isPrimary: Bool) {
      self.peer = peer
      self.peerPort = peerPort
      self.isPrimary = isPrimary
    }
  }

  /// What this instance has in hand.
  private enum Work {
    case nothing
    case serving(DatagramSocket, Handle?)
    case following(FollowedPair)
  }

  private final class FollowedPair {
    let handle: Handle
    let rcv: OwnedDescriptor
    let snd: OwnedDescriptor

    init(_ pair: (handle: Handle, rcv: Int32, snd: Int32)) {
      handle = pair.handle
      rcv = OwnedDescriptor(owning: pair.rcv)
      snd = OwnedDescriptor(owning: pair.snd)
    }
  }

  private let options: Options
  private let peer: SocketAddress
  private let say = LineOutput(descriptor: STDOUT_FILENO)
  private let session: BlockingSession
  private let service: String
  private var work = Work.nothing
  /// The other instance can be asked to follow.
  private var otherIsThere = false
  private var replicateAgainAt: UInt64?
  /// What this instance has sent, or has seen the other one send.
  private var outgoing = NumberSequence()
  private var received = NumberSequence()

  /// How long the engine may take to answer.
  private static let patience = Duration.seconds(30)

  public init(_ options: Options) throws {
    self.options = options
    peer = try SocketAddress(host: options.peer, port: options.peerPort, isNumeric: false)
    service = options.service ?? "jsrutil_mini:\(options.localPort)"
    do throws(BlockingSession.ConnectFailure) {
      session = try BlockingSession(path: options.controlSocket, application: "jsrutil_mini")
    } catch {
      throw error.error
    }
  }

  /// Runs until SIGINT or SIGTERM, or until the engine is gone.
  ///
  /// - Returns: whether no number was repeated, and the engine is still there.
  public func run() throws -> Bool {
    let signals = try AwaitedSignals(SIGINT, SIGTERM)
    try session.register(service: service, within: Self.patience)
    say("\(session.node): service \(service) registered")
    if options.isPrimary { try serve() }
    let events = try session.eventDescriptor()
    var due = MonotonicClock.nanoseconds
    var engineIsThere = true
    while engineIsThere, signals.take() == nil {
      say.flush()
      wait(events)
      engineIsThere = takeEvents()
      switch work {
      case .nothing: break
      case .serving: receive()
      case .following: follow()
      }
      let now = MonotonicClock.nanoseconds
      if let time = replicateAgainAt, now >= time { replicate() }
      if now >= due {
        due = max(due + options.pauseMilliseconds * 1_000_000, now)
        send()
      }
    }
    say(
      "\(session.node): sent up to \(outgoing.last), received up to \(received.last), \(received.summary)"
    )
    say.flush()
    session.close()
    return engineIsThere && received.repeated == 0
  }

  private func wait(_ events: Int32) {
    var entries = [pollfd(fd: events, events: Int16(POLLIN), revents: 0)]
    switch work {
    case .nothing: break
    case .serving(let socket, _):
      entries.append(pollfd(fd: socket.descriptor, events: Int16(POLLIN), revents: 0))
    case .following(let pair):
      for descriptor in [pair.rcv.rawValue, pair.snd.rawValue] {
        entries.append(pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0))
      }
    }
    _ = poll(&entries, nfds_t(entries.count), 5)
  }

  // MARK: Events

  /// - Returns: whether the engine is still there.
  private func takeEvents() -> Bool {
    while true {
      switch session.nextEvent() {
      case .nothingYet: return true
      case .ended: return false
      case .event(let event):
        say("\(session.node): event: \(event)")
        handle(event)
      }
    }
  }

  private func handle(_ event: Event) {
    switch event {
    case .serviceAvailable:
      otherIsThere = true
      replicate()
    case .serviceUnavailable: otherIsThere = false
    case .unreplicated(let handle, _): replicationEnded(handle)
    case .replicationRequested(let request): answer(request)
    case .mastershipGained: merge()
    case .mastershipLost:
      if case .serving = work { work = .nothing }
    case .replicated, .secondaryUp, .secondaryDown, .peerClosed, .requestWithdrawn, .missed, .engineGone:
      break
    }
  }

  private func replicationEnded(_ ended: Handle) {
    switch work {
    case .serving(let socket, ended):
      work = .serving(socket, nil)
      try? session.free(ended, within: Self.patience)
      if otherIsThere { replicateAgainAt = MonotonicClock.nanoseconds + Self.retryNanoseconds }
    case .following(let pair) where pair.handle == ended:
      drain(pair)
      work = .nothing
    case .nothing, .serving, .following: break
    }
  }

  private static let retryNanoseconds: UInt64 = 500_000_000

  // MARK: The primary's part

  private func serve() throws {
    let host = try options.local ?? DatagramSocket.localHost(towards: peer)
    let local = try SocketAddress(host: host, port: options.localPort, isNumeric: true)
    let socket = try DatagramSocket(
      local: local, remote: options.isUnconnected ? nil : peer, vrf: options.vrf)
    say("\(session.node): UDP \(local) to \(peer)\(options.isUnconnected ? ", not connected" : "")")
    work = .serving(socket, nil)
  }

  /// Has the socket replicated, if there is one that is not.
  private func replicate() {
    replicateAgainAt = nil
    guard case .serving(let socket, nil) = work, otherIsThere else { return }
    let descriptor = socket.descriptor
    do throws(CallFailure) {
      let handle = try session.allocate(within: Self.patience)
      do throws(CallFailure) {
        try session.replicate(
          descriptor, primary: handle, service: service, note: [], within: Self.patience)
      } catch {
        try session.free(handle, within: Self.patience)
        throw error
      }
      say("\(session.node): descriptor \(descriptor), handle \(handle), replicated")
      work = .serving(socket, handle)
    } catch {
      say("\(session.node): not replicated: \(error)")
      replicateAgainAt = MonotonicClock.nanoseconds + Self.retryNanoseconds
    }
  }

  private func send() {
    guard case .serving(let socket, _) = work else { return }
    var text = NumberedText(sender: session.node, number: outgoing.last + 1).description
    text += String(repeating: " ", count: options.padding)
    let error = socket.send(text, to: options.isUnconnected ? peer : nil)
    if error == 0 {
      _ = outgoing.note(outgoing.last + 1)
      if !options.isQuiet {
        say(
          "\(session.node): sent \(outgoing.last), \(text.utf8.count) bytes, descriptor \(socket.descriptor)")
      }
    } else {
      say("\(session.node): sending \(outgoing.last + 1): \(String(cString: strerror(error)))")
    }
  }

  private func receive() {
    guard case .serving(let socket, let handle) = work else { return }
    do throws(SystemError) {
      while let (payload, source) = try socket.receive() {
        note(payload, "descriptor \(socket.descriptor)", handle, "\(source)")
      }
    } catch {
      say("\(session.node): \(error)")
    }
  }

  /// Says what came of the peer, and counts it.
  private func note(_ payload: [UInt8], _ place: String, _ handle: Handle?, _ source: String) {
    guard let text = NumberedText(payload) else {
      return say("\(session.node): STRANGE datagram of \(payload.count) bytes from \(source), \(place)")
    }
    let remark = received.note(text.number)
    guard !options.isQuiet || !remark.isEmpty else { return }
    say(
      "\(session.node): received \(text), \(payload.count) bytes from \(source), \(place), handle \(handle.map { "\($0)" } ?? "none")\(remark)"
    )
  }

  // MARK: The secondary's part

  private func answer(_ request: RequestedReplication) {
    guard request.transport == .udp else {
      return decline(request, "this instance follows UDP sockets")
    }
    switch work {
    case .nothing: break
    case .serving, .following: return decline(request, "this instance has a socket already")
    }
    do throws(CallFailure) {
      let pair = try session.accept(primary: request.primary, within: Self.patience).release()
      say(
        "\(session.node): follows \(request.primary) as \(pair.handle), descriptors rcv \(pair.rcv), snd \(pair.snd), \(request.local) to \(request.foreign)"
      )
      work = .following(FollowedPair(pair))
      received.join()
      outgoing.join()
    } catch {
      say("\(session.node): cannot follow \(request.primary): \(error)")
    }
  }

  private func decline(_ request: RequestedReplication, _ reason: String) {
    try? session.decline(primary: request.primary, reason: reason, within: Self.patience)
  }

  private func follow() {
    guard case .following(let pair) = work else { return }
    drain(pair)
  }

  /// Reads what both descriptors have at the moment.
  private func drain(_ pair: FollowedPair) {
    let (rcv, snd, handle) = (pair.rcv.rawValue, pair.snd.rawValue, pair.handle)
    while let datagram = next(rcv) {
      note(datagram.payload, "rcv descriptor \(rcv)", handle, "\(datagram.source) to \(datagram.destination)")
    }
    while let datagram = next(snd) {
      guard let text = NumberedText(datagram.payload) else {
        say("\(session.node): STRANGE datagram of \(datagram.payload.count) bytes on snd")
        continue
      }
      let remark = outgoing.note(text.number)
      guard !options.isQuiet || !remark.isEmpty else { continue }
      say(
        "\(session.node): snooped \(text), \(datagram.payload.count) bytes from \(datagram.source) to \(datagram.destination), snd descriptor \(snd), handle \(handle)\(remark)"
      )
    }
  }

  private func next(_ descriptor: Int32) -> SnoopedDatagram? {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    guard poll(&entry, 1, 0) > 0 else { return nil }
    return try? SnoopedDatagram.read(from: descriptor)
  }

  private func merge() {
    guard case .following(let pair) = work else { return }
    do throws(CallFailure) {
      let socket = try session.merge(pair.handle, within: Self.patience).release()
      drain(pair)
      say("\(session.node): merged \(pair.handle), descriptor \(socket), goes on with \(outgoing.last + 1)")
      work = .serving(DatagramSocket(owning: socket), nil)
      if otherIsThere { replicate() }
    } catch {
      say("\(session.node): \(pair.handle) cannot be merged: \(error)")
      work = .nothing
    }
  }
}

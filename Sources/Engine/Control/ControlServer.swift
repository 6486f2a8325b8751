// Theory of operation
//
// A thread of the readiness monitor waits in epoll for all control sockets and does nothing but tell the event
// loop; everything else happens there. A descriptor is watched for one event and is watched again when that has
// been handled, so that the loop is never told twice of the same thing, and a client that writes without end
// waits its turn behind everybody else's.
//
// A client that does not read is not read either: its next request is taken when all that it was answered is
// sent and few of its requests are unanswered. What waits for it is thereby bounded by what it asked for, and
// a long report is made page by page as it is read. Events do not wait for anybody: beyond a limit they are
// counted, and the client is told how many it has missed. So no client can make the engine grow or wait.
//
// The kernel reports a hang-up whatever is asked for (epoll_ctl(2)), which is how the end of a client is seen
// that is not read at the moment.

public import Control
import CLinux
import Descriptors
import Glibc
public import Logging
public import NIOCore

/// The engine's side of the control socket. For one event loop, on which everything is to be called.
public final class ControlServer {
  /// Who is told of an event.
  public enum Audience: Hashable, Sendable {
    /// Every client that wants events.
    case all
    /// One client, if it wants events, and those that want everybody's.
    case client(ClientID)
  }

  /// How many clients there may be at once.
  public static let clientLimit = 64
  /// How many requests of one client may be unanswered before the next is read.
  public static let unansweredLimit = 256
  /// How many events may wait to be sent to one client.
  public static let eventLimit = 1024
  /// How many messages of one client are handled before it is somebody else's turn.
  private static let turn = 16

  private let path: String
  private let eventLoop: any EventLoop
  private let logger: Logger
  private weak var delegate: (any ControlDelegate)?
  private var listening: Listening?
  private var clients: [ClientID: ControlConnection] = [:]
  private var tokens: [ReadinessMonitor.Token: ClientID] = [:]
  private var registrations: [ClientID: Registration] = [:]
  private var nextClient: UInt64 = 1

  /// What there is while the server listens.
  private final class Listening {
    let listener: ControlListener
    let monitor: ReadinessMonitor
    let token: ReadinessMonitor.Token

    init(path: String, monitor: ReadinessMonitor) throws(ControlServerError) {
      listener = try ControlListener(path: path)
      self.monitor = monitor
      do throws(SystemError) {
        token = try monitor.add(listener.descriptor, .read)
      } catch {
        throw .system(error)
      }
    }
  }

  /// How a client is watched.
  private struct Registration {
    let token: ReadinessMonitor.Token
    /// What is waited for; `nil` from the event until it was handled.
    var watched: ReadinessMonitor.Events?
  }

  /// - Parameters:
  ///   - path: where clients find the engine.
  ///   - delegate: does what they ask for; not kept alive.
  public init(path: String, eventLoop: any EventLoop, logger: Logger, delegate: any ControlDelegate) {
    self.path = path
    self.eventLoop = eventLoop
    self.logger = logger
    self.delegate = delegate
  }

  // MARK: - Beginning and end

  /// Listens. `close` must be called before the server is let go.
  public func start() throws(ControlServerError) {
    eventLoop.preconditionInEventLoop()
    precondition(listening == nil, "a server starts once")
    let server = NIOLoopBound(self, eventLoop: eventLoop)
    let eventLoop = eventLoop
    let monitor: ReadinessMonitor
    do throws(SystemError) {
      monitor = try ReadinessMonitor { token, events in
        eventLoop.execute { server.value.ready(token, events) }
      }
    } catch {
      throw .system(error)
    }
    do throws(ControlServerError) {
      listening = try Listening(path: path, monitor: monitor)
    } catch {
      monitor.close()
      throw error
    }
  }

  /// Ends every connection and removes the socket. The delegate is not told of clients any more.
  public func close() {
    eventLoop.preconditionInEventLoop()
    guard let listening else { return }
    self.listening = nil
    // The thread is gone before the descriptors that it watches.
    listening.monitor.close()
    registrations = [:]
    tokens = [:]
    clients = [:]
  }

  // MARK: - For the delegate

  /// Who a client is; `nil` when it is gone.
  public func description(of client: ClientID) -> ClientDescription? { clients[client]?.description }

  /// How many clients are connected.
  public var clientCount: Int { clients.count }

  /// Tells clients of an event, with the time as it is now.
  public func publish(_ kind: ControlEvent.Kind, to audience: Audience) {
    eventLoop.preconditionInEventLoop()
    var message: [UInt8]?
    for client in clients.values {
      guard let subscription = client.subscription else { continue }
      if case .client(let id) = audience, id != client.id, subscription != .all { continue }
      // What comes after a gap waits until the client was told of the gap.
      guard client.queuedEvents < Self.eventLimit, client.missedEvents == 0 else {
        client.missedEvents += 1
        continue
      }
      if message == nil { message = Self.message(kind) }
      guard let message, !client.isBroken else { continue }
      client.append(ControlConnection.Outgoing(event: message))
      send(to: client)
      watch(client)
    }
  }

  func answer(_ reply: ControlReply, descriptors: consuming DescriptorParcel, to id: ClientID) {
    eventLoop.preconditionInEventLoop()
    guard let client = clients[id] else { return }
    client.unanswered -= 1
    enqueue(reply, descriptors: descriptors, to: client)
    watch(client)
  }

  private static func message(_ kind: ControlEvent.Kind) -> [UInt8]? {
    var now = timespec()
    clock_gettime(CLOCK_REALTIME, &now)
    let event = ControlEvent(
      kind, timeMilliseconds: Int64(now.tv_sec) * 1000 + Int64(now.tv_nsec) / 1_000_000)
    return try? event.message()
  }

  // MARK: - Readiness

  private func ready(_ token: ReadinessMonitor.Token, _ events: ReadinessMonitor.Events) {
    guard let listening else { return }
    if token == listening.token {
      accept(listening)
      return
    }
    guard let id = tokens[token], let client = clients[id] else { return }
    registrations[id]?.watched = nil
    client.isAttended = true
    if events.contains(.write) { send(to: client) }
    if mayRead(client) {
      let isThere = read(client)
      delegate?.controlBatchEnded()
      guard isThere else { return drop(client) }
    } else if events.contains(.hangUp) {
      return drop(client)
    }
    // The news that it has more to say would otherwise be there before this turn of the loop is over, and then the next
    // news: nothing else would be heard of until it has said all.
    let server = NIOLoopBound(self, eventLoop: eventLoop)
    eventLoop.executeBehindInput {
      guard let client = server.value.clients[id] else { return }
      client.isAttended = false
      server.value.watch(client)
    }
  }

  /// Waits for whatever `client` can do next, unless it has just been attended to.
  private func watch(_ client: ControlConnection) {
    guard let listening, !client.isAttended, var registration = registrations[client.id] else { return }
    var wanted: ReadinessMonitor.Events = []
    if mayRead(client) { wanted.insert(.read) }
    if client.hasOutgoing, !client.isSendingLater { wanted.insert(.write) }
    guard registration.watched != wanted else { return }
    registration.watched = wanted
    registrations[client.id] = registration
    do throws(SystemError) {
      try listening.monitor.rearm(registration.token, wanted)
    } catch {
      logger.error("control socket: \(client.description) cannot be watched", metadata: ["error": "\(error)"])
      client.breakOff()
    }
  }

  private func mayRead(_ client: ControlConnection) -> Bool {
    client.isBroken || (!client.hasOutgoing && client.unanswered < Self.unansweredLimit)
  }

  // MARK: - Clients come and go

  private func accept(_ listening: Listening) {
    var pause: TimeAmount?
    for _ in 0..<Self.turn {
      do throws(SystemError) {
        admit(try listening.listener.accept(), listening)
      } catch {
        if error.code != EAGAIN {
          // Out of descriptors or memory: the client stays in the backlog and would be reported for ever.
          logger.error("control socket: a client cannot be accepted", metadata: ["error": "\(error)"])
          pause = .seconds(1)
        }
        break
      }
    }
    if let pause {
      let server = NIOLoopBound(self, eventLoop: eventLoop)
      eventLoop.scheduleTask(in: pause) { server.value.listenAgain() }
    } else {
      listenAgain()
    }
  }

  private func listenAgain() {
    guard let listening else { return }
    do throws(SystemError) {
      try listening.monitor.rearm(listening.token, .read)
    } catch {
      logger.critical("control socket: no more clients can come", metadata: ["error": "\(error)"])
    }
  }

  private func admit(_ descriptor: consuming OwnedDescriptor, _ listening: Listening) {
    let number = descriptor.rawValue
    let socket = ControlSocket(owning: descriptor)
    var process = pid_t()
    var user = uid_t()
    var group = gid_t()
    guard jsr_peer_credentials(number, &process, &user, &group) == 0 else { return }
    let description = ClientDescription(application: "", process: process, user: user, group: group)
    guard clients.count < Self.clientLimit else {
      logger.warning("control socket: \(description) refused, there are \(clients.count) clients")
      let error = ControlError(
        .limit, "the engine has \(Self.clientLimit) clients already, which is the most; end one of them")
      let reply = ControlReply(id: 0, outcome: .failure(error))
      // The socket is new and empty: there is room for one message.
      if let message = ReplyPages(reply).first { try? socket.send(message, waiting: false) }
      return
    }
    let id = ClientID(rawValue: nextClient)
    nextClient += 1
    do throws(SystemError) {
      let token = try listening.monitor.add(number, .read)
      tokens[token] = id
      registrations[id] = Registration(token: token, watched: .read)
    } catch {
      logger.error("control socket: \(description) cannot be watched", metadata: ["error": "\(error)"])
      return
    }
    clients[id] = ControlConnection(id: id, socket: socket, description: description)
    logger.debug("control socket: \(id) is \(description)")
  }

  private func drop(_ client: ControlConnection) {
    if let registration = registrations.removeValue(forKey: client.id) {
      tokens[registration.token] = nil
      listening?.monitor.remove(registration.token)
    }
    clients[client.id] = nil
    logger.debug("control socket: \(client.id) \(client.description) is gone")
    if client.isIntroduced { delegate?.clientGone(client.id) }
  }

  // MARK: - Receiving

  /// - Returns: whether the client is still there.
  private func read(_ client: ControlConnection) -> Bool {
    for _ in 0..<Self.turn where mayRead(client) {
      do throws(ControlSocketError) {
        handle(try client.socket.receive(waiting: false), from: client)
      } catch {
        switch error {
        case .wouldBlock:
          return true
        case .oversized:
          refuse(0, ControlError(.oversized, "\(error)"), to: client)
        case .tooManyDescriptors(let message):
          refuse(Self.id(of: message), ControlError(.descriptors, "\(error)"), to: client)
        case .ended, .system:
          return false
        }
      }
    }
    return true
  }

  private static func id(of message: [UInt8]) -> UInt64 {
    do throws(ControlRequest.Unreadable) {
      return try ControlRequest(reading: message).id
    } catch {
      return error.id
    }
  }

  private func handle(_ message: consuming ControlMessage, from client: ControlConnection) {
    guard !client.isBroken else { return }
    var message = message
    let request: ControlRequest
    do throws(ControlRequest.Unreadable) {
      request = try ControlRequest(reading: message.bytes)
    } catch {
      return refuse(error.id, error.error, to: client)
    }
    let descriptors = message.takeDescriptors()
    let count = descriptors.count
    guard count == request.descriptorCount else {
      let error = ControlError(
        .descriptors, "the request takes \(request.descriptorCount) descriptors, but \(count) came with it")
      return refuse(request.id, error, to: client)
    }
    switch request.body {
    case .hello(let application, let protocolVersion, let role):
      if let error = Self.objection(to: application, protocolVersion, again: client.isIntroduced) {
        return refuse(request.id, error, to: client)
      }
      client.description.application = application
      client.description.role = role
      client.isIntroduced = true
    case _ where !client.isIntroduced:
      return refuse(request.id, ControlError(.notIntroduced, "the first request must be hello"), to: client)
    case _ where !request.body.isAllowed(to: client.description.role):
      let error = ControlError(
        .notPermitted, "a client that said hello as \(client.description.role.rawValue) may not ask for this")
      return refuse(request.id, error, to: client)
    case .subscribe(let scope):
      client.subscription = scope
      enqueue(ControlReply(id: request.id, outcome: .success(.done)), to: client)
      return
    default:
      break
    }
    client.unanswered += 1
    let reply = ReplyPort(server: self, client: client.id, id: request.id)
    delegate?.control(request.body, descriptors: descriptors, from: client.id, reply: reply)
  }

  private static func objection(
    to application: String, _ protocolVersion: Int, again: Bool
  ) -> ControlError? {
    if again { return ControlError(.wrongState, "hello was said already") }
    if protocolVersion != ControlProtocol.version {
      return ControlError(
        .version,
        "version \(protocolVersion) of the control protocol is not spoken here, use \(ControlProtocol.version)"
      )
    }
    // The name is printed on terminals and in logs.
    let isPrintable = application.unicodeScalars.allSatisfy { !$0.properties.generalCategory.isControl }
    guard !application.isEmpty, application.utf8.count <= ControlProtocol.applicationNameLimit, isPrintable
    else {
      return ControlError(
        .malformed,
        "the field \"application\" must be a name of 1 to \(ControlProtocol.applicationNameLimit) bytes on one line"
      )
    }
    return nil
  }

  // MARK: - Sending

  private func refuse(_ id: UInt64, _ error: ControlError, to client: ControlConnection) {
    logger.debug("control socket: request of \(client.description) refused: \(error)")
    enqueue(ControlReply(id: id, outcome: .failure(error)), to: client)
  }

  private func enqueue(
    _ reply: ControlReply, descriptors: consuming DescriptorParcel = DescriptorParcel(),
    to client: ControlConnection
  ) {
    guard !client.isBroken else { return }
    client.append(ControlConnection.Outgoing(reply, descriptors: descriptors))
    send(to: client)
  }

  /// Sends what there is room for, up to a turn.
  private func send(to client: ControlConnection) {
    guard !client.isSendingLater else { return }
    var sent = 0
    do throws(ControlSocketError) {
      while true {
        while let outgoing = client.firstOutgoing {
          guard sent < Self.turn else { return sendLater(to: client) }
          if try outgoing.sendNext(to: client.socket) {
            sent += 1
          } else {
            client.removeFirstOutgoing()
          }
        }
        guard client.missedEvents > 0, let message = Self.message(.missed(count: client.missedEvents)) else {
          return
        }
        client.missedEvents = 0
        client.append(ControlConnection.Outgoing(event: message))
      }
    } catch {
      switch error {
      case .wouldBlock: break
      case .ended: client.breakOff()
      case .oversized, .tooManyDescriptors, .system:
        logger.error("control socket: \(client.description) is cut off", metadata: ["error": "\(error)"])
        client.breakOff()
      }
    }
  }

  private func sendLater(to client: ControlConnection) {
    client.isSendingLater = true
    let id = client.id
    let server = NIOLoopBound(self, eventLoop: eventLoop)
    eventLoop.executeBehindInput {
      guard let client = server.value.clients[id] else { return }
      client.isSendingLater = false
      server.value.send(to: client)
      server.value.watch(client)
    }
  }
}

extension ReplyPages {
  fileprivate var first: [UInt8]? {
    var pages = self
    return pages.next()
  }
}

extension Unicode.GeneralCategory {
  fileprivate var isControl: Bool {
    switch self {
    case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate, .unassigned, .privateUse: true
    default: false
    }
  }
}

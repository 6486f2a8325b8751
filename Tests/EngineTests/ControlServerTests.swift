import CLinux
import Control
import Descriptors
import Engine
import Foundation
import Glibc
import Logging
import NIOCore
import NIOPosix
import Replication
import Synchronization
import Testing

@Suite("The control server", .timeLimit(.minutes(1)))
struct ControlServerTests {
  /// Does what a test says, on the event loop.
  final class Delegate: ControlDelegate {
    typealias Answer =
      @Sendable (ControlRequest.Body, consuming DescriptorParcel, ClientID, ReplyPort) -> Void
    private let answer: Answer
    var gone: [ClientID] = []
    var batches = 0

    init(_ answer: @escaping Answer) { self.answer = answer }

    func control(
      _ request: ControlRequest.Body, descriptors: consuming DescriptorParcel, from client: ClientID,
      reply: ReplyPort
    ) {
      if case .hello = request {
        reply.send(.welcome(.init(node: "re0", slot: 0, engineVersion: "9.9")))
      } else {
        answer(request, descriptors, client, reply)
      }
    }

    func controlBatchEnded() { batches += 1 }

    func clientGone(_ client: ClientID) { gone.append(client) }
  }

  /// A server on an event loop of its own, in a directory of its own.
  final class Engine: Sendable {
    let path: String
    let directory: String
    private let loop: any EventLoop
    private let parts: NIOLoopBoundBox<(server: ControlServer, delegate: Delegate)?>

    init(path: String? = nil, _ answer: @escaping Delegate.Answer = { _, _, _, reply in reply.send(.done) })
      throws
    {
      directory =
        FileManager.default.temporaryDirectory.path + "/jsrd-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
      let path = path ?? directory + "/run/s"
      self.path = path
      let loop = MultiThreadedEventLoopGroup.singleton.next()
      self.loop = loop
      parts = .makeEmptyBox(eventLoop: loop)
      let parts = parts
      try loop.submit {
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        let delegate = Delegate(answer)
        let server = ControlServer(path: path, eventLoop: loop, logger: logger, delegate: delegate)
        try server.start()
        parts.value = (server, delegate)
      }.wait()
    }

    /// Does something on the event loop.
    func with<Value: Sendable>(_ body: @escaping @Sendable (ControlServer, Delegate) -> Value) throws -> Value
    {
      let parts = parts
      return try loop.submit {
        guard let (server, delegate) = parts.value else {
          throw ControlServerError.occupied(path: "not started")
        }
        return body(server, delegate)
      }.wait()
    }

    /// Waits until something holds on the event loop.
    func wait(_ what: String, _ condition: @escaping @Sendable (ControlServer, Delegate) -> Bool) throws {
      for _ in 0..<5000 {
        if try with(condition) { return }
        usleep(1000)
      }
      Issue.record("never came true: \(what)")
    }

    func close() throws { try with { server, _ in server.close() } }

    deinit {
      try? close()
      try? FileManager.default.removeItem(atPath: directory)
    }
  }

  /// Receives one message, waiting up to 10 seconds.
  static func receive(_ socket: borrowing ControlSocket) throws -> EngineMessage {
    var timeout = timeval(tv_sec: 10, tv_usec: 0)
    setsockopt(socket.descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
    let message = try socket.receive(waiting: true)
    return try EngineMessage(reading: message.bytes)
  }

  static func error(_ message: EngineMessage) throws -> (id: UInt64, error: ControlError) {
    guard case .reply(let reply) = message, case .failure(let error) = reply.outcome else {
      throw ControlError(.malformed, "not a refusal: \(message)")
    }
    return (reply.id, error)
  }

  /// A client that has said hello.
  static func client(_ engine: Engine) throws -> ControlSocket {
    let socket = try ControlSocket(connectingTo: engine.path)
    let hello = ControlRequest.Body.hello(application: "test", protocolVersion: 1)
    try socket.send(ControlRequest(id: 1, body: hello).message(), waiting: true)
    let welcome = ControlReply.Welcome(node: "re0", slot: 0, engineVersion: "9.9")
    #expect(try receive(socket) == .reply(ControlReply(id: 1, outcome: .success(.welcome(welcome)))))
    return socket
  }

  static func connection(_ index: UInt32) -> ConnectionReport {
    ConnectionReport(
      proto: "tcp", receiveQueue: 0, sendQueue: 0, local: "5.5.5.5:16000", foreign: "5.5.5.4:40000",
      state: "ESTABLISHED", role: .primary, handle: Handle(slot: 0, generation: 1, index: index),
      sendUnacknowledged: 1, sendNext: 1, receiveNext: 1, sendWindow: 1, receiveWindow: 1,
      receiveRightEdge: 2,
      maximumSegmentSize: 1448, sendWindowScale: 7, receiveWindowScale: 7, sack: true, timestamps: true,
      timestampRecent: 1, timestampLast: 1)
  }

  // MARK: - Requests

  @Test("hands requests to the delegate and its answers to the client, also later and in another order")
  func order() throws {
    let kept = Mutex<[UInt64]>([])
    let ports = KeptReplies()
    let engine = try Engine { request, _, _, reply in
      switch request {
      case .allocate: ports.keep(reply)
      default:
        reply.send(.handle(Handle(slot: 0, generation: 0, index: 1)))
        ports.release { $0.send(.done) }
      }
    }
    let socket = try Self.client(engine)
    try socket.send(ControlRequest(id: 20, body: .allocate).message(), waiting: true)
    try socket.send(ControlRequest(id: 21, body: .show(.status)).message(), waiting: true)
    for _ in 0..<2 {
      guard case .reply(let reply) = try Self.receive(socket) else { continue }
      kept.withLock { $0.append(reply.id) }
    }
    #expect(kept.withLock(\.self) == [21, 20])
  }

  @Test("passes descriptors both ways")
  func descriptors() throws {
    let engine = try Engine { _, descriptors, _, reply in
      #expect(descriptors.count == 1)
      reply.send(.done, descriptors: descriptors)
    }
    let socket = try Self.client(engine)
    var ends: [Int32] = [-1, -1]
    try #require(pipe(&ends) == 0)
    defer { close(ends[0]) }
    let handle = Handle(slot: 0, generation: 0, index: 0)
    let request = ControlRequest(id: 2, body: .replicate(primary: handle, secondary: handle))
    try socket.send(request.message(), descriptors: [ends[1]], waiting: true)
    close(ends[1])
    do {
      var message = try socket.receive(waiting: true)
      var parcel = message.takeDescriptors()
      guard let back = parcel.takeFirst() else {
        Issue.record("no descriptor came back")
        return
      }
      #expect(write(back.rawValue, [5 as UInt8], 1) == 1)
    }
    var bytes: [UInt8] = [0, 0]
    #expect(read(ends[0], &bytes, 2) == 1)
    #expect(read(ends[0], &bytes, 2) == 0, "a copy of the descriptor was left open")
  }

  @Test("lets an operator do nothing that is an application's, nor an application what is an operator's")
  func roles() throws {
    let engine = try Engine { request, _, _, reply in
      if case .hello = request {
        reply.send(.welcome(ControlReply.Welcome(node: "re0", slot: 0, engineVersion: "9.9")))
      } else {
        reply.send(.done)
      }
    }
    for role in ControlRequest.ClientRole.allCases {
      let socket = try ControlSocket(connectingTo: engine.path)
      let hello = ControlRequest.Body.hello(application: "test", protocolVersion: 1, role: role)
      try socket.send(ControlRequest(id: 1, body: hello).message(), waiting: true)
      _ = try Self.receive(socket)
      for (body, isOperators) in [(ControlRequest.Body.allocate, false), (.logLevel(.debug), true)] {
        try socket.send(ControlRequest(id: 2, body: body).message(), waiting: true)
        let answer = try Self.receive(socket)
        if isOperators == (role == .operator) {
          #expect(answer == .reply(ControlReply(id: 2, outcome: .success(.done))))
        } else {
          let (id, error) = try Self.error(answer)
          #expect(id == 2)
          #expect(error.code == .notPermitted)
          #expect(error.message.contains("said hello as \(role.rawValue)"), "says: \(error)")
        }
      }
    }
  }

  @Test("answers what it cannot accept with the reason, and goes on with the same client")
  func refusals() throws {
    let engine = try Engine()
    let socket = try Self.client(engine)
    let handle = Handle(slot: 0, generation: 0, index: 0)
    func expect(
      _ id: UInt64, _ code: RefusalCode, _ says: String, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
      let (got, error) = try Self.error(try Self.receive(socket))
      #expect(got == id, sourceLocation: sourceLocation)
      #expect(error.code == code, sourceLocation: sourceLocation)
      #expect(error.message.contains(says), "says: \(error.message)", sourceLocation: sourceLocation)
    }
    func raw(_ bytes: [UInt8], _ descriptors: [Int32] = []) throws {
      let flags = Int32(MSG_NOSIGNAL)
      let sent = jsr_send_with_descriptors(
        socket.descriptor, bytes, bytes.count, descriptors, Int32(descriptors.count), flags)
      try #require(sent == bytes.count)
    }

    try raw(Array("nonsense".utf8))
    try expect(0, .malformed, "not a JSON document")
    try raw(Array(#"{"version":7,"id":3,"request":"allocate"}"#.utf8))
    try expect(3, .version, "version 7")
    try raw(Array(#"{"version":1,"id":4,"request":"fly"}"#.utf8))
    try expect(4, .malformed, "there is no request \"fly\"")
    try raw([UInt8](repeating: UInt8(ascii: " "), count: ControlProtocol.messageLimit + 1))
    try expect(0, .oversized, "65536")
    let replicate = ControlRequest(id: 5, body: .replicate(primary: handle, secondary: handle))
    try socket.send(replicate.message(), waiting: true)
    try expect(5, .descriptors, "takes 1 descriptors, but 0 came")
    try socket.send(replicate.message(), descriptors: [0, 0], waiting: true)
    try expect(5, .descriptors, "takes 1 descriptors, but 2 came")
    try raw(replicate.message(), [0, 0, 0, 0, 0])
    try expect(5, .descriptors, "more than 2 descriptors")
    try socket.send(ControlRequest(id: 6, body: .allocate).message(), descriptors: [0], waiting: true)
    try expect(6, .descriptors, "takes 0 descriptors, but 1 came")
    let hello = ControlRequest.Body.hello(application: "again", protocolVersion: 1)
    try socket.send(ControlRequest(id: 7, body: hello).message(), waiting: true)
    try expect(7, .wrongState, "already")

    try socket.send(ControlRequest(id: 8, body: .allocate).message(), waiting: true)
    #expect(try Self.receive(socket) == .reply(ControlReply(id: 8, outcome: .success(.done))))
  }

  @Test("wants to know a client by a printable name before anything else")
  func introduction() throws {
    let engine = try Engine()
    let socket = try ControlSocket(connectingTo: engine.path)
    try socket.send(ControlRequest(id: 1, body: .allocate).message(), waiting: true)
    #expect(try Self.error(try Self.receive(socket)).error.code == .notIntroduced)
    for name in ["", "two\nlines", "\u{1b}[31m", String(repeating: "x", count: 65)] {
      let hello = ControlRequest.Body.hello(application: name, protocolVersion: 1)
      try socket.send(ControlRequest(id: 2, body: hello).message(), waiting: true)
      #expect(try Self.error(try Self.receive(socket)).error.code == .malformed)
    }
    let hello = ControlRequest.Body.hello(application: "x", protocolVersion: 2)
    try socket.send(ControlRequest(id: 2, body: hello).message(), waiting: true)
    #expect(try Self.error(try Self.receive(socket)).error.code == .version)
    try engine.wait("the client is known") { server, _ in server.clientCount == 1 }
    let described = try engine.with { server, _ in server.description(of: ClientID(rawValue: 1)) }
    #expect(described?.application == "")
    #expect(described?.process == getpid())
    #expect(described?.user == getuid())
    #expect(described?.group == getgid())
  }

  @Test("answers for a delegate that forgets a request")
  func forgotten() throws {
    let engine = try Engine { _, _, _, _ in }
    let socket = try Self.client(engine)
    try socket.send(ControlRequest(id: 2, body: .allocate).message(), waiting: true)
    let (id, error) = try Self.error(try Self.receive(socket))
    #expect(id == 2)
    #expect(error.code == .ending)
  }

  @Test("gives a report on 20,000 connections to a client that starts to read late")
  func longReport() throws {
    let reports = (0..<20_000 as Range<UInt32>).map(Self.connection)
    let engine = try Engine { _, _, _, reply in reply.send(.connections(reports)) }
    let socket = try Self.client(engine)
    try socket.send(ControlRequest(id: 2, body: .show(.connections)).message(), waiting: true)
    usleep(100_000)
    // The engine is not held up by it.
    let other = try Self.client(engine)
    _ = other.descriptor
    var whole: ControlReply?
    repeat {
      guard case .reply(let part) = try Self.receive(socket) else { continue }
      if whole == nil { whole = part } else { try whole?.append(part) }
    } while whole?.more != false
    #expect(whole == ControlReply(id: 2, outcome: .success(.connections(reports))))
  }

  // MARK: - Clients

  @Test("refuses the 65th client with a message, and takes another when one has left")
  func limit() throws {
    let engine = try Engine()
    var clients: [ControlClient] = []
    for _ in 0..<ControlServer.clientLimit {
      clients.append(try ControlClient(connectingTo: engine.path, application: "test"))
    }
    let error = #expect(throws: ControlClient.Failure.self) {
      _ = try ControlClient(connectingTo: engine.path, application: "test")
    }
    guard case .refused(let refusal) = error else {
      Issue.record("\(String(describing: error)) was thrown")
      return
    }
    #expect(refusal.code == .limit)
    clients.removeLast()
    try engine.wait("a client has left") { server, _ in server.clientCount == ControlServer.clientLimit - 1 }
    clients.append(try ControlClient(connectingTo: engine.path, application: "test"))
    #expect(clients.count == ControlServer.clientLimit)
  }

  @Test("tells the delegate once when a client is gone, and drops what is answered to it later")
  func gone() throws {
    let ports = KeptReplies()
    let engine = try Engine { _, _, _, reply in ports.keep(reply) }
    do {
      let socket = try Self.client(engine)
      try socket.send(ControlRequest(id: 2, body: .allocate).message(), waiting: true)
      try engine.wait("the request has come") { _, _ in ports.count == 1 }
    }
    try engine.wait("the client is gone") { server, delegate in
      delegate.gone == [ClientID(rawValue: 1)] && server.clientCount == 0
    }
    try engine.with { _, _ in ports.release { $0.send(.done) } }
    try engine.with { _, delegate in #expect(delegate.gone.count == 1) }
  }

  @Test("does what a client asks that leaves without waiting for the answer")
  func askAndLeave() throws {
    let asked = Mutex(0)
    let engine = try Engine { _, _, _, reply in
      asked.withLock { $0 += 1 }
      reply.send(.done)
    }
    do {
      let socket = try Self.client(engine)
      try socket.send(ControlRequest(id: 2, body: .master(.switch)).message(), waiting: true)
    }
    try engine.wait("the client is gone") { _, delegate in delegate.gone.count == 1 }
    #expect(asked.withLock(\.self) == 1)
  }

  @Test("does not read from a client that does not read, and serves the others meanwhile")
  func stalled() throws {
    let asked = Mutex(0)
    let engine = try Engine { request, _, _, reply in
      if case .show = request { asked.withLock { $0 += 1 } }
      reply.send(.done)
    }
    let stalled = try Self.client(engine)
    let message = try ControlRequest(id: 2, body: .show(.status)).message()
    var sent = 0
    // Until nothing has fitted for a while, with everything between the two full.
    var patience = 0
    while patience < 100, sent < 100_000 {
      do throws(ControlSocketError) {
        try stalled.send(message, waiting: false)
        sent += 1
        patience = 0
      } catch {
        patience += 1
        usleep(1000)
      }
    }
    #expect(sent < 100_000, "the engine took in whatever the client sent")
    let other = try ControlClient(connectingTo: engine.path, application: "other")
    #expect(try other.request(.allocate) == .done)
    for _ in 0..<sent { _ = try Self.receive(stalled) }
    #expect(asked.withLock(\.self) == sent)
  }

  @Test("survives whatever thousands of random messages contain")
  func garbage() throws {
    let engine = try Engine()
    let socket = try Self.client(engine)
    var generator = SystemRandomNumberGenerator()
    for _ in 0..<2000 {
      var bytes = [UInt8](#"{"version":1,"id":5,"request":"free","handle":"0x1"}"#.utf8)
      for _ in 0..<3 { bytes[Int.random(in: 0..<bytes.count, using: &generator)] = .random(in: 0...255) }
      try socket.send(bytes, waiting: true)
      _ = try Self.receive(socket)
    }
  }

  // MARK: - Events

  @Test("tells events to those who asked: everybody's to a monitor, one's own to an application")
  func audience() throws {
    let engine = try Engine()
    let monitor = try Self.client(engine)
    let owner = try Self.client(engine)
    let stranger = try Self.client(engine)
    let silent = try Self.client(engine)
    func subscribe(_ socket: borrowing ControlSocket, _ scope: ControlRequest.SubscriptionScope) throws {
      try socket.send(ControlRequest(id: 2, body: .subscribe(scope)).message(), waiting: true)
      #expect(try Self.receive(socket) == .reply(ControlReply(id: 2, outcome: .success(.done))))
    }
    try subscribe(monitor, .all)
    try subscribe(owner, .own)
    try subscribe(stranger, .own)
    let handle = Handle(slot: 0, generation: 1, index: 2)
    try engine.with { server, _ in
      server.publish(.replicated(handle), to: .client(ClientID(rawValue: 2)))
      server.publish(.mastershipGained, to: .all)
    }
    func kind(_ socket: borrowing ControlSocket) throws -> ControlEvent.Kind? {
      guard case .event(let event) = try Self.receive(socket) else { return nil }
      #expect(abs(Double(event.timeMilliseconds) / 1000 - Date.now.timeIntervalSince1970) < 60)
      return event.kind
    }
    #expect(try kind(monitor) == .replicated(handle))
    #expect(try kind(monitor) == .mastershipGained)
    #expect(try kind(owner) == .replicated(handle))
    #expect(try kind(owner) == .mastershipGained)
    #expect(try kind(stranger) == .mastershipGained)
    #expect(throws: ControlSocketError.wouldBlock) { _ = try silent.receive(waiting: false) }
  }

  @Test("counts what a slow subscriber misses, and tells it the number where the events would have been")
  func missed() throws {
    let engine = try Engine()
    let socket = try Self.client(engine)
    try socket.send(ControlRequest(id: 2, body: .subscribe(.own)).message(), waiting: true)
    _ = try Self.receive(socket)
    let published = 20_000
    try engine.with { server, _ in
      for index in 0..<UInt32(published) {
        server.publish(.replicated(Handle(slot: 0, generation: 0, index: index)), to: .all)
      }
    }
    var told = 0
    var missed = 0
    while told + missed < published {
      guard case .event(let event) = try Self.receive(socket) else { continue }
      switch event.kind {
      case .replicated(let handle):
        #expect(Int(handle.index) == told + missed)
        told += 1
      case .missed(let count): missed += count
      default: Issue.record("\(event) was not published")
      }
    }
    #expect(told + missed == published)
    #expect(missed > 0, "20,000 events were queued")
    #expect(told >= ControlServer.eventLimit)

    // From here on nothing is missed again.
    try engine.with { server, _ in server.publish(.secondaryUp, to: .all) }
    guard case .event(let event) = try Self.receive(socket) else { return }
    #expect(event.kind == .secondaryUp)
  }

  // MARK: - The socket in the file system

  @Test("makes the directory, a socket of mode 0660, and removes the socket at the end")
  func file() throws {
    let engine = try Engine()
    var file = stat()
    #expect(lstat(engine.path, &file) == 0)
    #expect(file.st_mode == S_IFSOCK | 0o660)
    try engine.close()
    #expect(lstat(engine.path, &file) != 0)
  }

  @Test("takes the place of an engine that died, and not of one that lives")
  func stale() throws {
    let first = try Engine()
    #expect(throws: ControlServerError.alreadyRunning(path: first.path)) { _ = try Engine(path: first.path) }
    #expect(try Self.client(first).descriptor >= 0, "the engine that lives was disturbed")
    try first.close()

    // What an engine leaves that was killed: a file of a socket on which nobody listens.
    let dead = socket(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0)
    var address = try ControlSocket.address(of: first.path)
    let bound = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(dead, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    #expect(bound == 0)
    close(dead)
    let second = try Engine(path: first.path)
    #expect(try Self.client(second).descriptor >= 0)
  }

  @Test("leaves a file alone that is not a socket, and a socket on which another program listens")
  func occupied() throws {
    let directory =
      FileManager.default.temporaryDirectory.path + "/jsrd-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let file = directory + "/file"
    try "precious".write(toFile: file, atomically: false, encoding: .utf8)
    #expect(throws: ControlServerError.occupied(path: file)) { _ = try Engine(path: file) }
    #expect(try String(contentsOfFile: file, encoding: .utf8) == "precious")

    let path = directory + "/other"
    let other = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(other) }
    var address = try ControlSocket.address(of: path)
    let bound = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(other, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    try #require(bound == 0 && listen(other, 1) == 0)
    #expect(throws: ControlServerError.alreadyRunning(path: path)) { _ = try Engine(path: path) }
    var present = stat()
    #expect(lstat(path, &present) == 0)
  }
}

/// Replies that a test answers later. Touched on the event loop only.
final class KeptReplies: @unchecked Sendable {
  private let lock = NSLock()
  private var ports: [ReplyPort] = []

  var count: Int { lock.withLock { ports.count } }
  func keep(_ port: ReplyPort) { lock.withLock { ports.append(port) } }
  func release(_ body: (ReplyPort) -> Void) {
    let all = lock.withLock {
      defer { ports = [] }
      return ports
    }
    for port in all { body(port) }
  }
}

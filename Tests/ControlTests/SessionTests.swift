import Control
import Descriptors
import Glibc
import JSR
import Testing

@Suite("A session", .timeLimit(.minutes(1)))
struct SessionTests {
  static let primary = Handle(slot: 0, generation: 1, index: 0)
  static let secondary = Handle(slot: 1, generation: 1, index: 0)

  static func socketPair() throws -> (Int32, Int32) {
    var ends: [Int32] = [-1, -1]
    try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0)
    return (ends[0], ends[1])
  }

  static func read(_ descriptor: Int32) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 100)
    let count = Glibc.read(descriptor, &bytes, bytes.count)
    return Array(bytes.prefix(max(0, count)))
  }

  static func event(_ kind: ControlEvent.Kind) throws -> [UInt8] {
    try ControlEvent(kind, timeMilliseconds: 0).message()
  }

  // MARK: - Calls

  @Test("knows which routing engine it is on")
  func welcome() async throws {
    let engine = try FakeEngine { _, _ in .nothing }
    let session = try await Session.connect(to: engine.path, application: "test")
    #expect(session.node == "re1")
    #expect(session.slot == 1)
    #expect(session.engineVersion == "9.9")
  }

  @Test("asks what its calls say, and gives back what is answered")
  func calls() async throws {
    let engine = try FakeEngine { request, _ in
      switch request.body {
      case .allocate: .reply(.handle(Self.primary))
      case .status: .reply(.socket(ControlReplyTests.socket(1)))
      case .show: .reply(.status(ControlReplyTests.status))
      default: .reply(.done)
      }
    }
    let session = try await Session.connect(to: engine.path, application: "test")
    #expect(try await session.allocate() == Self.primary)
    try await session.free(Self.primary)
    try await session.unreplicate(Self.primary)
    #expect(try await session.role() == .primary)
    let status = try await session.status(of: Self.primary)
    #expect(status.state == .replicating)
    #expect(status.local == "5.5.5.5:16000")
    #expect(status.remote == "5.5.5.4:40001")
    #expect(
      engine.requests == [
        .allocate, .free(Self.primary), .unreplicate(Self.primary), .show(.status), .status(Self.primary),
      ])
  }

  @Test("throws the engine's refusal with its code and message")
  func refusal() async throws {
    let engine = try FakeEngine { _, _ in .refusal(.notPrimary, "re1 is secondary") }
    let session = try await Session.connect(to: engine.path, application: "test")
    await #expect(throws: JSRError.refused(.notPrimary, message: "re1 is secondary")) {
      _ = try await session.allocate()
    }
  }

  @Test("throws when the answer is of the wrong kind, or lacks a descriptor")
  func misunderstood() async throws {
    let engine = try FakeEngine { request, _ in
      if case .attach = request.body { .reply(.handle(Self.secondary)) } else { .reply(.done) }
    }
    let session = try await Session.connect(to: engine.path, application: "test")
    for call in [
      { @Sendable in _ = try await session.allocate() },
      { @Sendable in _ = try await session.attach(primary: Self.primary).handle },
      { @Sendable in _ = try await session.merge(Self.secondary).descriptor },
    ] {
      let error = await #expect(throws: JSRError.self) { try await call() }
      guard case .misunderstood = error else {
        Issue.record("\(String(describing: error)) was thrown")
        continue
      }
    }
  }

  @Test("gives each of a thousand calls made at once its own answer")
  func concurrency() async throws {
    let engine = try FakeEngine { request, _ in
      guard case .attach(let handle, _) = request.body else { return .nothing }
      var ends: [Int32] = [-1, -1]
      socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends)
      var index = handle.index
      _ = Glibc.write(ends[1], &index, 4)
      return .reply(.handle(Handle(slot: 1, generation: 0, index: handle.index)), descriptors: ends)
    }
    let session = try await Session.connect(to: engine.path, application: "test")
    try await withThrowingTaskGroup(of: Void.self) { group in
      for index in 0..<1000 as Range<UInt32> {
        group.addTask {
          let pair = try await session.attach(primary: Handle(slot: 0, generation: 0, index: index))
          #expect(pair.handle.index == index)
          let bytes = Self.read(pair.rcv.descriptor)
          #expect(bytes == withUnsafeBytes(of: index.littleEndian) { Array($0) })
        }
      }
      try await group.waitForAll()
    }
  }

  @Test("puts a long answer in several messages together")
  func pages() async throws {
    let first = ControlReply(id: 3, more: true, outcome: .success(.sockets([])))
    let engine = try FakeEngine { request, _ in
      // Parts of a list are no answer to allocate: what matters is that the call ends once, with the last.
      var part = first
      part.id = request.id
      var pages = ReplyPages(
        ControlReply(id: request.id, outcome: .success(.sockets((0..<1000).map(ControlReplyTests.socket)))))
      var messages: [[UInt8]] = []
      while let page = pages.next() { messages.append(page) }
      return .messages(messages)
    }
    let session = try await Session.connect(to: engine.path, application: "test")
    let error = await #expect(throws: JSRError.self) { _ = try await session.allocate() }
    guard case .misunderstood = error else {
      Issue.record("\(String(describing: error)) was thrown")
      return
    }
    await #expect(throws: JSRError.self) { _ = try await session.allocate() }
    #expect(engine.requests.count == 2, "the session did not outlive the long answer")
  }

  // MARK: - Sockets

  @Test("hands the engine a duplicate of a socket and gives the same descriptor back after the handshake")
  func replicate() async throws {
    let engine = try FakeEngine { _, descriptors in
      // The engine's descriptor is of the same open socket.
      for number in descriptors { _ = Glibc.write(number, [UInt8(ascii: "x")], 1) }
      return descriptors.count == 1 ? .reply(.done) : .refusal(.descriptors, "\(descriptors.count)")
    }
    let session = try await Session.connect(to: engine.path, application: "test")
    let (mine, peer) = try Self.socketPair()
    defer { close(peer) }
    switch await session.replicate(Socket(owning: mine), primary: Self.primary, secondary: Self.secondary) {
    case .replicating(let socket):
      #expect(socket.descriptor == mine)
      #expect(Self.read(peer) == [UInt8(ascii: "x")])
    case .refused(_, let error):
      Issue.record("refused: \(error)")
    }
    #expect(engine.requests == [.replicate(primary: Self.primary, secondary: Self.secondary)])
    // Let go at the end of the switch: the peer sees the end of the stream.
    #expect(Self.read(peer) == [])
  }

  @Test("gives a socket back that the engine refuses")
  func replicateRefused() async throws {
    let engine = try FakeEngine { _, _ in .refusal(.unsuitableSocket, "the socket is listening") }
    let session = try await Session.connect(to: engine.path, application: "test")
    let (mine, peer) = try Self.socketPair()
    defer { close(peer) }
    switch await session.replicate(Socket(owning: mine), primary: Self.primary, secondary: Self.secondary) {
    case .replicating: Issue.record("was not refused")
    case .refused(let socket, let error):
      #expect(error == .refused(.unsuitableSocket, message: "the socket is listening"))
      #expect(Glibc.write(socket.descriptor, [1 as UInt8], 1) == 1)
      #expect(Self.read(peer) == [1])
    }
  }

  @Test("gives a socket back when the engine dies in the middle of the handshake")
  func replicateEngineGone() async throws {
    let engine = try FakeEngine { _, _ in .end }
    let session = try await Session.connect(to: engine.path, application: "test")
    let (mine, peer) = try Self.socketPair()
    defer { close(peer) }
    switch await session.replicate(Socket(owning: mine), primary: Self.primary, secondary: Self.secondary) {
    case .replicating: Issue.record("a dead engine replicates nothing")
    case .refused(let socket, let error):
      #expect(error == .engineGone)
      #expect(Glibc.write(socket.descriptor, [1 as UInt8], 1) == 1)
      #expect(Self.read(peer) == [1])
    }
  }

  @Test("closes the application's socket before it asks the engine to close its duplicate")
  func closeSocket() async throws {
    let (mine, peer) = try Self.socketPair()
    defer { close(peer) }
    let engine = try FakeEngine { _, _ in
      Self.read(peer).isEmpty ? .reply(.done) : .refusal(.other, "the socket is still open")
    }
    let session = try await Session.connect(to: engine.path, application: "test")
    try await session.close(Socket(owning: mine), handle: Self.primary)
    #expect(engine.requests == [.close(Self.primary)])
  }

  @Test("makes a snoop pair of the two descriptors, rcv first")
  func attach() async throws {
    let (rcv, rcvEngine) = try Self.socketPair()
    let (snd, sndEngine) = try Self.socketPair()
    defer {
      close(rcvEngine)
      close(sndEngine)
    }
    let engine = try FakeEngine { _, _ in .reply(.handle(Self.secondary), descriptors: [rcv, snd]) }
    let session = try await Session.connect(to: engine.path, application: "test")
    let pair = try await session.attach(primary: Self.primary)
    #expect(pair.handle == Self.secondary)
    _ = Glibc.write(rcvEngine, [1 as UInt8], 1)
    _ = Glibc.write(sndEngine, [2 as UInt8], 1)
    #expect(Self.read(pair.rcv.descriptor) == [1])
    #expect(Self.read(pair.snd.descriptor) == [2])
  }

  @Test("merges into the descriptor that the engine sends")
  func merge() async throws {
    let (mine, peer) = try Self.socketPair()
    defer { close(peer) }
    let engine = try FakeEngine { _, _ in .reply(.done, descriptors: [mine]) }
    let session = try await Session.connect(to: engine.path, application: "test")
    let socket = try await session.merge(Self.secondary)
    #expect(Glibc.write(socket.descriptor, [3 as UInt8], 1) == 1)
    #expect(Self.read(peer) == [3])
  }

  // MARK: - Events

  @Test("delivers events in order")
  func events() async throws {
    let engine = try FakeEngine { _, _ in .nothing }
    let session = try await Session.connect(to: engine.path, application: "test")
    let kinds: [ControlEvent.Kind] = [
      .secondaryUp, .replicated(Self.primary), .peerClosed(Self.primary),
      .unreplicated(Self.primary, reason: "prl timeout"), .secondaryDown(reason: "silent"), .mastershipGained,
      .mastershipLost(reason: "switched"), .missed(count: 3),
    ]
    for kind in kinds { try engine.send(Self.event(kind)) }
    engine.end()
    var events: [Event] = []
    for await event in session.events { events.append(event) }
    #expect(
      events == [
        .secondaryUp, .replicated(Self.primary), .peerClosed(Self.primary),
        .unreplicated(Self.primary, reason: "prl timeout"), .secondaryDown, .mastershipGained,
        .mastershipLost,
        .missed(count: 3), .engineGone,
      ])
  }

  @Test("counts the events that a slow reader missed, in their place, and never drops the last")
  func missed() async throws {
    let engine = try FakeEngine { _, _ in .reply(.done) }
    let session = try await Session.connect(to: engine.path, application: "test")
    let limit = 16_384
    for index in 0..<UInt32(limit + 500) {
      try engine.send(Self.event(.replicated(Handle(slot: 0, generation: 0, index: index))))
    }
    // An answer comes behind the events: they are all in the buffer then.
    try await session.free(Self.primary)
    engine.end()
    var count = 0
    var missed: [Event] = []
    for await event in session.events {
      if case .replicated(let handle) = event {
        #expect(Int(handle.index) == count)
        count += 1
      } else {
        missed.append(event)
      }
    }
    #expect(count == limit)
    #expect(missed == [.missed(count: 500), .engineGone])
  }

  @Test("lets a task go that waits for events and is cancelled")
  func cancellation() async throws {
    let engine = try FakeEngine { _, _ in .reply(.done) }
    let session = try await Session.connect(to: engine.path, application: "test")
    let reader = Task {
      for await _ in session.events {}
      return Task.isCancelled
    }
    try await session.free(Self.primary)
    reader.cancel()
    #expect(await reader.value)
  }

  // MARK: - Ends

  @Test("whose engine dies fails every pending call, and every later one")
  func engineGone() async throws {
    let engine = try FakeEngine { _, _ in .nothing }
    let session = try await Session.connect(to: engine.path, application: "test")
    await withTaskGroup(of: Void.self) { group in
      for _ in 0..<50 {
        group.addTask {
          await #expect(throws: JSRError.engineGone) { _ = try await session.allocate() }
        }
      }
      group.addTask {
        while engine.requests.count < 50 { await Task.yield() }
        engine.end()
      }
    }
    await #expect(throws: JSRError.engineGone) { _ = try await session.allocate() }
    var last: Event?
    for await event in session.events { last = event }
    #expect(last == .engineGone)
  }

  @Test("that is closed ends in the same way")
  func closed() async throws {
    let engine = try FakeEngine { _, _ in .nothing }
    let session = try await Session.connect(to: engine.path, application: "test")
    let pending = Task { try await session.allocate() }
    while engine.requests.isEmpty { await Task.yield() }
    session.close()
    await #expect(throws: JSRError.engineGone) { _ = try await pending.value }
    var events: [Event] = []
    for await event in session.events { events.append(event) }
    #expect(events == [.engineGone])
  }

  @Test("with an engine that breaks the protocol ends instead of guessing")
  func garbage() async throws {
    for message in ["{}", "nonsense", #"{"version":1,"id":999,"more":false,"result":{}}"#] {
      let engine = try FakeEngine { _, _ in .messages([Array(message.utf8)]) }
      let session = try await Session.connect(to: engine.path, application: "test")
      await #expect(throws: JSRError.engineGone) { _ = try await session.allocate() }
    }
  }

  @Test("cannot be had where there is no engine")
  func unreachable() async throws {
    let error = await #expect(throws: JSRError.self) {
      _ = try await Session.connect(to: "/nonexistent/jsrd.sock", application: "test")
    }
    #expect(error == .unreachable(path: "/nonexistent/jsrd.sock", reason: "No such file or directory"))
  }

  @Test("cannot be had with an engine that lets nobody in, and says why")
  func refused() async throws {
    let engine = try FakeEngine(introducing: false) { request, _ in
      .refusal(.limit, "the engine has 64 clients already")
    }
    let error = await #expect(throws: JSRError.self) {
      _ = try await Session.connect(to: engine.path, application: "test")
    }
    #expect(error == .refused(.limit, message: "the engine has 64 clients already"))
  }
}

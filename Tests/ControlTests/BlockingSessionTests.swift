import Control
import Glibc
import JSR
import Testing

@Suite("A session for threads that wait", .timeLimit(.minutes(1)))
struct BlockingSessionTests {
  static let primary = SessionTests.primary
  static let secondary = SessionTests.secondary

  static func isReadable(_ descriptor: Int32) -> Bool {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    return poll(&entry, 1, 0) == 1
  }

  /// Waits until something is there to be taken.
  static func next(_ session: BlockingSession) throws -> EventBuffer.Taken {
    var entry = pollfd(fd: try session.eventDescriptor(), events: Int16(POLLIN), revents: 0)
    try #require(poll(&entry, 1, 10_000) == 1, "no event came")
    return session.nextEvent()
  }

  @Test("asks what its calls say, and gives back what is answered")
  func calls() throws {
    let engine = try FakeEngine { request, _ in
      switch request.body {
      case .allocate: .reply(.handle(Self.primary))
      case .status: .reply(.socket(ControlReplyTests.socket(1)))
      case .show: .reply(.status(ControlReplyTests.status))
      default: .reply(.done)
      }
    }
    let session = try BlockingSession(path: engine.path, application: "test")
    defer { session.close() }
    #expect(session.node == "re1" && session.slot == 1 && session.engineVersion == "9.9")
    let (mine, peer) = try SessionTests.socketPair()
    defer { close(peer) }
    #expect(try session.allocate(within: .seconds(10)) == Self.primary)
    try session.replicate(mine, primary: Self.primary, secondary: Self.secondary, within: .seconds(10))
    #expect(try session.role(within: .seconds(10)) == .primary)
    #expect(try session.status(of: Self.primary, within: .seconds(10)).state == .replicating)
    try session.unreplicate(Self.primary, within: .seconds(10))
    try session.free(Self.primary, within: .seconds(10))
    try session.close(Socket(owning: mine), handle: Self.primary, within: .seconds(10))
    #expect(SessionTests.read(peer) == [], "the socket is closed")
    #expect(
      engine.requests == [
        .allocate, .replicate(primary: Self.primary, secondary: Self.secondary), .show(.status),
        .status(Self.primary), .unreplicate(Self.primary), .free(Self.primary), .close(Self.primary),
      ])
  }

  @Test("gives the descriptors of a snoop pair, and of a merged socket")
  func descriptors() throws {
    let engine = try FakeEngine { request, _ in
      var ends: [Int32] = [-1, -1]
      socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends)
      guard case .merge = request.body else { return .reply(.handle(Self.secondary), descriptors: ends) }
      close(ends[1])
      return .reply(.done, descriptors: [ends[0]])
    }
    let session = try BlockingSession(path: engine.path, application: "test")
    defer { session.close() }
    let pair = try session.attach(primary: Self.primary, within: .seconds(10))
    #expect(pair.handle == Self.secondary)
    #expect(Glibc.write(pair.rcv.descriptor, [7 as UInt8], 1) == 1)
    #expect(SessionTests.read(pair.snd.descriptor) == [7], "rcv and snd are the two ends of one pair here")
    let live = try session.merge(Self.secondary, within: .seconds(10))
    #expect(SessionTests.read(live.descriptor) == [], "the other end is closed")
  }

  @Test("throws the engine's refusal")
  func refusal() throws {
    let engine = try FakeEngine { _, _ in .refusal(.notPrimary, "re1 is secondary") }
    let session = try BlockingSession(path: engine.path, application: "test")
    defer { session.close() }
    #expect(throws: CallFailure.failed(.refused(.notPrimary, message: "re1 is secondary"))) {
      _ = try session.allocate(within: .seconds(10))
    }
  }

  @Test("ends when the engine does not answer in time, so that nobody else owns what was lent")
  func timeout() throws {
    let engine = try FakeEngine { _, _ in .nothing }
    let session = try BlockingSession(path: engine.path, application: "test")
    defer { session.close() }
    let (mine, peer) = try SessionTests.socketPair()
    defer {
      close(mine)
      close(peer)
    }
    let clock = ContinuousClock()
    let start = clock.now
    #expect(throws: CallFailure.timedOut) {
      try session.replicate(
        mine, primary: Self.primary, secondary: Self.secondary, within: .milliseconds(200))
    }
    #expect(clock.now - start >= .milliseconds(200))
    #expect(Glibc.write(mine, [1 as UInt8], 1) == 1)
    #expect(throws: CallFailure.failed(.engineGone)) { _ = try session.allocate(within: .seconds(10)) }
    #expect(try Self.next(session) == .event(.engineGone))
    #expect(session.nextEvent() == .ended)
  }

  @Test("has a descriptor that is readable as long as there are events, and for ever after the last")
  func eventDescriptor() throws {
    let engine = try FakeEngine { _, _ in .reply(.done) }
    let session = try BlockingSession(path: engine.path, application: "test")
    defer { session.close() }
    let descriptor = try session.eventDescriptor()
    #expect(try session.eventDescriptor() == descriptor)
    #expect(!Self.isReadable(descriptor))
    #expect(session.nextEvent() == .nothingYet)

    for kind in [.secondaryUp, .mastershipGained] as [ControlEvent.Kind] {
      try engine.send(SessionTests.event(kind))
    }
    // The answer comes behind the events.
    try session.free(Self.primary, within: .seconds(10))
    #expect(Self.isReadable(descriptor))
    #expect(session.nextEvent() == .event(.secondaryUp))
    #expect(Self.isReadable(descriptor), "there is one more")
    #expect(session.nextEvent() == .event(.mastershipGained))
    #expect(!Self.isReadable(descriptor))
    #expect(session.nextEvent() == .nothingYet)

    engine.end()
    #expect(try Self.next(session) == .event(.engineGone))
    #expect(Self.isReadable(descriptor))
    #expect(session.nextEvent() == .ended)
    #expect(Self.isReadable(descriptor))
  }

  @Test("whose descriptor is asked for late shows what came before")
  func lateDescriptor() throws {
    let engine = try FakeEngine { _, _ in .reply(.done) }
    let session = try BlockingSession(path: engine.path, application: "test")
    defer { session.close() }
    try engine.send(SessionTests.event(.secondaryUp))
    try session.free(Self.primary, within: .seconds(10))
    #expect(Self.isReadable(try session.eventDescriptor()))
  }

  @Test("answers many threads at once, each with its own answer")
  func threads() async throws {
    let engine = try FakeEngine { request, _ in
      guard case .attach(let handle, _) = request.body else { return .nothing }
      var ends: [Int32] = [-1, -1]
      socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends)
      return .reply(.handle(Handle(slot: 1, generation: 0, index: handle.index)), descriptors: ends)
    }
    let session = try BlockingSession(path: engine.path, application: "test")
    defer { session.close() }
    await withTaskGroup(of: Void.self) { group in
      for thread in 0..<4 as Range<UInt32> {
        group.addTask {
          for number in 0..<100 as Range<UInt32> {
            let index = thread * 1000 + number
            let handle = try? session.attach(
              primary: Handle(slot: 0, generation: 0, index: index), within: .seconds(10)
            ).handle
            #expect(handle?.index == index)
          }
        }
      }
    }
  }

  @Test("cannot be had where there is no engine, and says which errno value that is")
  func unreachable() throws {
    let failure = try #require(throws: BlockingSession.ConnectFailure.self) {
      _ = try BlockingSession(path: "/nonexistent/jsrd.sock", application: "test")
    }
    #expect(failure.code == ENOENT)
    #expect(
      failure.error == .unreachable(path: "/nonexistent/jsrd.sock", reason: "No such file or directory"))
  }
}

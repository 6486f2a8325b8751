import CLinux
import Control
import Descriptors
import Foundation
import Glibc
import JSR
import Synchronization
import Testing

/// TESTPLAN 4.1, as far as the library keeps it: a connected TCP socket on the loopback device, with unread bytes
/// and room to write, that a fake engine has for as long as the test likes.
@Suite("4.1 A descriptor whose socket is being replicated", .serialized, .timeLimit(.minutes(1)))
struct StandInTests {
  /// Both ends of a connection, and the handshake that is held open.
  final class Handshake: Sendable {
    let own: Int32
    let peer: Int32
    private let engine: FakeEngine
    private let gate: DispatchSemaphore
    private let task: Task<JSRError?, any Error>

    /// - Parameters:
    ///   - unread: what the peer has sent before.
    ///   - isRefused: how the handshake is going to end.
    ///   - before: what the program does with its descriptor before.
    init(unread: String, isRefused: Bool = false, before: (Int32) throws -> Void = { _ in }) async throws {
      (own, peer) = try Self.connection()
      try Self.write(unread, to: peer)
      try before(own)
      let gate = DispatchSemaphore(value: 0)
      let began = DispatchSemaphore(value: 0)
      self.gate = gate
      engine = try FakeEngine { _, descriptors in
        // The engine has got the socket itself.
        guard descriptors.count == 1, jsr_queued_unread(descriptors[0]) == unread.utf8.count else {
          return .refusal(.descriptors, "not the socket")
        }
        began.signal()
        gate.wait()
        return isRefused ? .refusal(.noSecondary, "there is no secondary") : .reply(.done)
      }
      let session = try await Session.connect(to: engine.path, application: "test")
      let number = own
      task = Task {
        do throws(JSRError) {
          try await session.replicate(
            descriptor: number, primary: SessionTests.primary, secondary: SessionTests.secondary)
          return nil
        } catch { return error }
      }
      await Self.wait(for: began)
    }

    deinit {
      gate.signal()
      close(own)
      close(peer)
    }

    /// Lets it come to its end, and tells what that was.
    func end() async throws -> JSRError? {
      gate.signal()
      return try await task.value
    }

    private static func wait(for semaphore: DispatchSemaphore) async {
      await withCheckedContinuation { continuation in
        Thread.detachNewThread {
          semaphore.wait()
          continuation.resume()
        }
      }
    }

    static func write(_ text: String, to descriptor: Int32) throws {
      try #require(Glibc.write(descriptor, text, text.utf8.count) == text.utf8.count)
      // Loopback delivers before write(2) returns, mostly.
      usleep(20_000)
    }

    private static func connection() throws -> (Int32, Int32) {
      let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
      let listener = try OwnedDescriptor(returnedBy: "socket", socket(AF_INET, type, 0))
      var address = sockaddr_in()
      address.sin_family = sa_family_t(AF_INET)
      address.sin_addr.s_addr = inet_addr("127.0.0.1")
      var length = socklen_t(MemoryLayout<sockaddr_in>.size)
      let peer = try OwnedDescriptor(returnedBy: "socket", socket(AF_INET, type, 0))
      try withUnsafeMutableBytes(of: &address) { bytes in
        let pointer = bytes.baseAddress!.assumingMemoryBound(to: sockaddr.self)
        try #require(bind(listener.rawValue, pointer, length) == 0)
        try #require(listen(listener.rawValue, 1) == 0)
        try #require(getsockname(listener.rawValue, pointer, &length) == 0)
        try #require(connect(peer.rawValue, pointer, length) == 0)
      }
      let own = try OwnedDescriptor(returnedBy: "accept", accept(listener.rawValue, nil, nil))
      return (own.release(), peer.release())
    }
  }

  /// A call that may have to wait, on a thread of its own, which blocks no signal: threads of Dispatch do, and
  /// hand that down to those that they start.
  final class Call: Sendable {
    private let outcome = Mutex<(result: Int, code: Int32)?>(nil)

    init(_ body: @escaping @Sendable () -> Int) {
      Thread.detachNewThread { [self] in
        var none = sigset_t()
        sigemptyset(&none)
        pthread_sigmask(SIG_SETMASK, &none, nil)
        errno = 0
        let result = body()
        let code = errno
        outcome.withLock { $0 = (result, code) }
      }
    }

    var isOver: Bool { outcome.withLock { $0 != nil } }

    /// What it returned, or -1 and the error, waited for up to 5 seconds.
    func result() async throws -> (Int, Int32) {
      for _ in 0..<500 {
        if let outcome = outcome.withLock(\.self) { return outcome }
        try await Task.sleep(for: .milliseconds(10))
      }
      throw NotOver()
    }

    struct NotOver: Error, CustomStringConvertible { let description = "the call still waits" }
  }

  static func poll(_ descriptor: Int32, _ events: Int32, within milliseconds: Int32) -> Int {
    var watched = pollfd(fd: descriptor, events: Int16(events), revents: 0)
    let count = Glibc.poll(&watched, 1, milliseconds)
    return count < 0 ? -1 : Int(watched.revents)
  }

  static func select(_ descriptor: Int32, forReading: Bool, seconds: Int) -> Int {
    var set = fd_set()
    withUnsafeMutableBytes(of: &set) { $0[Int(descriptor) / 8] |= 1 << UInt8(descriptor % 8) }
    var time = timeval(tv_sec: seconds, tv_usec: 0)
    return Int(
      forReading
        ? Glibc.select(descriptor + 1, &set, nil, nil, &time)
        : Glibc.select(descriptor + 1, nil, &set, nil, &time))
  }

  static func epoll(_ instance: Int32, within milliseconds: Int32) -> (
    count: Int, events: UInt32, data: UInt64
  ) {
    var event = epoll_event()
    let count = epoll_wait(instance, &event, 1, milliseconds)
    return (Int(count), event.events, event.data.u64)
  }

  static func register(_ descriptor: Int32, in instance: Int32, events: UInt32, data: UInt64) throws {
    var event = epoll_event(events: events, data: epoll_data_t(u64: data))
    try #require(epoll_ctl(instance, EPOLL_CTL_ADD, descriptor, &event) == 0)
  }

  @Test("is ready for nothing, and then for what the socket is ready for", arguments: [false, true])
  func readiness(isRefused: Bool) async throws {
    let handshake = try await Handshake(unread: "before", isRefused: isRefused)
    let number = handshake.own
    #expect(Self.poll(number, POLLIN | POLLOUT, within: 0) == 0)
    #expect(Self.select(number, forReading: true, seconds: 0) == 0)
    #expect(Self.select(number, forReading: false, seconds: 0) == 0)
    let flags = Int32(MSG_DONTWAIT)
    var byte: UInt8 = 0
    #expect(recv(number, &byte, 1, flags) == -1 && errno == EWOULDBLOCK)
    #expect(send(number, &byte, 1, flags) == -1 && errno == EWOULDBLOCK)

    let outcome = try await handshake.end()
    #expect(outcome == (isRefused ? .refused(.noSecondary, message: "there is no secondary") : nil))
    #expect(Self.poll(number, POLLIN | POLLOUT, within: 0) == Int(POLLIN | POLLOUT))
    #expect(SessionTests.read(number) == Array("before".utf8))
    try Handshake.write("after", to: number)
    #expect(SessionTests.read(handshake.peer) == Array("after".utf8))
  }

  @Test("keeps its ways: flags and timeouts hold for the time of the handshake, too")
  func ways() async throws {
    let handshake = try await Handshake(unread: "x") { number in
      var time = timeval(tv_sec: 0, tv_usec: 100_000)
      try #require(
        setsockopt(number, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size)) == 0)
      try #require(fcntl(number, F_SETFD, FD_CLOEXEC) == 0)
    }
    let call = Call { [number = handshake.own] in
      var byte: UInt8 = 0
      return read(number, &byte, 1)
    }
    #expect(fcntl(handshake.own, F_GETFD) == FD_CLOEXEC)
    let (result, code) = try await call.result()
    #expect(result == -1 && code == EWOULDBLOCK)
    #expect(try await handshake.end() == nil)
    #expect(fcntl(handshake.own, F_GETFD) == FD_CLOEXEC)

    let other = try await Handshake(unread: "x") { number in
      try #require(fcntl(number, F_SETFL, O_NONBLOCK) == 0)
    }
    var byte: UInt8 = 0
    #expect(read(other.own, &byte, 1) == -1 && errno == EWOULDBLOCK)
    #expect(write(other.own, &byte, 1) == -1 && errno == EWOULDBLOCK)
    #expect(try await other.end() == nil)
  }

  @Test("lets calls wait that may, and go on with the socket")
  func waitingCalls() async throws {
    let handshake = try await Handshake(unread: "before")
    let number = handshake.own
    let calls = [
      "read": Call {
        var bytes = [UInt8](repeating: 0, count: 100)
        let count = read(number, &bytes, 100)
        return bytes.prefix(6).elementsEqual("before".utf8) ? count : -2
      },
      "write": Call { write(number, "answer", 6) },
      "poll for writing": Call { Self.poll(number, POLLOUT, within: 10_000) },
      "select for writing": Call { Self.select(number, forReading: false, seconds: 10) },
    ]
    try await Task.sleep(for: .milliseconds(300))
    for (name, call) in calls { #expect(!call.isOver, "\(name) did not wait") }

    #expect(try await handshake.end() == nil)
    let expected = [
      "read": 6, "write": 6, "poll for writing": Int(POLLOUT), "select for writing": 1,
    ]
    for (name, call) in calls {
      let (result, code) = try await call.result()
      #expect(result == expected[name], "\(name): \(SystemError("call", code: code))")
    }
    #expect(SessionTests.read(handshake.peer) == Array("answer".utf8))
  }

  @Test("tells calls that wait for bytes when the socket has some, and not before")
  func lateBytes() async throws {
    let handshake = try await Handshake(unread: "")
    let number = handshake.own
    let calls = [
      Call { Self.poll(number, POLLIN, within: 10_000) },
      Call { Self.select(number, forReading: true, seconds: 10) },
    ]
    try await Task.sleep(for: .milliseconds(100))
    #expect(try await handshake.end() == nil)
    try await Task.sleep(for: .milliseconds(300))
    for call in calls { #expect(!call.isOver, "there is nothing to read yet") }
    try Handshake.write("late", to: handshake.peer)
    #expect(try await calls[0].result().0 == Int(POLLIN))
    #expect(try await calls[1].result().0 == 1)
    #expect(SessionTests.read(number) == Array("late".utf8))
  }

  @Test("stays registered in epoll instances as it was, silent for the time of the handshake")
  func epoll() async throws {
    let before = try OwnedDescriptor(returnedBy: "epoll_create1", epoll_create1(Int32(EPOLL_CLOEXEC)))
    let meanwhile = try OwnedDescriptor(returnedBy: "epoll_create1", epoll_create1(Int32(EPOLL_CLOEXEC)))
    let both = EPOLLIN.rawValue | EPOLLOUT.rawValue
    let handshake = try await Handshake(unread: "before") { [instance = before.rawValue] number in
      try Self.register(number, in: instance, events: both, data: 0xfeed_0000_0000_0001)
    }
    let number = handshake.own
    try Self.register(
      number, in: meanwhile.rawValue, events: EPOLLIN.rawValue | EPOLLET.rawValue, data: 2)
    #expect(Self.epoll(before.rawValue, within: 0).count == 0)
    #expect(Self.epoll(meanwhile.rawValue, within: 0).count == 0)
    // What the program changes meanwhile holds afterwards.
    var event = epoll_event(
      events: EPOLLOUT.rawValue, data: epoll_data_t(u64: 0xfeed_0000_0000_0003))
    #expect(epoll_ctl(before.rawValue, EPOLL_CTL_MOD, number, &event) == 0)
    let call = Call { [instance = before.rawValue] in Self.epoll(instance, within: 10_000).count }
    try await Task.sleep(for: .milliseconds(100))
    #expect(!call.isOver)

    #expect(try await handshake.end() == nil)
    #expect(try await call.result().0 == 1)
    #expect(Self.epoll(before.rawValue, within: 0) == (1, EPOLLOUT.rawValue, 0xfeed_0000_0000_0003))
    #expect(Self.epoll(meanwhile.rawValue, within: 0) == (1, EPOLLIN.rawValue, 2))
    // Edge-triggered as before.
    #expect(Self.epoll(meanwhile.rawValue, within: 0).count == 0)
    try Handshake.write("more", to: handshake.peer)
    #expect(Self.epoll(meanwhile.rawValue, within: 0).count == 1)
    #expect(epoll_ctl(before.rawValue, EPOLL_CTL_DEL, number, nil) == 0)
  }

  @Test("leaves nothing behind: no descriptor, no thread, and the peer sees the end when it is closed")
  func nothingLeft() async throws {
    func count(_ path: String) throws -> Int {
      try FileManager.default.contentsOfDirectory(atPath: path).count
    }
    func threads() throws -> Int {
      try FileManager.default.contentsOfDirectory(atPath: "/proc/self/task").count {
        (try? String(contentsOfFile: "/proc/self/task/\($0)/comm", encoding: .utf8)) == "jsr-stand-in\n"
      }
    }
    var descriptors = 0
    for round in 0..<20 {
      let handshake = try await Handshake(unread: "xy")
      let number = handshake.own
      let call = Call { Self.poll(number, POLLIN, within: 10_000) }
      let reader = Call {
        var byte: UInt8 = 0
        return recv(number, &byte, 1, 0)
      }
      #expect(try await handshake.end() == nil)
      _ = try await (call.result(), reader.result())
      #expect(shutdown(number, Int32(SHUT_WR)) == 0)
      #expect(SessionTests.read(handshake.peer) == [])
      if round == 4 { descriptors = try count("/proc/self/fd") }
    }
    for _ in 0..<500 where try threads() > 0 { try await Task.sleep(for: .milliseconds(10)) }
    #expect(try threads() == 0)
    for _ in 0..<500 where try count("/proc/self/fd") > descriptors {
      try await Task.sleep(for: .milliseconds(10))
    }
    #expect(try count("/proc/self/fd") <= descriptors)
  }

  @Test("is refused if it is no socket, or not open")
  func notASocket() async throws {
    let engine = try FakeEngine { _, _ in .reply(.done) }
    let session = try await Session.connect(to: engine.path, application: "test")
    let file = try OwnedDescriptor(returnedBy: "open", open("/dev/null", O_RDONLY | O_CLOEXEC))
    for (number, says) in [(file.rawValue, "Socket operation on non-socket"), (-1, "Bad file descriptor")] {
      let error = await #expect(throws: JSRError.self) {
        try await session.replicate(
          descriptor: number, primary: SessionTests.primary, secondary: SessionTests.secondary)
      }
      guard case .refused(.unsuitableSocket, let message) = error else {
        Issue.record("\(String(describing: error)) was thrown")
        continue
      }
      #expect(message.contains("\(number)") && message.contains(says), "says: \(message)")
    }
    #expect(engine.requests == [])
  }
}

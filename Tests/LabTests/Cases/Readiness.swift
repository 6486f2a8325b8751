import CLinux
import Descriptors
import Glibc
import JSR
import Testing

extension LabSuite {
  /// TESTPLAN 4.1. What the compiler refuses is no matter of the lab; this is about programs that use the number of
  /// a descriptor.
  @Suite("readiness during the handshake")
  struct Readiness {
    private static let fromPeer = BytePattern(seed: 1)
    private static let fromServer = BytePattern(seed: 2)

    private static func poll(_ descriptor: Int32, _ events: Int32, within milliseconds: Int32) -> Int {
      var watched = pollfd(fd: descriptor, events: Int16(events), revents: 0)
      let count = Glibc.poll(&watched, 1, milliseconds)
      return count < 0 ? -1 : Int(watched.revents)
    }

    private static func select(_ descriptor: Int32, forReading: Bool, seconds: Int) -> Int {
      var set = fd_set()
      withUnsafeMutableBytes(of: &set) { $0[Int(descriptor) / 8] |= 1 << UInt8(descriptor % 8) }
      var time = timeval(tv_sec: seconds, tv_usec: 0)
      return Int(
        forReading
          ? Glibc.select(descriptor + 1, &set, nil, nil, &time)
          : Glibc.select(descriptor + 1, nil, &set, nil, &time))
    }

    private static func epoll(_ instance: Int32, within milliseconds: Int32) -> UInt32? {
      var event = epoll_event()
      return epoll_wait(instance, &event, 1, milliseconds) == 1 ? event.events : nil
    }

    /// An epoll instance that waits for both directions of `descriptor`.
    private static func epoll(for descriptor: Int32) throws -> OwnedDescriptor {
      let instance = try OwnedDescriptor(returnedBy: "epoll_create1", epoll_create1(Int32(EPOLL_CLOEXEC)))
      var event = epoll_event(
        events: EPOLLIN.rawValue | EPOLLOUT.rawValue, data: epoll_data_t(u64: 7))
      guard epoll_ctl(instance.rawValue, EPOLL_CTL_ADD, descriptor, &event) == 0 else {
        throw SystemError("epoll_ctl")
      }
      return instance
    }

    @Test(
      "4.1 not ready during the handshake", .timeLimit(.minutes(1)), arguments: [Node.re1, .re0])
    func notReady(holder: Node) async throws {
      try await Lab.run("4.1-\(holder)") { lab in
        var configuration = EngineConfiguration()
        configuration.debug = true
        let pair = try await EnginePair(withoutServersIn: lab, configuration: configuration)
        let primary = try await Session.connect(to: lab.controlSocket(of: .re0), application: "primary")
        let secondary = try await Session.connect(to: lab.controlSocket(of: .re1), application: "secondary")
        for layer in ["PRL", "SDRL", "PSRM"] {
          try await LayerWatch(layer: layer).setTimeout("60s", on: pair.re0)
        }

        // A socket with bytes to read and room to write: ready for everything.
        let listening = try await ListeningSocket(on: .re0, in: lab, sendBuffer: 256 << 10)
        let peer = try await StreamEnd(
          connectedFrom: .peer, in: lab, receiveBuffer: 64 << 10, family: holder == .re0 ? .v6 : .v4)
        let server = try await listening.accept()
        try await peer.write(Self.fromPeer.bytes(from: 0, count: 100))
        try await eventually(within: .seconds(5), "the peer's bytes are there") { server.unread == 100 }
        let socket = server.release()
        let number = socket.descriptor
        let flags = fcntl(number, F_GETFL)
        try #require(flags >= 0 && fcntl(number, F_SETFL, flags & ~O_NONBLOCK) == 0)
        let before = try Self.epoll(for: number)
        #expect(Self.poll(number, POLLIN | POLLOUT, within: 0) == Int(POLLIN | POLLOUT))
        #expect(Self.epoll(before.rawValue, within: 0) != nil)

        let name = try await primary.allocate()
        let snoop = try await secondary.attach(primary: name)
        let handle = snoop.handle
        let rcv = try StreamEnd(snoop.rcv)
        let snd = try StreamEnd(snoop.snd)
        let hold = LayerWatch(layer: "PSRM")
        let engine = holder == .re0 ? pair.re0 : pair.re1
        try await hold.holdAcknowledgements(true, on: engine)
        let handshake = Task {
          try await primary.replicate(descriptor: number, primary: name, secondary: handle)
        }
        try await eventually(within: .seconds(5), "the handshake is under way") {
          try await primary.status(of: name).state == .starting
        }

        let meanwhile = try Self.epoll(for: number)
        let calls = [
          "read": WaitingCall {
            var bytes = [UInt8](repeating: 0, count: 100)
            let count = read(number, &bytes, 100)
            return Self.fromPeer.firstDifference(bytes, from: 0) == nil ? count : -2
          },
          "write": WaitingCall { write(number, Self.fromServer.bytes(from: 0, count: 50), 50) },
          "poll": WaitingCall { Self.poll(number, POLLOUT, within: 20_000) },
          "select": WaitingCall { Self.select(number, forReading: false, seconds: 20) },
          "epoll": WaitingCall {
            [instance = before.rawValue] in Self.epoll(instance, within: 20_000) == nil ? 0 : 1
          },
        ]
        // Long enough for whatever would end the handshake to have done so.
        let clock = ContinuousClock()
        let end = clock.now + .seconds(2)
        while clock.now < end {
          #expect(Self.poll(number, POLLIN | POLLOUT, within: 0) == 0)
          #expect(Self.select(number, forReading: true, seconds: 0) == 0)
          #expect(Self.select(number, forReading: false, seconds: 0) == 0)
          #expect(Self.epoll(before.rawValue, within: 0) == nil)
          #expect(Self.epoll(meanwhile.rawValue, within: 0) == nil)
          var byte: UInt8 = 0
          #expect(recv(number, &byte, 1, Int32(MSG_DONTWAIT)) == -1 && errno == EWOULDBLOCK)
          #expect(send(number, &byte, 1, Int32(MSG_DONTWAIT)) == -1 && errno == EWOULDBLOCK)
          for (name, call) in calls { #expect(!call.isOver, "\(name) did not wait") }
          try await Task.sleep(for: .milliseconds(100))
        }
        #expect(try await primary.status(of: name).state == .starting)
        #expect(try peer.isIdle())

        try await hold.holdAcknowledgements(false, on: engine)
        try await handshake.value
        let expected = ["read": 100, "write": 50, "poll": Int(POLLOUT), "select": 1, "epoll": 1]
        for (name, call) in calls {
          let (result, code) = try await call.result()
          #expect(result == expected[name], "\(name): \(result), \(SystemError("call", code: code))")
        }
        #expect(Self.epoll(meanwhile.rawValue, within: 0) == EPOLLOUT.rawValue)
        #expect(try await primary.status(of: name).state == .replicating)

        // Nothing was lost or came twice, here and there.
        let replicated = try StreamEnd(socket)
        #expect(Self.fromServer.firstDifference(try await peer.read(50), from: 0) == nil)
        try await peer.write(Self.fromPeer.bytes(from: 100, count: 1000))
        #expect(Self.fromPeer.firstDifference(try await replicated.read(1000), from: 100) == nil)
        #expect(Self.fromPeer.firstDifference(try await rcv.read(1100), from: 0) == nil)
        #expect(Self.fromServer.firstDifference(try await snd.read(50), from: 0) == nil)
        #expect(try rcv.isIdle() && snd.isIdle() && peer.isIdle())
        primary.close()
        secondary.close()
      }
    }
  }
}

import CLinux
import Control
import Descriptors
import Glibc
import JSR
import Testing

extension LabSuite {
  /// What comes in on the control socket and is wrong gets an answer that names it, and costs nobody else anything.
  @Suite("bad input")
  struct BadInput {
    /// Messages that are no requests, and what they are answered with.
    private static let messages: [(text: String, code: RefusalCode, says: String)] = [
      ("nonsense", .malformed, "not a JSON document"),
      ("{", .malformed, "not a JSON document"),
      ("[]", .malformed, "not a JSON object"),
      (#"{"version":1}"#, .malformed, "\"id\" is missing"),
      (#"{"id":1,"request":"allocate"}"#, .malformed, "\"version\" is missing"),
      (#"{"version":2,"id":1,"request":"allocate"}"#, .version, "version 2"),
      (#"{"version":"1","id":1,"request":"allocate"}"#, .malformed, "\"version\""),
      (#"{"version":1,"id":1,"request":"fly"}"#, .malformed, "there is no request \"fly\""),
      (#"{"version":1,"id":1,"request":"free"}"#, .malformed, "\"handle\" is missing"),
      (#"{"version":1,"id":1,"request":"free","handle":7}"#, .malformed, "\"handle\""),
      (#"{"version":1,"id":1,"request":"free","handle":"0xg"}"#, .malformed, "\"handle\""),
      (#"{"version":1,"id":1,"request":"show","report":"all"}"#, .malformed, "there is no report \"all\""),
      (
        #"{"version":1,"id":1,"request":"subscribe","scope":"none"}"#, .malformed,
        "there is no scope \"none\""
      ),
      (#"{"version":1,"id":1,"request":"get","name":"colour"}"#, .unknownSetting, "colour"),
    ]

    /// A client that has said hello.
    private func client(_ lab: Lab) throws -> ControlSocket {
      let socket = try ControlSocket(connectingTo: lab.controlSocket(of: .re0))
      let hello = ControlRequest.Body.hello(application: "wrong", protocolVersion: 1)
      try socket.send(ControlRequest(id: 1, body: hello).message(), waiting: true)
      _ = try Self.answer(on: socket)
      return socket
    }

    private static func answer(on socket: borrowing ControlSocket) throws -> ControlReply {
      var timeout = timeval(tv_sec: 10, tv_usec: 0)
      setsockopt(socket.descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
      let bytes = try socket.receive(waiting: true).bytes
      guard case .reply(let reply) = try EngineMessage(reading: bytes) else {
        throw LabFailure("an event came in place of an answer")
      }
      return reply
    }

    private static func refusal(_ reply: ControlReply) throws -> ControlError {
      guard case .failure(let error) = reply.outcome else { throw LabFailure("not refused: \(reply)") }
      return error
    }

    @Test("messages that are no requests are answered, and nothing else is lost", .timeLimit(.minutes(1)))
    func messages() async throws {
      try await Lab.run("bad-messages") { lab in
        let pair = try await EnginePair(in: lab)
        let traffic = try await WatchedTraffic(pair, connections: 2, ["-m", "0", "-w", "5", "--quiet"])
        func check() throws {
          let socket = try client(lab)
          for (text, code, says) in Self.messages {
            try socket.send(Array(text.utf8), waiting: true)
            let error = try Self.refusal(try Self.answer(on: socket))
            #expect(error.code == code, "\(text): \(error)")
            #expect(error.message.contains(says), "\(text): \(error)")
          }
          let long = [UInt8](repeating: UInt8(ascii: " "), count: ControlProtocol.messageLimit + 1)
          try #require(
            jsr_send_with_descriptors(socket.descriptor, long, long.count, [], 0, Int32(MSG_NOSIGNAL)) > 0)
          let error = try Self.refusal(try Self.answer(on: socket))
          #expect(error.code == .oversized && error.message.contains("65536"), "\(error)")
          // The same client goes on.
          try socket.send(ControlRequest(id: 9, body: .show(.status)).message(), waiting: true)
          #expect(try Self.answer(on: socket).id == 9)
        }
        try check()
        // Whoever has not said hello is told so; who says it in another version, too.
        let stranger = try ControlSocket(connectingTo: lab.controlSocket(of: .re0))
        try stranger.send(ControlRequest(id: 1, body: .allocate).message(), waiting: true)
        #expect(try Self.refusal(try Self.answer(on: stranger)).code == .notIntroduced)
        let hello = ControlRequest.Body.hello(application: "later", protocolVersion: 2)
        try stranger.send(ControlRequest(id: 2, body: hello).message(), waiting: true)
        let error = try Self.refusal(try Self.answer(on: stranger))
        #expect(error.code == .version && error.message.contains("version 2"), "\(error)")
        try await traffic.waitUntilFlowing()
        #expect(try await pair.re0.sockets().count { $0.state == "replicating" } == 2)
        try await traffic.stop(living: [pair.re1])
      }
    }

    /// A descriptor that cannot be replicated.
    private struct Unsuitable: Sendable {
      let kind: String
      let descriptor: Int32
      let says: String
    }

    private static func make(_ family: Int32, _ type: __socket_type, _ number: Int32 = 0) throws -> Int32 {
      let type = Int32(type.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
      return try OwnedDescriptor(returnedBy: "socket", socket(family, type, number)).release()
    }

    private static func call(
      _ function: (Int32, UnsafePointer<sockaddr>, socklen_t) -> Int32, _ socket: Int32, _ host: String,
      _ port: UInt16
    ) throws {
      var address = sockaddr_in()
      address.sin_family = sa_family_t(AF_INET)
      address.sin_port = port.bigEndian
      address.sin_addr.s_addr = inet_addr(host)
      let result = withUnsafeBytes(of: &address) {
        function(socket, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t($0.count))
      }
      guard result == 0 || errno == EINPROGRESS else { throw SystemError("bind or connect", on: host) }
    }

    /// Both ends of a connection of `host` with itself.
    private static func connection(_ host: String, _ port: UInt16) throws -> (Int32, Int32) {
      let listener = try make(AF_INET, SOCK_STREAM)
      defer { close(listener) }
      try call(bind, listener, host, port)
      guard listen(listener, 1) == 0 else { throw SystemError("listen") }
      let client = try make(AF_INET, SOCK_STREAM)
      try call(connect, client, host, port)
      return (client, try OwnedDescriptor(returnedBy: "accept", accept(listener, nil, nil)).release())
    }

    private func unsuitable(_ lab: Lab) async throws -> [Unsuitable] {
      var all = try await lab.inside(.re0) { () throws -> [Unsuitable] in
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw SystemError("pipe") }
        close(ends[1])
        let listening = try Self.make(AF_INET, SOCK_STREAM)
        guard listen(listening, 1) == 0 else { throw SystemError("listen") }
        let connecting = try Self.make(AF_INET, SOCK_STREAM)
        // Nobody has this address.
        try Self.call(connect, connecting, "5.5.5.77", 1)
        let (here, there) = try Self.connection("10.77.0.1", 16_005)
        close(there)
        let (other, end) = try Self.connection("10.77.0.1", 16_006)
        let (bound, boundEnd) = try Self.connection("5.5.5.5", 16_008)
        guard setsockopt(bound, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3) == 0 else {
          throw SystemError("setsockopt(SO_BINDTODEVICE)")
        }
        var all = [
          Unsuitable(kind: "a file", descriptor: open("/dev/null", O_RDWR | O_CLOEXEC), says: "not a socket"),
          Unsuitable(kind: "a pipe", descriptor: ends[0], says: "not a socket"),
          Unsuitable(
            kind: "a Unix socket", descriptor: try Self.make(AF_UNIX, SOCK_STREAM), says: "address family 1"),
          Unsuitable(
            kind: "a UDP socket", descriptor: try Self.make(AF_INET, SOCK_DGRAM), says: "no local address yet"
          ),
          Unsuitable(
            kind: "an unconnected socket", descriptor: try Self.make(AF_INET, SOCK_STREAM),
            says: "not connected"),
          Unsuitable(kind: "a listening socket", descriptor: listening, says: "a listening socket"),
          Unsuitable(kind: "a connecting socket", descriptor: connecting, says: "not established yet"),
          Unsuitable(
            kind: "a socket of an address that stays", descriptor: other,
            says: "local address 10.77.0.1 is not a replicated one"),
        ]
        close(here)
        // Its own end is closed with the case.
        all.append(
          Unsuitable(kind: "a socket of an interface", descriptor: bound, says: "the socket is bound to lo"))
        close(boundEnd)
        all.append(
          Unsuitable(kind: "its other end", descriptor: end, says: "10.77.0.1 is not a replicated one"))
        let multipath = socket(
          AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), JSR_IPPROTO_MPTCP)
        if multipath >= 0 {
          all.append(Unsuitable(kind: "an MPTCP socket", descriptor: multipath, says: "MPTCP"))
        } else {
          print("bad input: this kernel has no MPTCP")
        }
        return all
      }
      // The same address as the replicated one, elsewhere.
      try await lab.run(["ip", "address", "add", "5.5.5.5/32", "dev", "lo"], on: .switch)
      all += try await lab.inside(.switch) { () throws -> [Unsuitable] in
        let (own, other) = try Self.connection("5.5.5.5", 16_007)
        return [own, other].map {
          Unsuitable(
            kind: "a socket of another network namespace", descriptor: $0, says: "another network namespace")
        }
      }
      all.append(
        Unsuitable(
          kind: "a socket whose peer has a link-local address", descriptor: try await Self.linkLocal(lab),
          says: "fe80::4 is valid on one link only"))
      return all
    }

    /// A connection of the replicated address with a peer that comes from fe80::4; the peer's end stays open.
    private static func linkLocal(_ lab: Lab) async throws -> Int32 {
      try await lab.run(["ip", "address", "add", "fe80::4/64", "dev", "eth0", "nodad"], on: .peer)
      let port: UInt16 = 16_008
      let listening = try await ListeningSocket(on: .re0, in: lab, sendBuffer: 64 << 10, port: port)
      _ = try await lab.inside(.peer) {
        let socket = try make(AF_INET6, SOCK_STREAM)
        var own = sockaddr_in6()
        own.sin6_family = sa_family_t(AF_INET6)
        inet_pton(AF_INET6, "fe80::4", &own.sin6_addr)
        own.sin6_scope_id = if_nametoindex("eth0")
        let bound = withUnsafeBytes(of: &own) {
          bind(socket, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t($0.count))
        }
        guard bound == 0 else { throw SystemError("bind", on: "fe80::4") }
        let result = try Family.v6.withAddress(Family.v6.replicated, port) { connect(socket, $0, $1) }
        guard result == 0 || errno == EINPROGRESS else { throw SystemError("connect") }
        return socket
      }
      return try await listening.accept().release().release()
    }

    /// Too few descriptors for a request, and too many.
    private func offerWrongCounts(_ lab: Lab, _ primary: Handle, _ secondary: Handle) throws {
      let raw = try client(lab)
      let request = ControlRequest(id: 5, body: .replicate(primary: primary, secondary: secondary))
      for descriptors in [[], [0, 0], [0, 0, 0]] as [[Int32]] {
        let bytes = try request.message()
        try #require(
          jsr_send_with_descriptors(
            raw.descriptor, bytes, bytes.count, descriptors, Int32(descriptors.count), Int32(MSG_NOSIGNAL))
            == bytes.count)
        let reply = try Self.answer(on: raw)
        #expect(reply.id == 5)
        #expect(try Self.refusal(reply).code == .descriptors)
      }
    }

    @Test(
      "descriptors of the wrong kind are refused by name, and the handle is as good as before",
      .timeLimit(.minutes(1)))
    func descriptors() async throws {
      try await Lab.run("bad-descriptors") { lab in
        let pair = try await EnginePair(in: lab)
        let watch = try await ConnectionWatch(in: lab)
        let traffic = try PeerTraffic(in: lab, ["-n", "2", "-m", "0", "-w", "5", "--quiet"])
        try await pair.waitUntilReplicated(2, primary: pair.re0)
        let levels = try await pair.re0.levels()
        let primary = try await Session.connect(to: lab.controlSocket(of: .re0), application: "primary")
        let secondary = try await Session.connect(to: lab.controlSocket(of: .re1), application: "secondary")
        let name = try await primary.allocate()
        let snoop = try await secondary.attach(primary: name)
        let handle = snoop.handle
        let rcv = try StreamEnd(snoop.rcv)

        for bad in try await unsuitable(lab) {
          switch await primary.replicate(Socket(owning: bad.descriptor), primary: name, secondary: handle) {
          case .replicating: Issue.record("\(bad.kind) was replicated")
          case .refused(_, .refused(let code, let message)):
            #expect(code == .unsuitableSocket, "\(bad.kind): \(message)")
            #expect(message.contains(bad.says), "\(bad.kind): \(message)")
          case .refused(_, let error): throw error
          }
          #expect(try await primary.status(of: name).state == .allocated)
        }
        try offerWrongCounts(lab, name, handle)

        // A good one after all these. Given twice, it is refused the second time.
        let listening = try await ListeningSocket(on: .re0, in: lab, sendBuffer: 64 << 10, port: 16001)
        let peer = try await StreamEnd(connectedFrom: .peer, in: lab, receiveBuffer: 64 << 10, port: 16001)
        let server = try await listening.accept()
        switch await primary.replicate(server.release(), primary: name, secondary: handle) {
        case .refused(_, let error): throw error
        case .replicating(let socket):
          let copy = fcntl(socket.descriptor, F_DUPFD_CLOEXEC, 0)
          try #require(copy >= 0)
          let second = try await primary.allocate()
          switch await primary.replicate(Socket(owning: copy), primary: second, secondary: handle) {
          case .replicating: Issue.record("one socket was replicated twice")
          case .refused(_, let error): #expect("\(error)".contains("replicated already"), "\(error)")
          }
          let server = try StreamEnd(socket)
          try await peer.write([1, 2, 3])
          #expect(try await rcv.read(3) == [1, 2, 3])
          #expect(try await server.read(3) == [1, 2, 3])
          try await primary.free(second)
          try await primary.close(server.release(), handle: name)
        }
        _ = peer.release()
        primary.close()
        secondary.close()
        await pair.re0.checkNothingIsLeft(since: levels)
        let (summary, end) = try await traffic.stop()
        #expect(end == .exited(0) && summary.faults == 0, "\(summary)")
        #expect(try await watch.finish().resets.isEmpty)
        #expect(try !pair.re0.engine.errors.contains { $0.contains(" error ") })
      }
    }
  }
}

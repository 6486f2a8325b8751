import CLinux
import Glibc
import JSR
import Testing

extension LabSuite {
  /// TESTPLAN 3.11: connections that end with a reset because of what an end had not read.
  @Suite("closing before everything is read")
  struct ResetByClosing {
    enum Who: String, CaseIterable, Sendable { case server, peerAfterServer }

    @Test(
      "3.11 a reset after the application's close leaves nothing", .timeLimit(.minutes(1)),
      arguments: Who.allCases, Family.allCases)
    func nothingLeft(_ who: Who, _ family: Family) async throws {
      try await Lab.run("3.11-reset-\(who)-\(family)") { lab in
        let pair = try await EnginePair(withoutServersIn: lab)
        let primary = try await Session.connect(to: lab.controlSocket(of: .re0), application: "primary")
        let secondary = try await Session.connect(to: lab.controlSocket(of: .re1), application: "secondary")
        let levels = (try await pair.re0.levels(), try await pair.re1.levels())
        let watch = try await ConnectionWatch(in: lab)

        // The listening socket stays: what is looked up without a connection must not find it.
        let listening = try await ListeningSocket(on: .re0, in: lab, sendBuffer: 64 << 10)
        let peer = try await StreamEnd(
          connectedFrom: .peer, in: lab, receiveBuffer: 64 << 10, family: family
        ).release()
        let server = try await listening.accept()
        let name = try await primary.allocate()
        let snoop = try await secondary.attach(primary: name)
        let handle = snoop.handle
        let rcv = try StreamEnd(snoop.rcv)
        let snd = try StreamEnd(snoop.snd)
        switch await primary.replicate(server.release(), primary: name, secondary: handle) {
        case .refused(_, let error): throw error
        case .replicating(let socket):
          switch who {
          case .server:
            try #require(send(peer.descriptor, "unread", 6, Int32(MSG_NOSIGNAL)) == 6)
            try await eventually(within: .seconds(5), "the server's kernel has it") {
              jsr_queued_unread(socket.descriptor) == 6
            }
          case .peerAfterServer:
            try #require(send(socket.descriptor, "unread", 6, Int32(MSG_NOSIGNAL)) == 6)
            try await eventually(within: .seconds(5), "the peer's kernel has it") {
              jsr_queued_unread(peer.descriptor) == 6
            }
          }
          try await primary.close(socket, handle: name)
        }
        if who == .peerAfterServer {
          try await eventually(within: .seconds(5), "the server has closed") {
            watch.events.contains { $0.isFin && !$0.isFromPeer }
          }
        }
        _ = consume peer
        try await eventually(within: .seconds(5), "a reset is seen") {
          watch.events.contains { $0.isReset && $0.isFromPeer == (who == .peerAfterServer) }
        }
        let reset = ContinuousClock.now
        try await pair.re0.engine.waitForLine(
          containing: "socket \(name) unreplicated: reset", within: .seconds(2))
        #expect(ContinuousClock.now - reset < .seconds(3))

        // The pair shows what there was, and ends.
        if who == .server {
          #expect(try await rcv.read(6) == Array("unread".utf8))
        } else {
          #expect(try await snd.read(6) == Array("unread".utf8))
        }
        try await rcv.readEnd()
        try await snd.readEnd()
        await pair.re0.checkNothingIsLeft(since: levels.0)
        await pair.re1.checkNothingIsLeft(since: levels.1)
        primary.close()
        secondary.close()
      }
    }
  }
}

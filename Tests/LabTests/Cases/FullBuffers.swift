import Foundation
import Glibc
import JSR
import Testing

extension LabSuite {
  /// TESTPLAN 4.2 to the byte. The test is the application itself: the echo server gives a socket away only
  /// when its answers are acknowledged, and so never has a full send buffer at that moment.
  @Suite("data in both buffers")
  struct FullBuffers {
    /// How re1 becomes primary.
    enum Loss: String, CaseIterable, Sendable { case planned, killed }

    /// What the peer sends, and what the server sends.
    private static let fromPeer = BytePattern(seed: 1)
    private static let fromServer = BytePattern(seed: 2)

    /// Bytes that have gone both ways, and been read, before anything else happens.
    private static let settled = 1000
    /// Bytes of the peer that are not read when replication starts.
    private static let unread = 4000
    /// How many of them are read from `rcv` before the merge.
    private static let readFromPair = 1500

    @Test(
      "4.2 data in both buffers when replication starts", .timeLimit(.minutes(1)),
      arguments: EngineConfiguration.Mode.allCases, Loss.allCases)
    func bothBuffers(_ mode: EngineConfiguration.Mode, _ loss: Loss) async throws {
      try await Lab.run("4.2-both-\(mode)-\(loss)") { lab in
        var configuration = EngineConfiguration()
        configuration.mode = mode
        let pair = try await EnginePair(withoutServersIn: lab, configuration: configuration)
        let primary = try await Session.connect(to: lab.controlSocket(of: .re0), application: "primary")
        let secondary = try await Session.connect(to: lab.controlSocket(of: .re1), application: "secondary")
        let levels = (try await pair.re0.levels(), try await pair.re1.levels())
        let watch = try await ConnectionWatch(in: lab)

        let listening = try await ListeningSocket(on: .re0, in: lab, sendBuffer: 256 << 10)
        // Each mode and each loss over both families.
        let peer = try await StreamEnd(
          connectedFrom: .peer, in: lab, receiveBuffer: 64 << 10,
          family: (mode == .overlap) == (loss == .planned) ? .v4 : .v6)
        let server = try await listening.accept()
        try await peer.write(Self.fromPeer.bytes(from: 0, count: Self.settled))
        try await server.write(Self.fromServer.bytes(from: 0, count: Self.settled))
        #expect(Self.fromPeer.firstDifference(try await server.read(Self.settled), from: 0) == nil)
        #expect(Self.fromServer.firstDifference(try await peer.read(Self.settled), from: 0) == nil)

        // From here on nobody reads. The peer's receive buffer is full before the server's send buffer is.
        try await peer.write(Self.fromPeer.bytes(from: Self.settled, count: Self.unread))
        let written = try await server.fill(with: Self.fromServer, from: Self.settled)
        #expect(server.unread == Self.unread)
        #expect(server.unsent > 0)
        #expect(peer.unread > 0)
        let unacknowledged = server.unacknowledged
        #expect(unacknowledged == written - Self.settled - peer.unread)

        let name = try await primary.allocate()
        let snoop = try await secondary.attach(primary: name)
        let handle = snoop.handle
        let rcv = try StreamEnd(snoop.rcv)
        let snd = try StreamEnd(snoop.snd)
        let replicated: StreamEnd
        switch await primary.replicate(server.release(), primary: name, secondary: handle) {
        case .replicating(let socket): replicated = try StreamEnd(socket)
        case .refused(_, let reason): throw LabFailure("replication was refused: \(reason)")
        }
        #expect(replicated.unacknowledged == unacknowledged)
        #expect(replicated.unread == Self.unread)

        switch loss {
        case .planned: try await pair.re1.requestMaster("acquire")
        case .killed: try await pair.re0.lose()
        }
        try await pair.re1.waitUntilPrimary()
        if loss == .planned { #expect(replicated.writeError() == ECONNABORTED) }

        // The pair shows what was in both buffers, no byte more or less.
        #expect(rcv.unread == Self.unread)
        let snooped = try await snd.read(unacknowledged)
        #expect(Self.fromServer.firstDifference(snooped, from: written - unacknowledged) == nil)
        #expect(try snd.isIdle())
        var position = Self.settled
        let firstPart = try await rcv.read(Self.readFromPair)
        #expect(Self.fromPeer.firstDifference(firstPart, from: position) == nil)
        position += firstPart.count

        // What was not read from it is in the live socket, and nowhere else.
        let merged = try StreamEnd(try await secondary.merge(handle))
        try await rcv.readEnd()
        try await snd.readEnd()
        let secondPart = try await merged.read(Self.unread - Self.readFromPair)
        #expect(Self.fromPeer.firstDifference(secondPart, from: position) == nil)
        position += secondPart.count
        #expect(try merged.isIdle())

        // The peer reads again, and gets all that was ever written.
        let clock = ContinuousClock()
        let opening = clock.now
        let rest = try await peer.read(written - Self.settled)
        print(
          "4.2 (\(mode), \(loss)): \(rest.count) bytes within \(clock.now - opening) of the window's opening")
        #expect(Self.fromServer.firstDifference(rest, from: Self.settled) == nil)
        #expect(try peer.isIdle())

        // The conversation goes on, both ways.
        try await peer.write(Self.fromPeer.bytes(from: position, count: 100_000))
        #expect(Self.fromPeer.firstDifference(try await merged.read(100_000), from: position) == nil)
        try await merged.write(Self.fromServer.bytes(from: written, count: 2000))
        #expect(Self.fromServer.firstDifference(try await peer.read(2000), from: written) == nil)
        try await eventually(within: .seconds(5), "the peer has acknowledged everything") {
          merged.unacknowledged == 0
        }
        #expect(try merged.isIdle())
        #expect(try peer.isIdle())
        #expect(watch.events.allSatisfy { $0.isSyn }, "\(watch.events)")

        _ = merged.release()
        try await peer.readEnd()
        _ = peer.release()
        try await eventually(within: .seconds(5), "both sides have closed") {
          watch.events.contains { $0.isFin && $0.isFromPeer }
        }
        let events = try await watch.finish()
        #expect(events.connectionCount == 1)
        #expect(events.resets.isEmpty, "\(events)")
        _ = replicated.release()
        if loss == .planned { await pair.re0.checkNothingIsLeft(since: levels.0) }
        await pair.re1.checkNothingIsLeft(since: levels.1)
        primary.close()
        secondary.close()
      }
    }

    /// More than `limits.snoop-buffer`, which is 4 MiB by default.
    private static let tooMuch = 4_500_000
    /// How much of it is read before it is tried again.
    private static let readFirst = 500_000

    @Test(
      "a socket with more unread than the secondary could hold is refused at once, and replicated once it is read",
      .timeLimit(.minutes(1)))
    func tooMuchUnread() async throws {
      try await Lab.run("too-much-unread") { lab in
        // A receive buffer that takes it without anybody's reading (tcp(7)).
        try await lab.run(["sysctl", "-qw", "net.ipv4.tcp_rmem=4096 16777216 33554432"], on: .re0)
        let pair = try await EnginePair(withoutServersIn: lab)
        let primary = try await Session.connect(to: lab.controlSocket(of: .re0), application: "primary")
        let secondary = try await Session.connect(to: lab.controlSocket(of: .re1), application: "secondary")
        let levels = (try await pair.re0.levels(), try await pair.re1.levels())
        let watch = try await ConnectionWatch(in: lab)
        let listening = try await ListeningSocket(on: .re0, in: lab, sendBuffer: 256 << 10)
        let peer = try await StreamEnd(
          connectedFrom: .peer, in: lab, receiveBuffer: 64 << 10, family: .v6)
        let server = try await listening.accept()
        let sent = Self.fromPeer.bytes(from: 0, count: Self.tooMuch)
        try await peer.write(sent)
        try await eventually(within: .seconds(5), "all is unread on re0, not \(server.unread)") {
          server.unread == Self.tooMuch
        }

        let records = try await pair.re0.figures()["prl.bytes"]
        let first = try await primary.allocate()
        let unused = try await secondary.attach(primary: first)
        let refused: StreamEnd
        switch await primary.replicate(server.release(), primary: first, secondary: unused.handle) {
        case .replicating: throw LabFailure("it was replicated")
        case .refused(let socket, let reason):
          #expect("\(reason)".contains("snoop buffer full"), "\(reason)")
          refused = try StreamEnd(socket)
        }
        try await primary.free(first)
        try await secondary.free(unused.handle)
        #expect(try await pair.re0.figures()["prl.bytes"] == records, "bytes were sent all the same")

        // The connection goes on, and is replicated when less is unread.
        #expect(try await refused.read(Self.readFirst) == Array(sent.prefix(Self.readFirst)))
        let rest = Array(sent.dropFirst(Self.readFirst))
        let second = try await primary.allocate()
        let snoop = try await secondary.attach(primary: second)
        let replicated: StreamEnd
        switch await primary.replicate(refused.release(), primary: second, secondary: snoop.handle) {
        case .replicating(let socket): replicated = try StreamEnd(socket)
        case .refused(_, let reason): throw LabFailure("replication was refused: \(reason)")
        }
        let rcv = try StreamEnd(snoop.rcv)
        let snd = try StreamEnd(snoop.snd)
        #expect(try await rcv.read(rest.count) == rest)
        #expect(try await replicated.read(rest.count) == rest)
        try await replicated.write(Self.fromServer.bytes(from: 0, count: 100_000))
        #expect(Self.fromServer.firstDifference(try await peer.read(100_000), from: 0) == nil)
        #expect(Self.fromServer.firstDifference(try await snd.read(100_000), from: 0) == nil)

        _ = peer.release()
        try await replicated.readEnd()
        try await rcv.readEnd()
        try await primary.close(replicated.release(), handle: second)
        try await snd.readEnd()
        let events = try await watch.finish()
        #expect(events.connectionCount == 1)
        #expect(events.resets.isEmpty, "\(events)")
        await pair.re0.checkNothingIsLeft(since: levels.0)
        await pair.re1.checkNothingIsLeft(since: levels.1)
        primary.close()
        secondary.close()
      }
    }
  }
}

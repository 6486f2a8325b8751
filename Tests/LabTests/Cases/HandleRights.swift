import CLinux
import Descriptors
import Foundation
import Glibc
import JSR
import Testing

extension LabSuite {
  /// TESTPLAN 6.1 and 6.2: who may use which handle.
  @Suite("handles and who they belong to")
  struct HandleRights {
    private func withSessions(
      _ title: String, socketLimit: Int? = nil,
      _ body: (EnginePair, _ primary: Session, _ secondary: Session) async throws -> Void
    ) async throws {
      try await Lab.run(title) { lab in
        var configuration = EngineConfiguration()
        configuration.socketLimit = socketLimit
        let pair = try await EnginePair(withoutServersIn: lab, configuration: configuration)
        let primary = try await Session.connect(to: lab.controlSocket(of: .re0), application: "primary")
        let secondary = try await Session.connect(to: lab.controlSocket(of: .re1), application: "secondary")
        try await body(pair, primary, secondary)
        primary.close()
        secondary.close()
      }
    }

    /// Does what must be refused.
    private func expectRefusal(
      _ code: RefusalCode, naming text: String, _ what: String,
      sourceLocation: SourceLocation = #_sourceLocation, _ call: () async throws -> Void
    ) async {
      do {
        try await call()
        Issue.record("\(what) was not refused", sourceLocation: sourceLocation)
      } catch JSRError.refused(let found, let message) {
        #expect(found == code, "\(what): \(message)", sourceLocation: sourceLocation)
        #expect(message.contains(text), "\(what): \(message)", sourceLocation: sourceLocation)
      } catch {
        Issue.record("\(what): \(error)", sourceLocation: sourceLocation)
      }
    }

    /// A descriptor to be given away with a handle that will not do.
    private func anySocket() throws -> Socket {
      Socket(
        owning: try OwnedDescriptor(returnedBy: "socket", socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0))
          .release())
    }

    private func replicate(_ session: Session, _ primary: Handle, _ secondary: Handle) async throws {
      switch await session.replicate(try anySocket(), primary: primary, secondary: secondary) {
      case .replicating: throw LabFailure("a socket without a connection was replicated")
      case .refused(_, let error): throw error
      }
    }

    @Test("6.1 allocation up to the limit, and no handle that is not one", .timeLimit(.minutes(1)))
    func allocation() async throws {
      try await withSessions("6.1", socketLimit: 5) { pair, primary, secondary in
        var handles: [Handle] = []
        for _ in 0..<5 { handles.append(try await primary.allocate()) }
        #expect(Set(handles.map(\.index)).count == 5)
        #expect(zip(handles, handles.dropFirst()).allSatisfy { $0.generation < $1.generation })
        await expectRefusal(.limit, naming: "limits.sockets", "the sixth handle") {
          _ = try await primary.allocate()
        }
        #expect(try await pair.re0.get("limits.sockets") == "5")

        let stale = handles[2]
        try await primary.free(stale)
        let fresh = try await primary.allocate()
        #expect(fresh.index == stale.index)
        #expect(fresh.generation > handles[4].generation)
        await expectRefusal(.limit, naming: "limits.sockets", "one more handle") {
          _ = try await primary.allocate()
        }

        // The other RE has a limit of its own.
        var pairs: [Handle] = []
        for handle in handles { pairs.append(try await secondary.attach(primary: handle).handle) }
        await expectRefusal(.limit, naming: "limits.sockets", "the sixth pair") {
          _ = try await secondary.attach(primary: fresh).handle
        }

        let live = handles[0]
        for (kind, handle) in [
          ("stale", stale), ("foreign", pairs[0]),
          ("made-up generation", Handle(slot: 0, generation: 0xabcdef, index: live.index)),
          ("made-up index", Handle(slot: 0, generation: live.generation, index: 4_000_000_000)),
          ("made-up slot", Handle(slot: 9, generation: live.generation, index: live.index)),
          ("zero", Handle(rawValue: 0)), ("all ones", Handle(rawValue: .max)),
        ] {
          let name = "\(handle)"
          await expectRefusal(.unknownHandle, naming: name, "\(kind): free") {
            try await primary.free(handle)
          }
          await expectRefusal(.unknownHandle, naming: name, "\(kind): replicate as primary") {
            try await replicate(primary, handle, pairs[0])
          }
          await expectRefusal(.unknownHandle, naming: name, "\(kind): unreplicate") {
            try await primary.unreplicate(handle)
          }
          await expectRefusal(.unknownHandle, naming: name, "\(kind): merge") {
            _ = try await primary.merge(handle).descriptor
          }
          await expectRefusal(.unknownHandle, naming: name, "\(kind): status") {
            _ = try await primary.status(of: handle)
          }
          if kind == "stale" {
            // What is gone already, by whatever end came first, need not be closed, and that is no error.
            try await primary.close(try anySocket(), handle: handle)
          } else {
            await expectRefusal(.unknownHandle, naming: name, "\(kind): close") {
              try await primary.close(try anySocket(), handle: handle)
            }
          }
          let (end, _, errors) = try await pair.re0.jsrctl(["unreplicate", name])
          #expect(end == .exited(1) && errors.count == 1 && errors[0].contains(name), "\(kind): \(errors)")
        }
        // A handle of the other RE, where one of this RE is given, or one that no RE can have allocated.
        await expectRefusal(.unknownHandle, naming: "\(pairs[0])", "attach to a handle of one's own") {
          _ = try await secondary.attach(primary: pairs[0]).handle
        }
        try await secondary.free(pairs[4])
        await expectRefusal(.unknownHandle, naming: "0x9000001", "attach to a handle of no slot") {
          _ = try await secondary.attach(primary: Handle(slot: 9, generation: 1, index: 0)).handle
        }

        // Nothing of this cost anybody anything.
        for handle in handles where handle != stale {
          #expect(try await primary.status(of: handle).state == .allocated)
        }
        #expect(try await pair.re0.status().peer.inStep)
      }
    }

    @Test(
      "6.1 a secondary handle that is made up costs its own socket the replication, and nobody else",
      .timeLimit(.minutes(1)))
    func madeUpSecondary() async throws {
      try await Lab.run("6.1-secondary") { lab in
        let pair = try await EnginePair(in: lab)
        let watch = try await ConnectionWatch(in: lab)
        let traffic = try PeerTraffic(in: lab, ["-n", "2", "-m", "0", "-w", "5", "--quiet"])
        try await pair.waitUntilReplicated(2, primary: pair.re0)
        let levels = try await pair.re0.levels()
        let primary = try await Session.connect(to: lab.controlSocket(of: .re0), application: "primary")
        let secondary = try await Session.connect(to: lab.controlSocket(of: .re1), application: "secondary")
        let listening = try await ListeningSocket(on: .re0, in: lab, sendBuffer: 64 << 10, port: 16001)
        let peer = try await StreamEnd(
          connectedFrom: .peer, in: lab, receiveBuffer: 64 << 10, port: 16001)
        var socket = try await listening.accept().release()
        try await peer.write([1, 2, 3])
        let name = try await primary.allocate()
        let gone = try await secondary.attach(primary: name).handle
        try await secondary.free(gone)
        let other = try await secondary.attach(primary: Handle(slot: 0, generation: 77, index: 1)).handle
        let inUse = try #require(try await pair.re1.sockets().first { $0.state == "snooping" }).handle
        let echoServers = try #require(Handle(inUse))

        for (kind, handle) in [
          ("never allocated", Handle(slot: 1, generation: 0xabcdef, index: 3)), ("stale", gone),
          ("attached to another socket", other), ("another application's, in use", echoServers),
        ] {
          switch await primary.replicate(socket, primary: name, secondary: handle) {
          case .replicating: throw LabFailure("replicated with a handle that is \(kind)")
          case .refused(let back, .refused(let code, let message)):
            #expect(code == .wrongState, "\(kind): \(message)")
            #expect(message.contains("no snoop pair attached on the secondary"), "\(kind): \(message)")
            socket = back
          case .refused(_, let error): throw error
          }
        }
        for (kind, handle) in [
          ("of this RE", Handle(slot: 0, generation: 1, index: 0)),
          ("of no RE", Handle(slot: 2, generation: 1, index: 0)), ("zero", Handle(rawValue: 1 << 56)),
        ] {
          switch await primary.replicate(socket, primary: name, secondary: handle) {
          case .replicating: throw LabFailure("replicated with a handle that is \(kind)")
          case .refused(let back, .refused(let code, let message)):
            #expect(code == .unknownHandle && message.contains("\(handle)"), "\(kind): \(message)")
            socket = back
          case .refused(_, let error): throw error
          }
        }
        // The socket goes on, the link stands, the others are replicated, and so is this one in the end.
        #expect(try await pair.re0.figures()["kkcm.link_sessions"] == 1)
        #expect(try await pair.re0.sockets().count { $0.state == "replicating" } == 2)
        let snoop = try await secondary.attach(primary: name)
        let handle = snoop.handle
        let rcv = try StreamEnd(snoop.rcv)
        switch await primary.replicate(socket, primary: name, secondary: handle) {
        case .refused(_, let error): throw error
        case .replicating(let replicated):
          let server = try StreamEnd(replicated)
          #expect(try await server.read(3) == [1, 2, 3])
          #expect(try await rcv.read(3) == [1, 2, 3])
          try await server.write([4])
          #expect(try await peer.read(1) == [4])
          try await primary.close(server.release(), handle: name)
        }
        _ = peer.release()
        try await secondary.free(other)
        primary.close()
        secondary.close()
        await pair.re0.checkNothingIsLeft(since: levels)
        let (summary, end) = try await traffic.stop()
        #expect(end == .exited(0) && summary.faults == 0, "\(summary)")
        #expect(try await watch.finish().resets.isEmpty)
      }
    }

    @Test(
      "6.2 applications cannot use each other's handles, and what they held is free when they die",
      .timeLimit(.minutes(1)))
    func ownership() async throws {
      try await withSessions("6.2") { pair, primary, secondary in
        let path = (pair.lab.controlSocket(of: .re0), pair.lab.controlSocket(of: .re1))
        let levels = (try await pair.re0.levels(), try await pair.re1.levels())
        let stranger = (
          try await Session.connect(to: path.0, application: "primary"),
          try await Session.connect(to: path.1, application: "secondary")
        )
        let name = try await primary.allocate()
        let handle = try await secondary.attach(primary: name).handle
        for (session, handle) in [(stranger.0, name), (stranger.1, handle)] {
          let text = "\(handle) belongs to another application"
          await expectRefusal(.foreignHandle, naming: text, "free") { try await session.free(handle) }
          await expectRefusal(.foreignHandle, naming: text, "replicate") {
            try await replicate(session, handle, handle)
          }
          await expectRefusal(.foreignHandle, naming: text, "unreplicate") {
            try await session.unreplicate(handle)
          }
          await expectRefusal(.foreignHandle, naming: text, "merge") {
            _ = try await session.merge(handle).descriptor
          }
          await expectRefusal(.foreignHandle, naming: text, "close") {
            try await session.close(try anySocket(), handle: handle)
          }
          // Looking is allowed: jsrctl show sockets shows the same to everybody.
          #expect(try await session.status(of: handle).handle == handle)
        }
        // An operator has no handles, and asks for no application's.
        #expect(try await pair.re0.sockets().map(\.state) == ["allocated"])
        stranger.0.close()
        stranger.1.close()
        #expect(try await primary.status(of: name).state == .allocated)

        // The death of a process ends its connections, and that is all that the engine sees of it.
        primary.close()
        secondary.close()
        var left = (levels.0, levels.1)
        left.0["descriptors"] = (left.0["descriptors"] ?? 0) - 1
        left.1["descriptors"] = (left.1["descriptors"] ?? 0) - 1
        await pair.re0.checkNothingIsLeft(since: left.0)
        await pair.re1.checkNothingIsLeft(since: left.1)
      }
    }

    @Test("6.2 who may open the control socket: root, and the group jsr", .timeLimit(.minutes(1)))
    func permissions() async throws {
      try await Lab.run("6.2-permissions") { lab in
        // The group need not exist on this machine: the engine and its clients see a list of their own.
        let groups = "\(lab.directory)/group"
        try "root:x:0:\njsr:x:64999:\n".write(toFile: groups, atomically: true, encoding: .utf8)
        let engine = RoutingEngine(.re0, in: lab)
        try await engine.startEngine(
          behind: [
            "unshare", "--mount", "bash", "-c", "mount --bind \(groups) /etc/group && exec \"$@\"", "bash",
          ])
        var file = stat()
        #expect(lstat(lab.controlSocket(of: .re0), &file) == 0)
        #expect(file.st_mode & 0o7777 == 0o660)
        #expect(file.st_uid == 0)
        #expect(file.st_gid == 64_999)

        let jsrctl = try Binaries.path(of: "jsrctl")
        func show(as ids: [String]) async throws -> (end: Program.End, errors: [String]) {
          let program = try lab.start(
            "jsrctl-\(ids.joined())", on: .re0,
            // Where the programs were built, strangers may not be let in; to look around is all that this permits.
            ["setpriv", "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"] + ids
              + ["--", jsrctl, "show", "status"])
          return (try await program.waitForEnd(within: .seconds(10)), program.errors)
        }
        let member = try await show(as: ["--reuid=65534", "--regid=65534", "--groups=64999"])
        #expect(member.end == .exited(0), "\(member.errors)")
        let stranger = try await show(as: ["--reuid=65534", "--regid=65534", "--clear-groups"])
        #expect(stranger.end == .exited(69))
        #expect(
          stranger.errors == ["jsrctl: engine not reachable at /run/jsr/jsrd.sock: Permission denied"])
        // The kernel's word for who that was is in the log (SO_PEERCRED).
        try await engine.order(["log", "level", "debug"])
        _ = try await show(as: ["--reuid=65534", "--regid=65534", "--groups=64999"])
        try await engine.engine.waitForLine(containing: "user 65534)", within: .seconds(5))
      }
    }
  }
}

import Foundation
import Glibc
import JSR
import Synchronization
import Testing

extension LabSuite {
  /// TESTPLAN 4.5. The test is the application on both sides, and the peer.
  @Suite("records")
  struct Records {
    /// When the primary is killed.
    enum Moment: String, CaseIterable, Sendable {
      /// At any time while records are sent as fast as the channel takes them.
      case anyTime
      /// As soon as the channel has taken a record.
      case justAccepted
      /// When the peer has not read for a while, and nothing moves any more.
      case windowClosed
    }

    private static let killCount = max(
      ProcessInfo.processInfo.environment["JSR_RECORD_KILLS"].flatMap { Int($0) } ?? 10, 1)

    /// An application's hold on one connection, on the RE that is primary.
    private struct Hold: ~Copyable {
      var session: Session
      var socket: StreamEnd
      var channel: RecordChannel
      var snoop: SnoopedRecords
    }

    /// What the other instance has of it.
    private final class SnoopedRecords: Sendable {
      let session: Session
      let handle: Handle
      let rcv: StreamEnd
      let snd: StreamEnd
      init(_ session: Session, _ pair: consuming SnoopPair) throws {
        let (handle, rcv, snd) = pair.release()
        self.session = session
        self.handle = handle
        self.rcv = try StreamEnd(Socket(owning: rcv))
        self.snd = try StreamEnd(Socket(owning: snd))
      }
    }

    private static func protect(
      _ socket: consuming StreamEnd, on primary: RoutingEngine, with secondary: RoutingEngine
    ) async throws -> Hold {
      let lab = primary.lab
      let session = try await Session.connect(to: lab.controlSocket(of: primary.node), application: "records")
      let other = try await Session.connect(to: lab.controlSocket(of: secondary.node), application: "records")
      // What snd shows begins with what the peer has not acknowledged: nothing.
      try await eventually(within: .seconds(15), "the peer has acknowledged everything") {
        socket.unacknowledged == 0
      }
      let name = try await session.allocate()
      let snoop = try SnoopedRecords(other, try await other.attach(primary: name))
      switch await session.replicate(socket.release(), primary: name, secondary: snoop.handle) {
      case .refused(_, let reason): throw LabFailure("replication was refused: \(reason)")
      case .replicating(let socket):
        return Hold(
          session: session, socket: try StreamEnd(socket), channel: try await session.beginRecords(name),
          snoop: snoop)
      }
    }

    /// Kills the primary again and again under a stream of records. JSR_RECORD_KILLS and JSR_SEED set how often, and
    /// which moments.
    @Test(
      "4.5 records are whole, in order and there once, whenever the primary is killed",
      .timeLimit(.minutes(2 + (killCount + 3) / 4)))
    func killed() async throws {
      let environment = ProcessInfo.processInfo.environment
      let seed = environment["JSR_SEED"].flatMap { UInt64($0) } ?? UInt64.random(in: 1...999_999)
      print("4.5: \(Self.killCount) kills, seed \(seed)")
      var random = SplitMix(seed: seed)
      let records = RecordStream(seed: seed)

      try await Lab.run("4.5-killed") { lab in
        let pair = try await EnginePair(withoutServersIn: lab)
        let watch = try await ConnectionWatch(in: lab)
        let listening = try await ListeningSocket(on: .re0, in: lab, sendBuffer: 256 << 10)
        let peer = RecordPeer(
          try await StreamEnd(connectedFrom: .peer, in: lab, receiveBuffer: 256 << 10), expecting: records)
        var live: StreamEnd? = try await listening.accept()
        async let reading: Void = peer.run()
        defer { peer.stop() }

        var primary = pair.re0
        // Records that the stream holds, as the application knows.
        var count = 0
        var safeCount = 0
        for kill in 1...Self.killCount {
          let moment = Moment.allCases[kill % Moment.allCases.count]
          let next = pair.other(primary)
          guard let socket = live.take() else { throw LabFailure("there is no socket") }
          let hold = try await Self.protect(socket, on: primary, with: next)
          let first = count
          var given = first
          var checker = RecordChecker(records, after: first)
          if moment == .windowClosed { peer.pause(true) }

          // As fast as the channel takes them, until the moment has come.
          let clock = ContinuousClock()
          let start = clock.now
          let span = Duration.milliseconds(Int.random(in: 0...500, using: &random))
          var lastTaken = clock.now
          sending: while true {
            // The other instance follows: one that does not read loses its pair.
            if let bytes = try hold.snoop.snd.readAvailable(1 << 20) { checker.take(bytes) }
            if try hold.channel.trySend(records.record(given)) != nil {
              given += 1
              lastTaken = clock.now
              if moment == .justAccepted, clock.now - start > span { break sending }
            } else {
              try await Task.sleep(for: .microseconds(200))
            }
            switch moment {
            case .anyTime: if clock.now - start > span { break sending }
            case .justAccepted: break
            case .windowClosed: if clock.now - lastTaken > .milliseconds(500) { break sending }
            }
          }
          let safe = first + Int(hold.channel.safeCount)
          try await primary.lose()
          try await next.waitUntilPrimary()

          // What snd shows is whole records, and all that were safe.
          let snoop = hold.snoop
          let merged = try StreamEnd(try await snoop.session.merge(snoop.handle))
          try await eventually(within: .seconds(10), "snd comes to its end") {
            while let bytes = try snoop.snd.readAvailable(1 << 20) {
              if bytes.isEmpty { return false }
              checker.take(bytes)
            }
            return true
          }
          let label = "kill \(kill) (\(moment)), seed \(seed)"
          #expect(checker.problem == nil, "\(label)")
          #expect(checker.isBetweenRecords, "\(label): snd ends \(checker.partByteCount) bytes into a record")
          #expect(checker.count >= safe, "\(label): \(safe) records were safe, snd shows \(checker.count)")
          #expect(checker.count <= given, "\(label)")
          count = checker.count
          safeCount += safe - first

          // The peer gets just these.
          peer.pause(false)
          try await eventually(
            within: .seconds(20),
            "the peer has all \(count) records, it has \(peer.count): \(peer.problem ?? "")"
          ) { peer.count >= count || peer.problem != nil }
          try await Task.sleep(for: .milliseconds(50))
          #expect(peer.problem == nil, "\(label)")
          #expect(peer.count == count && peer.isBetweenRecords, "\(label)")
          print(
            "4.5: \(label): \(given - first) given, \(safe - first) known to be safe, \(count - first) on snd and at "
              + "the peer")

          hold.session.close()
          snoop.session.close()
          try await lab.mend(.uplink, of: primary.node)
          try await lab.mend(.link, of: primary.node)
          try await primary.startEngine()
          try await pair.waitUntilInStep(primary: next)
          live = consume merged
          primary = next
        }
        #expect(safeCount > 0)
        peer.stop()
        await reading
        let events = try await watch.finish()
        #expect(events.resets.isEmpty, "\(events)")
        print("4.5: \(count) records, \(peer.byteCount >> 20) MiB, \(Self.killCount) kills, seed \(seed)")
      }
    }

    @Test(
      "4.5 a record is shown behind what it answers, however much waits to be judged", .timeLimit(.minutes(1))
    )
    func answers() async throws {
      try await Lab.run("4.5-answers") { lab in
        let pair = try await EnginePair(withoutServersIn: lab)
        let listening = try await ListeningSocket(on: .re0, in: lab, sendBuffer: 64 << 10)
        let peer = try await StreamEnd(connectedFrom: .peer, in: lab, receiveBuffer: 64 << 10)
        try peer.set(Int32(IPPROTO_TCP), Int32(TCP_NODELAY), [1, 0, 0, 0])
        let hold = try await Self.protect(try await listening.accept(), on: pair.re0, with: pair.re1)
        let snoop = hold.snoop
        for round in 1...5 {
          // So much that the peer may send a hundred packets without hearing anything.
          let question = [UInt8](repeating: UInt8(round), count: 256 << 10)
          try await peer.write(question)
          _ = try await hold.socket.read(question.count)
          _ = try await snoop.rcv.read(question.count)
          try pair.re0.engine.send(SIGSTOP)
          for number in 0..<100 { try await peer.write([UInt8(number)]) }
          let read = try await hold.socket.read(100)
          _ = try hold.channel.trySend(read)
          try pair.re0.engine.send(SIGCONT)
          // Without a pause: what is shown a moment too late would be there after one.
          let deadline = ContinuousClock.now + .seconds(5)
          var shown = 0
          while shown == 0, ContinuousClock.now < deadline {
            guard let answer = try snoop.snd.readAvailable(1 << 10) else { throw LabFailure("snd ended") }
            shown = answer.count
          }
          try #require(shown > 0)
          let answered = try snoop.rcv.readAvailable(1 << 20)
          #expect(answered?.count == 100, "round \(round)")
          _ = try await peer.read(100)
          try await eventually(within: .seconds(5), "it is whole") {
            _ = try snoop.snd.readAvailable(1 << 20)
            return hold.channel.safeCount == round
          }
        }
        hold.session.close()
        snoop.session.close()
      }
    }

    @Test("4.5 the echo server gives its echoes as records, across switchovers", .timeLimit(.minutes(1)))
    func echoServer() async throws {
      try await Lab.run("4.5-echo") { lab in
        let pair = try await EnginePair(in: lab, servers: ["--quiet", "--records"])
        let traffic = try await WatchedTraffic(
          pair, ["-m", "0", "-l", "3000", "--pipeline", "4", "-w", "1", "--quiet"])
        try await pair.re1.requestMaster("acquire")
        try await pair.re1.waitUntilPrimary(merged: 5)
        try await pair.waitUntilReplicated(5, primary: pair.re1)
        try await Task.sleep(for: .milliseconds(300))
        try await pair.re1.lose()
        try await pair.re0.waitUntilPrimary(merged: 5)
        let summary = try await traffic.stop(living: [pair.re0])
        #expect(summary.echoedByRe0 > 0)
        #expect(summary.echoedByRe1 > 0)
      }
    }

    @Test(
      "4.5 an application that dies has its records sent whole; what it gave in part is not there",
      .timeLimit(.minutes(1)))
    func applicationDies() async throws {
      let records = RecordStream(seed: 45)
      try await Lab.run("4.5-application") { lab in
        let pair = try await EnginePair(withoutServersIn: lab)
        let listening = try await ListeningSocket(on: .re0, in: lab, sendBuffer: 64 << 10)
        let peer = RecordPeer(
          try await StreamEnd(connectedFrom: .peer, in: lab, receiveBuffer: 64 << 10, family: .v6),
          expecting: records)
        peer.pause(true)
        async let reading: Void = peer.run()
        defer { peer.stop() }
        let hold = try await Self.protect(
          try await listening.accept(), on: pair.re0, with: pair.re1)
        var given = 0
        let clock = ContinuousClock()
        var lastTaken = clock.now
        while clock.now - lastTaken < .milliseconds(300) {
          if try hold.channel.trySend(records.record(given)) != nil {
            given += 1
            lastTaken = clock.now
          } else {
            try await Task.sleep(for: .milliseconds(1))
          }
        }
        let snoop = hold.snoop
        // The session, the socket and the channel: all that the kernel would close.
        hold.session.close()
        _ = consume hold
        try await pair.re1.waitUntilPrimary()
        let merged = try StreamEnd(try await snoop.session.merge(snoop.handle))
        peer.pause(false)
        var checker = RecordChecker(records)
        try await eventually(within: .seconds(10), "snd comes to its end") {
          while let bytes = try snoop.snd.readAvailable(1 << 20) {
            if bytes.isEmpty { return false }
            checker.take(bytes)
          }
          return true
        }
        #expect(checker.problem == nil)
        #expect(checker.isBetweenRecords)
        // The last one may have been given in part.
        #expect(checker.count == given || checker.count == given - 1)
        try await eventually(within: .seconds(20), "the peer has all \(checker.count) records") {
          peer.count >= checker.count || peer.problem != nil
        }
        #expect(peer.problem == nil)
        #expect(peer.isBetweenRecords)
        try await merged.write(records.record(checker.count))
        try await eventually(within: .seconds(10), "the conversation goes on") {
          peer.count == checker.count + 1
        }
        peer.stop()
        await reading
        snoop.session.close()
      }
    }

    @Test(
      "4.5 when replication ends the application hears what was taken, and goes on by itself",
      .timeLimit(.minutes(1)))
    func unreplicated() async throws {
      let records = RecordStream(seed: 46)
      try await Lab.run("4.5-unreplicated") { lab in
        let pair = try await EnginePair(withoutServersIn: lab)
        let listening = try await ListeningSocket(on: .re0, in: lab, sendBuffer: 64 << 10)
        let peer = RecordPeer(
          try await StreamEnd(connectedFrom: .peer, in: lab, receiveBuffer: 64 << 10), expecting: records)
        async let reading: Void = peer.run()
        defer { peer.stop() }
        let hold = try await Self.protect(
          try await listening.accept(), on: pair.re0, with: pair.re1)
        #expect(hold.channel.recordLimit == RecordStream.largest)
        await #expect(throws: JSRError.recordSize(0, limit: RecordStream.largest)) {
          _ = try hold.channel.trySend([])
        }
        for number in 0..<40 {
          let given = try await hold.channel.send(records.record(number))
          #expect(given == UInt64(number + 1))
        }
        try await hold.channel.waitUntilSafe(40)
        // Another client's word, as an operator's would be.
        try await pair.re0.order(["unreplicate", hold.channel.handle.description])
        var next = 40
        var accepted = -1
        while accepted < 0 {
          do throws(JSRError) {
            try await hold.channel.send(records.record(next))
            next += 1
          } catch .recordsEnded(let count) {
            accepted = Int(count)
          }
        }
        #expect(accepted <= next + 1)
        #expect(accepted >= 40)
        try await hold.socket.write(records.record(accepted))
        try await eventually(
          within: .seconds(10), "the peer has \(accepted + 1) records: \(peer.problem ?? "")"
        ) {
          peer.count == accepted + 1 || peer.problem != nil
        }
        #expect(peer.problem == nil)
        peer.stop()
        await reading
        hold.session.close()
        hold.snoop.session.close()
      }
    }
  }
}

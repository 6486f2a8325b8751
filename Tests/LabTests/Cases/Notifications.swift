import Glibc
import JSR
import Testing

extension LabSuite {
  /// TESTPLAN 3.9 and DESIGN 6: what applications, and `jsrctl monitor`, are told.
  @Suite("notifications")
  struct Notifications {
    @Test("3.9 notifications: each event once, in order, with handle and reason", .timeLimit(.minutes(1)))
    func eachOnce() async throws {
      try await Lab.run("3.9") { lab in
        let application = try await OwnApplication(in: lab)
        let pair = application.pair
        let re0 = EventLog("the application on re0", of: application.primary)
        let re1 = EventLog("the application on re1", of: application.secondary)
        // Another application, with no sockets of its own.
        let bystander = try await Session.connect(to: lab.controlSocket(of: .re0), application: "bystander")
        let other = EventLog("another application on re0", of: bystander)
        let monitors = (try await EventMonitor(on: pair.re0), try await EventMonitor(on: pair.re1))

        // The peer closes, then the server.
        let closed = try await application.connect()
        try closed.peer.endWriting()
        try await re0.wait(for: .peerClosed(closed.primary))
        try await re1.wait(for: .peerClosed(closed.secondary))
        try await application.primary.close(closed.server.release(), handle: closed.primary)
        try await re0.wait(for: .unreplicated(closed.primary, reason: "closed"))
        try await re1.wait(for: .unreplicated(closed.secondary, reason: "closed"))

        // The application has had enough.
        let released = try await application.connect()
        try await application.primary.unreplicate(released.primary)
        try await re0.wait(for: .unreplicated(released.primary, reason: "requested"))
        try await re1.wait(for: .unreplicated(released.secondary, reason: "requested"))
        try await application.primary.free(released.primary)

        // The secondary is lost, and comes back.
        let severed = try await application.connect()
        try await lab.cut(.link, of: .re1)
        try await re0.wait(for: .unreplicated(severed.primary, reason: "link lost"))
        try await re1.wait(for: .unreplicated(severed.secondary, reason: "link lost"))
        try await lab.mend(.link, of: .re1)
        try await pair.waitUntilInStep(primary: pair.re0)
        try await application.primary.free(severed.primary)

        // Mastership moves, and back.
        let moved = try await application.connect()
        try await pair.re1.requestMaster("acquire")
        try await pair.waitUntilInStep(primary: pair.re1)
        let merged = try await application.secondary.merge(moved.secondary)
        try await re0.wait(for: .mastershipLost)
        try await re1.wait(for: .secondaryUp)
        try await pair.re0.requestMaster("acquire")
        try await pair.waitUntilInStep(primary: pair.re0)
        try await re1.wait(for: .mastershipLost)
        // The last event there is: nothing is still on its way behind it.
        let last = try await application.connect()
        try await re0.wait(for: .replicated(last.primary))
        try await re1.wait(for: .replicated(last.secondary))

        let expected: (re0: [Event], re1: [Event]) = (
          [
            .replicated(closed.primary), .peerClosed(closed.primary),
            .unreplicated(closed.primary, reason: "closed"),
            .replicated(released.primary), .unreplicated(released.primary, reason: "requested"),
            .replicated(severed.primary), .secondaryDown,
            .unreplicated(severed.primary, reason: "link lost"), .secondaryUp,
            .replicated(moved.primary), .secondaryDown,
            .unreplicated(moved.primary, reason: "mastership lost"), .mastershipLost,
            .mastershipGained, .secondaryUp, .replicated(last.primary),
          ],
          [
            .replicated(closed.secondary), .peerClosed(closed.secondary),
            .unreplicated(closed.secondary, reason: "closed"),
            .replicated(released.secondary), .unreplicated(released.secondary, reason: "requested"),
            .replicated(severed.secondary), .unreplicated(severed.secondary, reason: "link lost"),
            .replicated(moved.secondary), .mastershipGained, .secondaryUp,
            .secondaryDown, .mastershipLost, .replicated(last.secondary),
          ]
        )
        #expect(re0.events == expected.re0)
        #expect(re1.events == expected.re1)
        // What is about sockets is its owner's.
        #expect(
          other.events == [
            .secondaryDown, .secondaryUp, .secondaryDown, .mastershipLost, .mastershipGained, .secondaryUp,
          ])
        for (monitor, events) in [(monitors.0, expected.re0), (monitors.1, expected.re1)] {
          try await eventually(within: .seconds(5), "the monitor has printed the last event") {
            monitor.program.output.count >= events.count
          }
          #expect(try monitor.events() == events)
        }

        // Until here every connection had both its ends.
        _ = merged.release()
        for peer in [released.peer.release().release(), severed.peer.release().release()] {
          _ = Glibc.close(peer)
        }
        _ = moved.peer.release()
        try await application.primary.unreplicate(last.primary)
        try await re0.wait(for: .unreplicated(last.primary, reason: "requested"))
        try await application.primary.free(last.primary)
        bystander.close()
        for monitor in [monitors.0, monitors.1] { try await monitor.program.killAndWait() }
        try await application.end()
      }
    }

    /// How often a socket is replicated and unreplicated while nobody takes the news: more events than the engine
    /// keeps for one client, and fewer than the library keeps for an application.
    private static let rounds = 900

    @Test("3.9 slow readers are told all, or how much they have missed", .timeLimit(.minutes(1)))
    func slowReaders() async throws {
      try await Lab.run("3.9-slow") { lab in
        let application = try await OwnApplication(in: lab)
        let monitor = try await EventMonitor(on: application.pair.re0)
        monitor.program.send(SIGSTOP)

        var expected: (re0: [Event], re1: [Event]) = ([], [])
        var connection = try await application.connect()
        for round in 0..<Self.rounds {
          let (primary, secondary) = (connection.primary, connection.secondary)
          try await application.primary.unreplicate(primary)
          while try await application.primary.status(of: primary).state != .unreplicated {
            try await Task.sleep(for: .milliseconds(1))
          }
          try await application.primary.free(primary)
          expected.re0 += [.replicated(primary), .unreplicated(primary, reason: "requested")]
          expected.re1 += [.replicated(secondary), .unreplicated(secondary, reason: "requested")]
          // It was a socket like others all the time.
          if round % 100 == 0 {
            try await connection.peer.write([1, 2, 3])
            #expect(try await connection.server.read(3) == [1, 2, 3])
          }
          connection = try await application.replicate(connection.peer, connection.server)
        }

        // The applications begin to take their events only now.
        let re0 = EventLog("the application on re0", of: application.primary)
        let re1 = EventLog("the application on re1", of: application.secondary)
        try await re0.wait(for: .replicated(connection.primary))
        try await re1.wait(for: .replicated(connection.secondary))
        expected.re0.append(.replicated(connection.primary))
        expected.re1.append(.replicated(connection.secondary))
        #expect(re0.events == expected.re0)
        #expect(re1.events == expected.re1)

        // The monitor gets what there was room for, and then the number of the others.
        monitor.program.send(SIGCONT)
        var told: [Event] = []
        try await eventually(within: .seconds(10), "the monitor is told that it has missed something") {
          told = try monitor.events()
          return told.contains { if case .missed = $0 { true } else { false } }
        }
        // Whatever happens from here on is told as always.
        try await application.primary.unreplicate(connection.primary)
        let last = Event.unreplicated(connection.primary, reason: "requested")
        expected.re0.append(last)
        try await eventually(within: .seconds(5), "the monitor tells the last event") {
          told = try monitor.events()
          return told.last == last
        }
        var position = 0
        var missed = 0
        for event in told {
          if case .missed(let count) = event {
            missed += count
            position += count
          } else {
            #expect(position < expected.re0.count && expected.re0[position] == event)
            position += 1
          }
        }
        #expect(position == expected.re0.count)
        #expect(missed > 0)
        print("3.9: \(expected.re0.count) events, of which a monitor that was stopped has missed \(missed)")

        try await re0.wait(for: last)
        _ = connection.peer.release()
        try await application.primary.free(connection.primary)
        try await monitor.program.killAndWait()
        try await application.end()
      }
    }
  }
}

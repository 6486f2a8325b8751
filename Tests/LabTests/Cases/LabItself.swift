import Foundation
import Glibc
import Testing

extension LabSuite {
  /// What the other cases rely on: that the lab is what it claims to be, and that its captures would see
  /// what must not be there.
  @Suite("The lab itself")
  struct LabItself {
    @Test(
      "every node reaches its neighbours, and nothing is left when the lab is taken away",
      .timeLimit(.minutes(1)))
    func layout() async throws {
      var namespaces: [String] = []
      var sleeper: Program?
      try await Lab.run("layout") { lab in
        namespaces = Node.machines.map { "/run/netns/jsr-\(lab.id)-\($0.rawValue)" }
        for namespace in namespaces { #expect(FileManager.default.fileExists(atPath: namespace)) }
        for (node, expected) in [(Node.re0, "10.77.0.1"), (.re1, "10.77.0.2"), (.peer, "5.5.5.4")] {
          let addresses = try await lab.run(["ip", "-brief", "address"], on: node)
          #expect(addresses.contains { $0.contains(expected + "/24") })
          #expect(node != .peer || addresses.contains { $0.contains(Family.v6.peer + "/64") })
          for family in Family.allCases {
            #expect(!addresses.contains { $0.contains(family.replicated + "/") })
          }
        }
        sleeper = try lab.start("sleeper", on: .re0, ["sleep", "1000"])
        try await lab.run(["bash", "-c", "echo re0 >/run/jsr/name"], on: .re0)
        try await lab.run(["bash", "-c", "echo re1 >/run/jsr/name"], on: .re1)
        #expect(try await lab.run(["cat", "/run/jsr/name"], on: .re0) == ["re0"])
        #expect(try await lab.run(["cat", "/run/jsr/name"], on: .re1) == ["re1"])
        #expect(!FileManager.default.fileExists(atPath: "/run/jsr/name"))
      }
      for namespace in namespaces { #expect(!FileManager.default.fileExists(atPath: namespace)) }
      #expect(try #require(sleeper).end == .killed(signal: SIGKILL))
    }

    /// Gives the replicated addresses to a node for good, with no engine there.
    private static func giveAddresses(to node: Node, in lab: Lab) async throws {
      for family in Family.allCases {
        try await lab.run(["ip", "address", "add", family.prefix, "dev", "eth0"], on: node)
      }
    }

    @Test("a watch on what a routing engine claims sees each way to do so", .timeLimit(.minutes(1)))
    func watchSeesClaims() async throws {
      try await Lab.run("watch-claims") { lab in
        let watch = try await ClaimWatch(of: .re0, in: lab)
        try await Self.giveAddresses(to: .re0, in: lab)
        // The answers to the peer's questions for the hardware address, and what is sent behind them.
        for family in Family.allCases {
          try await lab.run(["ping", "-c", "1", "-W", "2", family.replicated], on: .peer)
        }
        let claims = try await watch.finish().map(\.description)
        #expect(claims.contains { $0.hasPrefix("ARP, Reply 5.5.5.5 is-at") }, "\(claims)")
        #expect(claims.contains { $0.contains("5.5.5.5 > 5.5.5.4: ICMP echo reply") }, "\(claims)")
        #expect(claims.contains { $0.contains("neighbor advertisement, tgt is 2001:db8:5::5") }, "\(claims)")
        #expect(
          claims.contains { $0.contains("2001:db8:5::5 > 2001:db8:5::4: ICMP6, echo reply") }, "\(claims)")
      }
    }

    @Test("a pulled cable takes the carrier away, and comes back", .timeLimit(.minutes(1)))
    func cables() async throws {
      try await Lab.run("cables") { lab in
        func carrier(_ interface: String, _ node: Node) async throws -> [String] {
          try await lab.run(["cat", "/sys/class/net/\(interface)/carrier"], on: node)
        }
        try await lab.cut(.uplink, of: .re0)
        #expect(try await carrier("eth0", .re0) == ["0"])
        #expect(try await carrier("eth0", .re1) == ["1"])
        try await lab.cut(.link, of: .re1)
        #expect(try await carrier("link0", .re1) == ["0"])
        try await lab.mend(.uplink, of: .re0)
        try await lab.mend(.link, of: .re1)
        #expect(try await carrier("eth0", .re0) == ["1"])
        #expect(try await carrier("link0", .re1) == ["1"])
      }
    }

    @Test("a watch on the peer's link sees a connection that is reset", .timeLimit(.minutes(1)))
    func watchSeesReset() async throws {
      try await Lab.run("watch-reset") { lab in
        try await Self.giveAddresses(to: .re0, in: lab)
        let watch = try await ConnectionWatch(in: lab)
        for (count, family) in zip(1..., Family.allCases) {
          let refused = try lab.start(
            "refused-\(family)", on: .peer, ["bash", "-c", "exec 3<>/dev/tcp/\(family.replicated)/16000"])
          #expect(try await refused.waitForEnd(within: .seconds(5)) == .exited(1))
          try await eventually(within: .seconds(5), "the watch sees a reset") {
            watch.events.resets.count == count
          }
        }
        let events = try await watch.finish()
        #expect(events.connectionCount == 2)
        #expect(events.resets.count == 2)
        #expect(events.unaskedFins.isEmpty)
      }
    }

    @Test("without replication the peer notices that a server is killed", .timeLimit(.minutes(1)))
    func plainServerKilled() async throws {
      try await Lab.run("plain-killed") { lab in
        try await Self.giveAddresses(to: .re0, in: lab)
        let server = try lab.start(
          "jsrutil", on: .re0, [Binaries.path(of: "jsrutil"), "--plain", "--node", "0", "--quiet"])
        try await eventually(within: .seconds(5), "the server listens") {
          try await !lab.run(["ss", "-tlnH", "sport", "=", ":16000"], on: .re0).isEmpty
        }
        let watch = try await ConnectionWatch(in: lab)
        let well = try PeerTraffic("jsrpeer-well", in: lab, ["-n", "3", "-m", "50", "--quiet"])
        let (good, goodEnd) = try await well.finish(within: .seconds(10))
        #expect(goodEnd == .exited(0), "\(well.program.lastWords)")
        #expect(good.sent == 150 && good.echoedByRe0 == 150 && good.faults == 0)
        try await eventually(within: .seconds(5), "both sides have closed") {
          watch.events.filter(\.isFin).count == 6
        }
        #expect(watch.events.unaskedFins.isEmpty && watch.events.resets.isEmpty)
        #expect(try await KernelSocket.all(on: .re0, in: lab).allSatisfy { $0.state != "ESTAB" })

        let badly = try PeerTraffic("jsrpeer-badly", in: lab, ["-n", "3", "-m", "0", "--quiet"])
        try await eventually(within: .seconds(5), "three connections stand") {
          let sockets = try await KernelSocket.all(on: .re0, in: lab).filter { $0.state == "ESTAB" }
          return sockets.count == 3
            && sockets.allSatisfy {
              $0.options == ["ts", "sack", "wscale"]
                && $0.values["mss"] == "\(Family(ofEnd: $0.local).segmentSize)"
            }
        }
        try await server.killAndWait()
        let (bad, badEnd) = try await badly.finish(within: .seconds(10))
        #expect(badEnd == .exited(1))
        #expect(bad.unexpectedEnds == 3)
        let events = try await watch.finish()
        #expect(events.connectionCount == 6)
        #expect(events.unaskedFins.count + events.resets.count >= 3)
      }
    }

    @Test(
      "a watch on memory sees a program that grows, and lets one pass that does not", .timeLimit(.minutes(1)))
    func watchSeesGrowth() async throws {
      try await Lab.run("watch-memory") { lab in
        let sleeping = "while :; do sleep 0.05; done"
        let growing = try lab.start(
          "growing", on: .peer,
          ["bash", "-c", "text=; while :; do printf -v more '%100000s' ''; text+=$more; sleep 0.02; done"])
        let still = try lab.start("still", on: .peer, ["bash", "-c", sleeping])
        let watch = ResourceWatch(["growing": growing, "still": still], every: .milliseconds(100))
        try await Task.sleep(for: .seconds(3))
        let samples = await watch.finish()
        #expect(try #require(samples["growing"]).growth() > 1_048_576)
        #expect(try #require(samples["still"]).growth() < 262_144)
        #expect(samples["still"]?.allSatisfy { $0.descriptors >= 3 } == true)
        #expect(throws: LabFailure.self) { try Array(samples["still"]?.prefix(9) ?? []).growth() }
      }
    }

    @Test("a stopped program does nothing until it is continued", .timeLimit(.minutes(1)))
    func stopping() async throws {
      try await Lab.run("stopping") { lab in
        let ticking = try lab.start(
          "ticking", on: .re0, ["bash", "-c", "while :; do echo tick; sleep 0.02; done"])
        try await ticking.waitForLine(containing: "tick", within: .seconds(5))
        ticking.send(SIGSTOP)
        try await Task.sleep(for: .milliseconds(100))
        let count = ticking.output.count
        try await Task.sleep(for: .milliseconds(300))
        #expect(ticking.output.count == count)
        ticking.send(SIGCONT)
        try await eventually(within: .seconds(5), "it ticks again") { ticking.output.count > count }
      }
    }
  }
}

import Foundation
import Glibc
import Testing

extension LabSuite {
  /// TESTPLAN 7.2.
  @Suite("the protection of the inter-RE link")
  struct LinkSecurity {
    enum Wrong: CaseIterable, Sendable {
      case authority, name, plainText
    }

    private func configuration(_ wrong: Wrong, in lab: Lab) throws -> EngineConfiguration {
      var configuration = EngineConfiguration()
      let folder = "\(lab.directory)/wrong"
      switch wrong {
      case .authority: configuration.keys = try LinkKeyFiles.make(at: folder)
      case .name:
        // Of the same authority, for somebody else.
        try FileManager.default.copyItem(atPath: try LinkKeyFiles.shared, toPath: folder)
        try LinkKeyFiles.jsrctl(["renew", folder, "--names", "re2,re3"])
        for end in ["pem", "key"] {
          _ = rename("\(folder)/re2.\(end)", "\(folder)/re1.\(end)")
        }
        configuration.keys = folder
        configuration.certificateName = "re2"
      case .plainText: configuration.insecure = true
      }
      return configuration
    }

    @Test(
      "7.2 an engine without the right keys is refused, and nobody takes that for the end of the other one",
      .timeLimit(.minutes(1)), arguments: Wrong.allCases)
    func wrongKeys(_ wrong: Wrong) async throws {
      try await Lab.run("7.2-wrong-\(wrong)") { lab in
        let pair = EnginePair(unstarted: lab)
        try await pair.re0.startEngine()
        try await pair.re0.waitUntilPrimary()
        let stranger = RoutingEngine(.re1, in: lab, configuration: try configuration(wrong, in: lab))
        try await stranger.startEngine()
        try await pair.re0.engine.waitForLine(
          containing: "KKCM connection with 10.77.0.2 refused: ", within: .seconds(5))
        let reason =
          switch wrong {
          case .authority: "TLS: TLSV1_ALERT_UNKNOWN_CA"
          case .name: "its certificate is for re2, not for re1 (link.tls.peer)"
          case .plainText: "TLS: "
          }
        #expect(try pair.re0.engine.errors.contains { $0.contains("refused: \(reason)") })
        #expect(try await pair.re0.status().linkSecurity == "tls")
        if wrong == .plainText {
          #expect(try await stranger.status().linkSecurity == "insecure")
          #expect(
            try stranger.engine.errors.contains {
              $0.contains("link.insecure: the inter-RE link is plain text")
            })
        }
        try await eventually(within: .seconds(10), "it tries again and again") {
          try await pair.re0.figures()["kkcm.connections_refused"] ?? 0 > 8
        }
        for engine in [pair.re0, stranger] {
          #expect(try await !engine.status().peer.linkUp)
          #expect(try await engine.figures()["kkcm.link_sessions"] == 0)
          // Not a line for each.
          #expect(try engine.engine.errors.count { $0.contains(" refused: ") } <= 8)
        }
        #expect(try await pair.re0.status().role == "primary")
        #expect(try await stranger.status().role != "primary")

        // With the right ones it is the other RE. From plain text to TLS it takes a restart.
        if wrong == .plainText {
          try await stranger.engine.killAndWait()
          try await pair.re1.startEngine()
        } else {
          try stranger.reconfigure(try EngineConfiguration().text(for: .re1))
        }
        try await pair.waitUntilInStep(primary: pair.re0)
      }
    }

    @Test(
      "7.2 what cannot be deciphered ends the link with a reason, no engine, and no connection",
      .timeLimit(.minutes(1)))
    func broken() async throws {
      try await Lab.run("7.2-broken") { lab in
        let relay = try await SplittingRelay(in: lab, splits: false)
        var configuration = EngineConfiguration()
        configuration.relayPort = SplittingRelay.port
        let pair = try await EnginePair(in: lab, configuration: configuration)
        let traffic = try await WatchedTraffic(pair, connections: 3, ["-m", "0", "-w", "5", "--quiet"])
        let term = try await pair.re0.figures()["mastership.term"]
        let garbage = Array("GET / HTTP/1.1\r\nHost: re0\r\n\r\n".utf8)
        // The header of a record of TLS that is longer than any may be; and of one that is not all there.
        let oversized: [UInt8] = [0x17, 3, 3, 0xff, 0xff] + [UInt8](repeating: 0, count: 0xffff)
        let truncated: [UInt8] = [0x17, 3, 3, 0x40, 0] + [UInt8](repeating: 0, count: 1000)
        let attacks: [(bytes: [UInt8], node: Node, ends: Bool)] = [
          (garbage, .re0, false), (garbage, .re1, false), (oversized, .re0, false), (oversized, .re1, false),
          (truncated, .re0, true), (truncated, .re1, true),
        ]
        for (number, attack) in attacks.enumerated() {
          let before = try await pair.re0.figures()["iha.sockets_unreplicated"] ?? 0
          try relay.say(attack.bytes, to: attack.node, ends: attack.ends)
          try await eventually(within: .seconds(10), "the link is up again after attack \(number)") {
            let figures = try await pair.re0.figures()
            return figures["kkcm.link_sessions"] == number + 2
              && figures["iha.sockets_unreplicated"] ?? 0 >= before + 3
          }
          try await pair.waitUntilInStep(primary: pair.re0)
          try await pair.waitUntilReplicated(3, primary: pair.re0)
        }
        for engine in [pair.re0, pair.re1] {
          let reasons = try engine.engine.errors.filter { $0.contains("KKCM link broken: TLS: ") }
          // Each alert is one more reason, at the other side.
          #expect(reasons.count >= 2, "\(reasons)")
        }
        #expect(try await pair.re0.figures()["mastership.term"] == term, "mastership never moved")
        try await traffic.waitUntilFlowing()
        try await traffic.stop(living: [pair.re0, pair.re1])
        relay.end()
      }
    }

    @Test(
      "7.2 a stranger at the right address neither disturbs a link nor keeps one from coming up",
      .timeLimit(.minutes(1)))
    func flood() async throws {
      try await Lab.run("7.2-flood") { lab in
        let pair = try await EnginePair(in: lab)
        let traffic = try await WatchedTraffic(pair, connections: 3, ["-m", "0", "-w", "5", "--quiet"])
        let flood = try await LinkFlood(in: lab)
        try await eventually(within: .seconds(10), "the flood is there") { flood.count > 1000 }
        try await traffic.waitUntilFlowing()
        #expect(try await pair.re0.figures()["kkcm.link_sessions"] == 1)
        #expect(try await pair.re0.figures()["kkcm.connections_refused"] ?? 0 > 500)

        // Without its engine, re1 is nothing but the stranger.
        try await pair.re1.engine.killAndWait()
        let count = flood.count
        try await eventually(within: .seconds(10), "the flood goes on") { flood.count > count + 1000 }
        let descriptors = try await pair.re0.levels()["descriptors"] ?? 0
        try await pair.re1.startEngine()
        let start = ContinuousClock.now
        try await pair.waitUntilInStep(primary: pair.re0, within: .seconds(20))
        print("7.2: in step \(ContinuousClock.now - start) after the start, through a flood of strangers")
        try await pair.waitUntilReplicated(3, primary: pair.re0)
        #expect(descriptors < 100, "connections of strangers are not kept")
        try await traffic.waitUntilFlowing()
        #expect(try await pair.re0.figures()["kkcm.link_sessions"] == 2)
        #expect(try pair.re0.engine.errors.count { $0.contains(" refused: ") } < 20)
        try await flood.end()
        try await traffic.stop(living: [pair.re0, pair.re1])
      }
    }

    @Test("new keys are taken over by SIGHUP, under traffic, and the link stays", .timeLimit(.minutes(1)))
    func renewal() async throws {
      try await Lab.run("link-keys-renewal") { lab in
        var configuration = EngineConfiguration()
        let keys = try LinkKeyFiles.make(at: "\(lab.directory)/keys")
        configuration.keys = keys
        let pair = try await EnginePair(in: lab, configuration: configuration)
        let traffic = try await WatchedTraffic(pair, connections: 3, ["-m", "0", "-w", "5", "--quiet"])
        let engines = [pair.re0, pair.re1]
        let before = try await pair.re0.status().certificateExpires

        // Half of a new pair of files: nothing is taken over.
        let old = try Data(contentsOf: URL(fileURLWithPath: "\(keys)/re0.key"))
        try Data("nonsense".utf8).write(to: URL(fileURLWithPath: "\(keys)/re0.key"))
        try pair.re0.engine.send(SIGHUP)
        try await pair.re0.engine.waitForLine(
          containing: "all stays as it was: link.tls.key: \(keys)/re0.key: holds no private key",
          within: .seconds(5))
        try old.write(to: URL(fileURLWithPath: "\(keys)/re0.key"))

        try LinkKeyFiles.jsrctl(["renew", keys, "--days", "20"])
        // One after the other: the link has to come up between an old and a new one as well.
        for engine in engines {
          try engine.engine.send(SIGHUP)
          try await engine.engine.waitForLine(
            containing: "configuration read again: the next link uses the certificate", within: .seconds(5))
          try await engine.engine.waitForLine(containing: " days; renew it", within: .seconds(5))
          let now = try await engine.status().certificateExpires
          #expect(now != nil && now != before)
          #expect(try await pair.re0.figures()["kkcm.link_sessions"] == 1)
          try await traffic.waitUntilFlowing()
        }
        #expect(try await pair.re0.figures()["iha.sockets_unreplicated"] == 0)
        try await pair.re1.engine.killAndWait()
        try await pair.re1.startEngine()
        try await pair.waitUntilInStep(primary: pair.re0)
        try await pair.waitUntilReplicated(3, primary: pair.re0)
        try await traffic.stop(living: engines)
      }
    }
  }
}

import Foundation
import Glibc
import Testing

extension LabSuite {
  /// What DESIGN 6 promises to operators: every command of jsrctl, and SIGHUP.
  @Suite("the operator")
  struct Operating {
    /// What one line of JSON says.
    private func document(_ lines: [String]) throws -> Any {
      try #require(lines.count == 1, "\(lines)")
      return try JSONSerialization.jsonObject(with: Data(lines[0].utf8))
    }

    /// Runs jsrctl, which must do what it is told.
    private func done(_ engine: RoutingEngine, _ line: String) async throws -> [String] {
      let (end, output, errors) = try await engine.jsrctl(line.split(separator: " ").map(String.init))
      #expect(end == .exited(0), "jsrctl \(line): \(errors)")
      #expect(errors == [], "jsrctl \(line)")
      return output
    }

    /// Runs jsrctl, which must be refused.
    private func refusal(_ engine: RoutingEngine, _ line: String) async throws -> String {
      let (end, output, errors) = try await engine.jsrctl(line.split(separator: " ").map(String.init))
      #expect(end == .exited(1), "jsrctl \(line)")
      #expect(output == [])
      #expect(errors.count == 1)
      return errors.first ?? ""
    }

    private func clientCount(_ engine: RoutingEngine) async throws -> Int? {
      let areas = try document(try await done(engine, "--json show memory")) as? [[String: Any]]
      return areas?.first { $0["area"] as? String == "clients" }?["used"] as? Int
    }

    @Test("jsrctl show says the same in text and in JSON, on both engines", .timeLimit(.minutes(1)))
    func reports() async throws {
      try await Lab.run("jsrctl-show") { lab in
        let pair = try await EnginePair(in: lab)
        let traffic = try await WatchedTraffic(pair, connections: 2, ["-m", "0", "-w", "3600000"])
        for engine in [pair.re0, pair.re1] {
          for report in ["sockets", "connections", "statistics", "memory"] {
            let text = try await done(engine, "show \(report)")
            let list = try #require(
              try document(try await done(engine, "--json show \(report)")) as? [[String: Any]])
            #expect(text.count == list.count + 1, "a line of titles, and one for each of \(report)")
            #expect(!list.isEmpty)
            for (line, entry) in zip(text.dropFirst(), list) {
              for key in ["handle", "local", "foreign", "area", "name", "layer", "unit", "state"] {
                if let word = entry[key] as? String { #expect(line.contains(word), "\(key) in \(line)") }
              }
            }
          }
          let text = try await done(engine, "show status")
          let status = try #require(
            try document(try await done(engine, "--json show status")) as? [String: Any])
          #expect(text.contains { $0.hasPrefix("role") && $0.hasSuffix(status["role"] as? String ?? "?") })
          #expect(text.contains { $0.hasPrefix("node") && $0.contains(engine.node.rawValue) })
        }
        let areas = try #require(
          try document(try await done(pair.re0, "--json show memory")) as? [[String: Any]])
        let resident = try #require(areas.first { $0["area"] as? String == "resident" }?["used"] as? Int)
        #expect((1 << 20...1 << 30).contains(resident))
        #expect(areas.first { $0["area"] as? String == "handles" }?["used"] as? Int == 2)
        #expect(areas.first { $0["area"] as? String == "hold_buffer" }?["limit"] as? Int == 64 << 20)
        try await traffic.stop(living: [pair.re0, pair.re1])
      }
    }

    @Test("settings are shown as they are in force, and changed while traffic flows", .timeLimit(.minutes(1)))
    func settings() async throws {
      try await Lab.run("jsrctl-settings") { lab in
        var configuration = EngineConfiguration()
        configuration.debug = true
        let pair = try await EnginePair(in: lab, configuration: configuration)
        let traffic = try await WatchedTraffic(pair, connections: 1, ["-m", "0", "-w", "10"])
        let expected = [
          "prl.timeout": "1s", "sdrl.timeout": "1s", "psrm.timeout": "1s", "mode": "overlap",
          "log.level": "info", "on-application-failure": "switchover", "debug": "true",
          "debug.hold-acks": "none", "limits.sockets": "20000", "limits.snoop-buffer": "4MiB",
          "limits.hold-buffer": "64MiB", "limits.record": "1MiB",
        ]
        for (name, value) in expected {
          #expect(try await done(pair.re0, "get \(name)") == [value])
          let setting = try document(try await done(pair.re0, "--json get \(name)")) as? [String: String]
          #expect(setting == ["name": name, "value": value])
        }

        #expect(try await done(pair.re0, "set prl.timeout 20s") == [])
        #expect(try await done(pair.re0, "get prl.timeout") == ["20s"])
        let set = try document(try await done(pair.re0, "set --json psrm.timeout 30s")) as? [String: String]
        #expect(set == ["name": "psrm.timeout", "value": "30s"])
        #expect(
          try await refusal(pair.re0, "set prl.timeout 2m")
            == "jsrctl: prl.timeout must be from 10ms to 60s, not 2m")
        #expect(try await done(pair.re0, "get prl.timeout") == ["20s"])

        #expect(try await done(pair.re1, "log level debug") == [])
        #expect(try await done(pair.re1, "get log.level") == ["debug"])
        try await pair.re1.engine.waitForLine(containing: " debug ", within: .seconds(5))
        #expect(try document(try await done(pair.re1, "--json log level info")) as? [String: String] == [:])

        // What was lowered while acknowledgements were held ends replication; the traffic goes on.
        let name = try #require(try await pair.re0.sockets().first).handle
        _ = try await done(pair.re0, "set sdrl.timeout 20s")
        #expect(try await done(pair.re1, "debug hold-acks prl on") == [])
        #expect(try await done(pair.re1, "get debug.hold-acks") == ["prl"])
        try await Task.sleep(for: .milliseconds(1_500))
        #expect(try await pair.re0.sockets().map(\.state) == ["replicating"])
        _ = try await done(pair.re0, "set prl.timeout 100ms")
        try await pair.re0.engine.waitForLine(
          containing: "socket \(name) unreplicated: PRL timeout", within: .seconds(5))
        #expect(
          try document(try await done(pair.re1, "--json debug hold-acks prl off")) as? [String: String] == [:]
        )
        #expect(try await done(pair.re1, "get debug.hold-acks") == ["none"])
        let echoes = traffic.peer.echoLines.count
        try await eventually(within: .seconds(5), "the traffic goes on") {
          traffic.peer.echoLines.count > echoes + 10
        }
        try await traffic.stop(living: [pair.re0, pair.re1])
      }
    }

    @Test("fault injection is refused unless the configuration allows it", .timeLimit(.minutes(1)))
    func noDebugging() async throws {
      try await Lab.run("jsrctl-debug") { lab in
        let engine = RoutingEngine(.re0, in: lab)
        try await engine.startEngine()
        #expect(
          try await refusal(engine, "debug hold-acks sdrl on")
            == "jsrctl: debugging is off: set debug: true in the configuration")
        #expect(try await done(engine, "get debug.hold-acks") == ["none"])
      }
    }

    @Test("an operator ends the replication of one socket, and moves mastership", .timeLimit(.minutes(1)))
    func unreplicate() async throws {
      try await Lab.run("jsrctl-unreplicate") { lab in
        let pair = try await EnginePair(in: lab)
        let jsrctl = try Binaries.path(of: "jsrctl")
        let lines = try lab.start("monitor", on: .re0, [jsrctl, "monitor"])
        let documents = try lab.start("monitor-json", on: .re1, [jsrctl, "monitor", "--json"])
        for engine in [pair.re0, pair.re1] {
          // The echo server, the monitor, and whoever asks.
          try await eventually(within: .seconds(5), "the monitor on \(engine.node) is connected") {
            try await clientCount(engine) == 3
          }
        }
        let traffic = try await WatchedTraffic(pair, connections: 2, ["-m", "0", "-w", "10"])
        let victim = try #require(try await pair.re0.sockets().first)

        // The shell knows which handles there are.
        let proposed = try await lab.run(
          [
            "bash", "-c",
            """
            source <(\(jsrctl) --generate-completion-script bash)
            COMP_WORDS=(\(jsrctl) unreplicate ''); COMP_CWORD=2
            COMP_LINE="jsrctl unreplicate "; COMP_POINT=19
            _jsrctl "${COMP_WORDS[0]}" '' unreplicate
            printf '%s\\n' "${COMPREPLY[@]}"
            """,
          ], on: .re0)
        for socket in try await pair.re0.sockets() {
          #expect(proposed.contains(socket.handle), "\(proposed)")
        }

        #expect(try await done(pair.re0, "unreplicate \(victim.handle)") == [])
        let reason = "requested by an operator"
        try await lines.waitForLine(
          containing: "unreplicated \(victim.handle): \(reason)", within: .seconds(5))
        let event = try await documents.waitForLine(containing: "\"unreplicated\"", within: .seconds(5))
        #expect(event.contains("\"reason\":\"\(reason)\""))
        // Its application gives the handle back, and may replicate the socket anew under another.
        #expect(try await refusal(pair.re0, "unreplicate \(victim.handle)").contains(victim.handle))
        #expect(try await refusal(pair.re0, "unreplicate 0xffffff00000007").contains("0xffffff00000007"))
        let echoes = traffic.peer.echoLines.count
        try await eventually(within: .seconds(5), "the traffic goes on") {
          traffic.peer.echoLines.count > echoes + 10
        }
        try await traffic.stop(living: [pair.re0, pair.re1])

        #expect(try await done(pair.re0, "request master switch") == [])
        try await pair.waitUntilInStep(primary: pair.re1)
        try await lines.waitForLine(containing: "mastership lost", within: .seconds(5))
        #expect(
          try document(try await done(pair.re0, "--json request master acquire")) as? [String: String] == [:])
        try await pair.waitUntilInStep(primary: pair.re0)
        #expect(try await refusal(pair.re0, "request master acquire").contains("primary"))
      }
    }

    @Test("jsrctl top goes on through a switchover, on a terminal and off it", .timeLimit(.minutes(1)))
    func top() async throws {
      try await Lab.run("jsrctl-top") { lab in
        let pair = try await EnginePair(in: lab)
        let traffic = try await WatchedTraffic(pair, connections: 2, ["-m", "0", "-w", "10"])
        let jsrctl = try Binaries.path(of: "jsrctl")
        let screen = try lab.start(
          "top", on: .re1,
          ["script", "-qfec", "stty rows 20 cols 100; \(jsrctl) top --count 8", "/dev/null"])
        let documents = try lab.start("top-json", on: .re1, [jsrctl, "top", "--json", "--count", "4"])
        try await screen.waitForLine(containing: "re1: secondary", within: .seconds(5))
        try await pair.re0.requestMaster("switch")
        try await screen.waitForLine(containing: "re1: primary", within: .seconds(8))
        try await screen.waitForLine(containing: "mastership gained", within: .seconds(8))
        #expect(try await documents.waitForEnd(within: .seconds(15)) == .exited(0))
        #expect(try await screen.waitForEnd(within: .seconds(20)) == .exited(0))
        let output = screen.output.joined(separator: "\n")
        #expect(output.contains("\u{1b}[?1049h") && output.contains("\u{1b}[?1049l"))
        #expect(documents.output.count == 4)
        for line in documents.output {
          let sample = try #require(try document([line]) as? [String: Any])
          #expect(
            Set(sample.keys) == ["status", "sockets", "connections", "statistics", "memory"])
        }
        let text = try await done(pair.re1, "top --count 1")
        #expect(text.first?.hasPrefix("re1: primary") == true)
        try await traffic.stop(living: [pair.re0, pair.re1])
      }
    }

    @Test("SIGHUP takes over what can change, and names what cannot", .timeLimit(.minutes(1)))
    func signal() async throws {
      try await Lab.run("sighup") { lab in
        var configuration = EngineConfiguration()
        configuration.debug = true
        let engine = RoutingEngine(.re0, in: lab, configuration: configuration)
        try await engine.startEngine()
        _ = try await done(engine, "debug hold-acks prl on")
        _ = try await done(engine, "set sdrl.timeout 7s")

        let text = try configuration.text(for: .re0)
        try engine.reconfigure(text + "nonsense: 1\n")
        try await engine.engine.waitForLine(
          containing: "configuration not read again, all stays as it was", within: .seconds(5))
        #expect(try await done(engine, "get sdrl.timeout") == ["7s"])

        let changed =
          text.replacing("debug: true", with: "debug: false")
          .replacing("priority: 100", with: "priority: 200")
          + "timeouts: { prl: 300ms }\non-application-failure: close\n"
        try engine.reconfigure(changed)
        try await engine.engine.waitForLine(
          containing: "mastership.priority has changed, which takes effect after a restart",
          within: .seconds(5))
        for (name, value) in [
          ("prl.timeout", "300ms"), ("sdrl.timeout", "1s"), ("on-application-failure", "close"),
          ("debug", "false"), ("debug.hold-acks", "none"), ("log.level", "info"),
        ] { #expect(try await done(engine, "get \(name)") == [value], "\(name)") }
        #expect(try await refusal(engine, "debug hold-acks prl on").contains("debugging is off"))

        try engine.reconfigure(changed.replacing("level: info", with: "level: debug"))
        try await eventually(within: .seconds(5), "the log level changes") {
          try await done(engine, "get log.level") == ["debug"]
        }
        try engine.engine.send(SIGTERM)
        #expect(try await engine.engine.waitForEnd(within: .seconds(10)) == .exited(0))
        #expect(try engine.engine.errors.contains { $0.contains("jsrd ends") })
      }
    }
  }
}

import Control
import Glibc
import Testing

extension LabSuite {
  /// The peer is reached through a second network namespace, in which the same addresses are in use.
  @Suite("routing instances")
  struct RoutingInstances {
    /// What runs in one routing instance.
    private struct Side {
      let name: String
      let servers: [Program]
      let instances: [Program]
      let peer: PeerTraffic
      let miniPeer: Program

      /// - Parameters:
      ///   - vrf: of the instance, on both routing engines.
      ///   - firstPort: of the routing engines: of TCP; that of UDP is the next.
      ///   - milliseconds: between the datagrams of each end, so that the numbers of two sides differ.
      init(
        _ name: String, _ nodes: (re0: Node, re1: Node, peer: Node), vrf: String? = nil,
        firstPort: Int = 16000,
        in lab: Lab, milliseconds: Int
      ) async throws {
        self.name = name
        servers = try [nodes.re0, nodes.re1].map { node in
          try lab.start(
            "\(node.rawValue)-\(name)-jsrutil", on: node,
            [
              try Binaries.path(of: "jsrutil"), "-a", "jsr_echo_server", "--rendezvous", "--service",
              "echo-\(name)",
              "-v", "--quiet", "-p", "\(firstPort)",
            ] + (vrf.map { ["--vrf", $0] } ?? []))
        }
        miniPeer = try await Datagrams.startPeer(
          "\(nodes.peer.rawValue)-jsrpeer_mini", in: lab, on: nodes.peer, milliseconds: milliseconds)
        instances = try [(nodes.re0, 0), (nodes.re1, 1)].map { node, part in
          try lab.start(
            "\(node.rawValue)-\(name)-jsrutil_mini", on: node,
            [
              try Binaries.path(of: "jsrutil_mini"), "-w", "\(milliseconds)", "--service", "mini-\(name)",
              "-p", "\(firstPort + 1)",
            ] + (vrf.map { ["--vrf", $0, "--local", "5.5.5.5"] } ?? []) + ["5.5.5.4", "7000", "\(part)"])
        }
        try await RoutingInstances.waitUntilListening(nodes.re0, port: firstPort, in: lab)
        peer = try PeerTraffic(
          "\(nodes.peer.rawValue)-jsrpeer", in: lab, on: nodes.peer,
          families: vrf == nil ? Family.allCases : [.v4],
          port: firstPort, ["-n", "5", "-m", "0", "-w", "5", "--quiet"])
      }

      /// Ends everything, and checks what both ends have counted.
      func stop() async throws {
        let (summary, peerEnd) = try await peer.stop()
        #expect(
          peerEnd == .exited(0) && summary.faults == 0, "\(name): \(summary), \(peer.program.lastWords)")
        #expect(summary.echoedByRe0 > 0 && summary.echoedByRe1 > 0, "\(name): \(summary)")
        for program in instances {
          program.send(SIGINT)
          let end = try await program.waitForEnd(within: .seconds(10))
          #expect(end == .exited(0), "\(name): \(program.lastWords)")
          Datagrams.expectAllCame(to: program)
        }
        miniPeer.send(SIGINT)
        let end = try await miniPeer.waitForEnd(within: .seconds(10))
        #expect(end == .exited(0), "\(name): \(miniPeer.lastWords)")
        #expect(miniPeer.output.count { $0.hasPrefix("partner ") } == 1, "\(name)")
        for server in servers {
          server.send(SIGINT)
          try await server.waitForEnd(within: .seconds(10))
        }
      }
    }

    private static func waitUntilListening(_ node: Node, port: Int = 16000, in lab: Lab) async throws {
      try await eventually(within: .seconds(10), "the echo server on \(node.rawValue) listens") {
        try await !lab.run(["ss", "-tlnH", "sport", "=", ":\(port)"], on: node).isEmpty
      }
    }

    @Test(
      "3.17 routing instances: the same addresses and ports in two of them stay apart, also across a switchover",
      .timeLimit(.minutes(2)))
    func twoInstances() async throws {
      try await Lab.run("3.17") { lab in
        try await lab.addInstance()
        var configuration = EngineConfiguration()
        configuration.blueOf = lab.id
        let pair = try await EnginePair(withoutServersIn: lab, configuration: configuration)
        try await stayApart(pair, (.re0Blue, .re1Blue, .peerBlue), vrf: nil, in: lab)
      }
    }

    @Test(
      "3.17 routing instances: the same in the main one and in a VRF of the same namespace",
      .timeLimit(.minutes(2)))
    func vrf() async throws {
      try await Lab.run("3.17-vrf") { lab in
        try await lab.addInstance()
        let isVRF = try await lab.turnInstanceIntoVRF()
        if !isVRF { print("3.17: skipped with a VRF, which this kernel has not: a bridge takes its place") }
        var configuration = EngineConfiguration()
        configuration.vrf = "blue"
        let pair = try await EnginePair(withoutServersIn: lab, configuration: configuration)
        if !isVRF {
          for node in [Node.re0, .re1] { try await lab.isolateTap("jsr-1-0", on: node) }
        }
        #expect(try await pair.re0.status().instances?.map(\.vrf) == ["blue"])
        // Only with a VRF can the same port be had twice in a namespace.
        try await stayApart(
          pair, (.re0, .re1, .peerBlue), vrf: "blue", firstPort: isVRF ? 16000 : 16010, in: lab)
      }
    }

    /// The same traffic in the main instance and in blue, with a switchover there and back.
    private func stayApart(
      _ pair: EnginePair, _ nodes: (re0: Node, re1: Node, peer: Node), vrf: String?,
      firstPort: Int = 16000, in lab: Lab
    ) async throws {
      let levels = [try await pair.re0.levels(), try await pair.re1.levels()]
      let main = try await Side("main", (.re0, .re1, .peer), in: lab, milliseconds: 10)
      let blue = try await Side("blue", nodes, vrf: vrf, firstPort: firstPort, in: lab, milliseconds: 7)
      try await pair.waitUntilReplicated(12, primary: pair.re0)

      for engine in [pair.re0, pair.re1] {
        let sockets = try await engine.sockets()
        let apart = Dictionary(grouping: sockets) { $0.instance ?? "main" }
        #expect(apart["main"]?.count == 6 && apart["blue"]?.count == 6)
        let flows = apart.mapValues {
          Set($0.filter { $0.proto == "udp" }.map { "\($0.local ?? "") \($0.foreign ?? "")" })
        }
        #expect(flows["main"] == ["5.5.5.5:16001 5.5.5.4:7000"])
        #expect(flows["blue"] == ["5.5.5.5:\(firstPort + 1) 5.5.5.4:7000"])
        #expect(Set(sockets.map(\.handle)).count == 12)
        for instance in ["main", "blue"] {
          let (end, output, _) = try await engine.jsrctl(["show", "connections", "--instance", instance])
          #expect(end == .exited(0) && output.count == 7, "\(output)")
        }
        let (end, _, errors) = try await engine.jsrctl(["show", "sockets", "--instance", "green"])
        #expect(end == .exited(1) && errors.first?.contains("no routing instance green") == true)
        #expect(try await engine.status().instances?.map(\.name) == ["blue"])
      }

      for (old, new) in [(pair.re0, pair.re1), (pair.re1, pair.re0)] {
        try await old.requestMaster("switch")
        try await new.waitUntilPrimary()
        try await pair.waitUntilInStep(primary: new)
        try await pair.waitUntilReplicated(12, primary: new)
        try await Task.sleep(for: .milliseconds(500))
      }
      for side in [main, blue] { try await side.stop() }
      await pair.re0.checkNothingIsLeft(since: levels[0])
      await pair.re1.checkNothingIsLeft(since: levels[1])
    }

    @Test(
      "3.17 routing instances: connections of both go on when the primary is lost, and nothing crosses",
      .timeLimit(.minutes(1)))
    func primaryLost() async throws {
      try await Lab.run("3.17-lost") { lab in
        try await lab.addInstance()
        var configuration = EngineConfiguration()
        configuration.blueOf = lab.id
        let pair = try await EnginePair(withoutServersIn: lab, configuration: configuration)
        var traffic: [PeerTraffic] = []
        var servers: [Program] = []
        for (name, nodes) in [("main", [Node.re0, .re1, .peer]), ("blue", [.re0Blue, .re1Blue, .peerBlue])] {
          for node in nodes.dropLast() {
            servers.append(
              try lab.start(
                "\(node.rawValue)-jsrutil", on: node,
                [
                  try Binaries.path(of: "jsrutil"), "-a", "jsr_echo_server", "--rendezvous", "--service",
                  name, "-v",
                  "--quiet",
                ]))
          }
          try await Self.waitUntilListening(nodes[0], in: lab)
          traffic.append(
            try PeerTraffic(name, in: lab, on: nodes[2], ["-n", "5", "-m", "0", "-w", "5", "--quiet"]))
        }
        try await pair.waitUntilReplicated(10, primary: pair.re0)
        servers[0].send(SIGKILL)
        servers[2].send(SIGKILL)
        try await pair.re0.lose()
        try await pair.re1.waitUntilPrimary()
        try await Task.sleep(for: .seconds(1))
        for peer in traffic {
          let (summary, end) = try await peer.stop()
          #expect(end == .exited(0) && summary.faults == 0, "\(summary), \(peer.program.lastWords)")
          #expect(summary.echoedByRe0 > 0 && summary.echoedByRe1 > 0, "\(summary)")
          print("3.17: the longest gap a peer saw was \(summary.longestGapMs) ms")
        }
      }
    }
  }
}

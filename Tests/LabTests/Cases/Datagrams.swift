import Control
import Glibc
import Testing

extension LabSuite {
  /// UDP sockets, with the mini tools: both ends send numbered messages on their own account.
  @Suite("UDP")
  struct Datagrams {
    /// How the socket of the routing engines is made.
    struct Way: Sendable, CustomTestStringConvertible {
      var isConnected: Bool
      var peer: String
      /// More than a frame holds.
      var isFragmented = false
      var mode = EngineConfiguration.Mode.overlap

      var testDescription: String {
        "\(isConnected ? "connected" : "unconnected"), to \(peer)\(isFragmented ? ", fragments" : ""), \(mode.rawValue)"
      }
    }

    private static let peerPort = 7000

    /// Both engines with a mini instance each, and the peer, under way.
    private struct Traffic {
      let pair: EnginePair
      let peer: Program
      let instances: [Node: Program]
      let levels: [Node: [String: Int]]

      init(_ way: Way, in lab: Lab) async throws {
        var configuration = EngineConfiguration()
        configuration.mode = way.mode
        pair = try await EnginePair(withoutServersIn: lab, configuration: configuration)
        levels = [.re0: try await pair.re0.levels(), .re1: try await pair.re1.levels()]
        peer = try await Datagrams.startPeer(in: lab)
        var instances: [Node: Program] = [:]
        for node in [Node.re0, .re1] {
          instances[node] = try Self.start(way, on: node, part: node == .re0 ? 0 : 1, in: lab)
        }
        self.instances = instances
        try await pair.waitUntilReplicated(1, primary: pair.re0)
        try await flows(to: "re0")
      }

      static func start(_ way: Way, on node: Node, part: Int, in lab: Lab) throws -> Program {
        var words = [try Binaries.path(of: "jsrutil_mini"), "-w", "5"]
        if !way.isConnected { words.append("--unconnected") }
        if way.isFragmented { words += ["-l", "4000"] }
        return try lab.start(
          "\(node)-jsrutil_mini-\(part)", on: node, words + [way.peer, "\(Datagrams.peerPort)", "\(part)"])
      }

      /// Waits until the peer has heard of `node`, and `node` of the peer, a hundred times more.
      func flows(to node: String) async throws {
        let heard = peer.output.count { $0.contains(": \(node) ") }
        let answers = instances.values.reduce(0) {
          $0 + $1.output.count { $0.hasPrefix("\(node): received peer") }
        }
        try await eventually(within: .seconds(20), "datagrams flow to and from \(node); \(peer.lastWords)") {
          let nowHeard = peer.output.count { $0.contains(": \(node) ") }
          let nowAnswers = instances.values.reduce(0) {
            $0 + $1.output.count { $0.hasPrefix("\(node): received peer") }
          }
          return nowHeard >= heard + 100 && nowAnswers >= answers + 100
        }
      }

      /// Ends everything, and checks what each side has counted.
      ///
      /// - Parameter lossIsAllowed: what a dead primary had in hand is gone.
      func stop(_ living: [RoutingEngine], lossIsAllowed: Bool = false) async throws {
        for engine in living { instances[engine.node]?.send(SIGINT) }
        for engine in living {
          let program = try #require(instances[engine.node])
          #expect(try await program.waitForEnd(within: .seconds(10)) == .exited(0), "\(program.lastWords)")
          Datagrams.expectAllCame(to: program, lossIsAllowed: lossIsAllowed)
        }
        peer.send(SIGINT)
        let end = try await peer.waitForEnd(within: .seconds(10))
        if !lossIsAllowed { #expect(end == .exited(0), "\(peer.output.suffix(2))") }
        Datagrams.expectAllCame(to: peer, lossIsAllowed: lossIsAllowed)
        let summary = try #require(peer.output.last { $0.hasPrefix("partner ") })
        #expect(peer.output.count { $0.hasPrefix("partner ") } == 1, "both REs are one partner")
        print("3.14: \(summary)")
        for engine in living { await engine.checkNothingIsLeft(since: levels[engine.node] ?? [:]) }
      }
    }

    /// Starts jsrpeer_mini and waits until it listens: what is sent to a peer that is not there yet is lost.
    ///
    /// - Parameter milliseconds: between its datagrams.
    static func startPeer(
      _ name: String = "jsrpeer_mini", in lab: Lab, on node: Node = .peer, milliseconds: Int = 5
    ) async throws -> Program {
      let peer = try lab.start(
        name, on: node, [Binaries.path(of: "jsrpeer_mini"), "-w", "\(milliseconds)", "\(peerPort)"])
      try await eventually(within: .seconds(10), "jsrpeer_mini listens; \(peer.lastWords)") {
        peer.output.contains { $0.hasPrefix("listening") }
      }
      return peer
    }

    /// What a mini tool has counted: each datagram came, and came once. One that reached the old primary, and went over
    /// the link, may have come behind later ones.
    static func expectAllCame(
      to program: Program, lossIsAllowed: Bool = false, sourceLocation: SourceLocation = #_sourceLocation
    ) {
      let output = program.output
      #expect(
        !output.contains { $0.contains("REPEATED") || $0.contains("STRANGE") }, sourceLocation: sourceLocation
      )
      let counts = output.last { $0.contains(": sent up to ") || $0.hasPrefix("partner ") } ?? "no last line"
      #expect(
        counts.contains("repeated 0") && (lossIsAllowed || counts.contains("lost 0,")), "\(counts)",
        sourceLocation: sourceLocation)
    }

    private static let ways: [Way] = [
      Way(isConnected: true, peer: "5.5.5.4"), Way(isConnected: false, peer: "5.5.5.4"),
      Way(isConnected: true, peer: "2001:db8:5::4"),
      Way(isConnected: false, peer: "2001:db8:5::4", isFragmented: true),
      Way(isConnected: true, peer: "5.5.5.4", isFragmented: true, mode: .strict),
    ]

    @Test(
      "3.14 UDP: datagrams go on in both directions with the next number when mastership is switched, there and back",
      .timeLimit(.minutes(1)), arguments: ways)
    func switchover(way: Way) async throws {
      try await Lab.run("3.14-\(way.isConnected ? "c" : "u")\(way.isFragmented ? "f" : "")") { lab in
        let traffic = try await Traffic(way, in: lab)
        let shown = try #require(try await traffic.pair.re0.sockets().first)
        let isV6 = way.peer.contains(":")
        #expect(shown.proto == "udp" && shown.local == (isV6 ? "[2001:db8:5::5]:16001" : "5.5.5.5:16001"))
        let nobody = isV6 ? "[::]:0" : "0.0.0.0:0"
        let peer = isV6 ? "[2001:db8:5::4]:7000" : "5.5.5.4:7000"
        #expect(shown.foreign == (way.isConnected ? peer : nobody))
        for (old, new) in [(traffic.pair.re0, traffic.pair.re1), (traffic.pair.re1, traffic.pair.re0)] {
          try await old.requestMaster("switch")
          try await new.waitUntilPrimary()
          try await traffic.flows(to: new.node.rawValue)
          try await traffic.pair.waitUntilInStep(primary: new)
          try await traffic.pair.waitUntilReplicated(1, primary: new)
          try await traffic.flows(to: new.node.rawValue)
        }
        // Each datagram of each direction was on the descriptors of whoever followed, once and in order.
        for node in [Node.re0, .re1] {
          let lines = try #require(traffic.instances[node]).output
          #expect(lines.count { $0.contains("rcv descriptor") } > 100)
          #expect(lines.count { $0.contains("snd descriptor") } > 100)
        }
        try await traffic.stop([traffic.pair.re0, traffic.pair.re1])
      }
    }

    @Test(
      "3.14 UDP: datagrams go on from the other RE when the primary is lost", .timeLimit(.minutes(1)),
      arguments: [true, false])
    func primaryLost(isConnected: Bool) async throws {
      try await Lab.run("3.14-lost-\(isConnected)") { lab in
        let way = Way(isConnected: isConnected, peer: "5.5.5.4")
        let traffic = try await Traffic(way, in: lab)
        let instance = try #require(traffic.instances[.re0])
        try traffic.pair.re0.killPrograms()
        instance.send(SIGKILL)
        try await traffic.pair.re0.lose()
        try await traffic.pair.re1.waitUntilPrimary()
        try await traffic.flows(to: "re1")
        try await traffic.stop([traffic.pair.re1], lossIsAllowed: true)
      }
    }

    @Test(
      "3.14 UDP: a peer whose port is closed for a while, and says so by ICMP, ends no replication",
      .timeLimit(.minutes(1)), arguments: [true, false])
    func portUnreachable(isConnected: Bool) async throws {
      try await Lab.run("3.14-icmp-\(isConnected)") { lab in
        let traffic = try await Traffic(Way(isConnected: isConnected, peer: "5.5.5.4"), in: lab)
        let handles = [
          try await traffic.pair.re0.sockets().map(\.handle),
          try await traffic.pair.re1.sockets().map(\.handle),
        ]
        let refused = try await Capture("icmp", in: lab, port: .peer, fromNodeOnly: true, filter: "icmp")
        traffic.peer.send(SIGKILL)
        // The kernel limits their rate (icmp_ratelimit, icmp(7)).
        try await eventually(within: .seconds(10), "the peer's kernel refuses datagrams") {
          refused.packets.count { $0.description.contains("udp port 7000 unreachable") } >= 3
        }
        if isConnected {
          let instance = try #require(traffic.instances[.re0])
          #expect(instance.output.contains { $0.contains("Connection refused") }, "\(instance.lastWords)")
        }

        let peer = try await Self.startPeer("jsrpeer_mini-again", in: lab)
        func hears(_ engine: RoutingEngine) async throws {
          try await eventually(within: .seconds(20), "the peer hears \(engine.node); \(peer.lastWords)") {
            peer.output.count { $0.contains(": \(engine.node) ") } > 100
          }
        }
        try await hears(traffic.pair.re0)
        #expect(try await traffic.pair.re0.sockets().map(\.handle) == handles[0])
        #expect(try await traffic.pair.re1.sockets().map(\.handle) == handles[1])
        try await traffic.pair.re0.requestMaster("switch")
        try await traffic.pair.re1.waitUntilPrimary()
        try await hears(traffic.pair.re1)
      }
    }
  }
}

import Foundation
import Glibc
import Testing

extension LabSuite {
  /// Several uplinks, which come and go, and uplinks that are no plain Ethernet interface.
  @Suite("uplinks")
  struct Uplinks {
    /// The address of a node on its second uplink, by which others reach what it has elsewhere: the kernel answers
    /// neighbour solicitations only for addresses of the interface by which they come.
    private static func nextHop(_ node: Node) -> String {
      switch node {
      case .re0: "fe80::10"
      case .re1: "fe80::11"
      case .peer: "fe80::4"
      case .switch, .re0Blue, .re1Blue, .peerBlue: preconditionFailure("\(node) has no second uplink")
      }
    }

    private static let nodes = [Node.re0, .re1, .peer]

    /// An IPv4 address of its own for each second uplink: with the last one of an interface the kernel takes away the
    /// IPv4 routes that lead there (fib_disable_ip), also if that was a replicated one.
    private static func ownAddress(_ node: Node) -> String { "10.78.0.\(nodes.firstIndex(of: node)! + 1)/24" }

    /// A lab with a second uplink on every node, on which each can be reached.
    private static func plugSecondUplinks(in lab: Lab) async throws {
      try await lab.plugSecondUplinks()
      for node in nodes {
        try await lab.run(
          ["ip", "address", "replace", "\(nextHop(node))/64", "dev", "eth1", "nodad"], on: node)
        try await lab.run(["ip", "address", "replace", ownAddress(node), "dev", "eth1"], on: node)
      }
    }

    /// From now on the peer sends to a routing engine by way of the second uplinks.
    private static func leadThere(_ engine: RoutingEngine) async throws {
      let lab = engine.lab
      try await lab.run(["ip", "route", "replace", Family.v4.replicated + "/32", "dev", "eth1"], on: .peer)
      try await lab.run(
        [
          "ip", "-6", "route", "replace", Family.v6.replicated + "/128", "via", nextHop(engine.node), "dev",
          "eth1",
        ], on: .peer)
    }

    /// From now on a routing engine sends to the peer by way of the second uplinks.
    private static func leadBack(_ engine: RoutingEngine) async throws {
      try await engine.lab.run(
        ["ip", "route", "replace", Family.v4.peer + "/32", "dev", "eth1"], on: engine.node)
      try await engine.lab.run(
        ["ip", "-6", "route", "replace", Family.v6.peer + "/128", "via", nextHop(.peer), "dev", "eth1"],
        on: engine.node)
    }

    /// All go by the first uplinks again.
    private static func leadNowhere(_ pair: EnginePair) async throws {
      for family in Family.allCases {
        let bits = family == .v4 ? "/32" : "/128"
        try await pair.lab.run(["ip", "route", "delete", family.replicated + bits], on: .peer)
        for engine in [pair.re0, pair.re1] {
          try await pair.lab.run(
            ["ip", "route", "delete", family.peer + bits, "dev", "eth1"], on: engine.node)
        }
      }
    }

    private static func packetCount(of interface: String, on engine: RoutingEngine) async throws -> Int {
      let lines = try await engine.lab.run(
        ["cat", "/sys/class/net/\(interface)/statistics/rx_packets"], on: engine.node)
      guard let count = lines.first.flatMap({ Int($0) }) else { throw LabFailure("\(interface): \(lines)") }
      return count
    }

    /// Waits until the packets of all connections come to a routing engine by `interface`, and only there.
    private static func waitUntilCarried(by interface: String, not other: String, to engine: RoutingEngine)
      async throws
    {
      try await eventually(within: .seconds(10), "\(interface) of \(engine.node) carries the traffic") {
        let before = (
          try await packetCount(of: interface, on: engine), try await packetCount(of: other, on: engine)
        )
        try await Task.sleep(for: .milliseconds(300))
        let after = (
          try await packetCount(of: interface, on: engine), try await packetCount(of: other, on: engine)
        )
        // Keepalives are on both.
        return after.0 - before.0 > 100 && after.1 - before.1 < 20
      }
    }

    private static func expectAllReplicated(_ pair: EnginePair, primary: RoutingEngine) async throws {
      #expect(try await primary.sockets().map(\.state) == Array(repeating: "replicating", count: 4))
      #expect(try await pair.other(primary).sockets().map(\.state) == Array(repeating: "snooping", count: 4))
      #expect(try !primary.engine.errors.contains { $0.contains(" unreplicated: ") })
    }

    /// Which interface has the replicated addresses.
    private static func places(on engine: RoutingEngine) async throws -> Set<String> {
      let lines = try await engine.lab.run(["ip", "-brief", "address"], on: engine.node)
      return Set(
        lines.filter { line in Family.allCases.contains { line.contains(" \($0.prefix)") } }
          .map { String($0.prefix { $0 != " " && $0 != "@" }) })
    }

    private static let traffic = ["-m", "0", "-w", "2", "--quiet"]

    @Test(
      "connections that move from one uplink to another stay replicated, and survive a switchover there",
      .timeLimit(.minutes(1)))
    func move() async throws {
      try await Lab.run("uplinks-move") { lab in
        try await Self.plugSecondUplinks(in: lab)
        for node in [Node.re0, .re1] {
          try await lab.run(["ip", "link", "set", "eth1", "mtu", "1400"], on: node)
        }
        var configuration = EngineConfiguration()
        configuration.uplinks = ["eth0", "eth1"]
        let pair = try await EnginePair(in: lab, configuration: configuration)
        for engine in [pair.re0, pair.re1] {
          let expected = ["eth0", "eth1"].map { StatusReport.Uplink(name: $0, running: true) }
          #expect(try await engine.status().uplinks == expected)
          #expect(try await lab.run(["cat", "/sys/class/net/jsr1/mtu"], on: engine.node) == ["1400"])
        }
        #expect(try await Self.places(on: pair.re0) == ["eth0"])
        let second = try await ConnectionWatch(in: lab, onSecondSwitch: true)
        let traffic = try await WatchedTraffic(pair, connections: 4, Self.traffic)
        try await traffic.waitUntilFlowing()

        // Out by the second uplink, in by the first one; then both by the second.
        for engine in [pair.re0, pair.re1] { try await Self.leadBack(engine) }
        try await traffic.waitUntilFlowing()
        try await Self.leadThere(pair.re0)
        try await Self.waitUntilCarried(by: "eth1", not: "eth0", to: pair.re0)
        try await traffic.waitUntilFlowing()
        try await Self.expectAllReplicated(pair, primary: pair.re0)

        // One uplink of two is enough.
        try await lab.cut(.uplink, of: .re0)
        try await eventually(within: .seconds(5), "the engine knows that eth0 is down") {
          try await pair.re0.status().uplinks.map(\.running) == [false, true]
        }
        try await traffic.waitUntilFlowing()
        try await Self.expectAllReplicated(pair, primary: pair.re0)
        #expect(try await pair.re0.status().role == "primary")
        try await lab.mend(.uplink, of: .re0)

        try await pair.re1.requestMaster("acquire")
        try await Self.leadThere(pair.re1)
        try await pair.waitUntilInStep(primary: pair.re1)
        try await pair.waitUntilReplicated(4, primary: pair.re1)
        try await traffic.waitUntilFlowing()
        try await Self.waitUntilCarried(by: "eth1", not: "eth0", to: pair.re1)
        let summary = try await traffic.stop(living: [pair.re0, pair.re1])
        #expect(summary.echoedByRe0 > 0 && summary.echoedByRe1 > 0)
        let ends = try await second.finish()
        #expect(ends.resets.isEmpty && ends.unaskedFins.isEmpty, "\(ends)")
        print("uplinks: the longest gap while connections moved was \(summary.longestGapMs) ms")
      }
    }

    @Test(
      "an uplink that vanishes, and one that comes, harm no connection on others", .timeLimit(.minutes(1)))
    func vanishing() async throws {
      try await Lab.run("uplinks-vanish") { lab in
        var configuration = EngineConfiguration()
        configuration.uplinks = ["eth0", "eth1"]
        let pair = try await EnginePair(in: lab, configuration: configuration)
        for engine in [pair.re0, pair.re1] {
          try await engine.engine.waitForLine(containing: "uplink eth1 is not there", within: .seconds(1))
          #expect(try await engine.status().uplinks.map(\.running) == [true, false])
        }
        try await Self.plugSecondUplinks(in: lab)
        for engine in [pair.re0, pair.re1] {
          try await engine.engine.waitForLine(containing: "uplink eth1 is there", within: .seconds(5))
        }
        let second = try await ConnectionWatch(in: lab, onSecondSwitch: true)
        let traffic = try await WatchedTraffic(pair, connections: 4, Self.traffic)
        for engine in [pair.re0, pair.re1] { try await Self.leadBack(engine) }
        try await Self.leadThere(pair.re0)
        try await Self.waitUntilCarried(by: "eth1", not: "eth0", to: pair.re0)
        try await Self.expectAllReplicated(pair, primary: pair.re0)

        // The first uplink goes, and the addresses with it; they come back on the other.
        try await lab.run(["ip", "link", "delete", "eth0"], on: .re0)
        try await pair.re0.engine.waitForLine(containing: "uplink eth0 is gone", within: .seconds(5))
        try await eventually(within: .seconds(5), "the addresses are on eth1") {
          try await Self.places(on: pair.re0) == ["eth1"]
        }
        try await traffic.waitUntilFlowing()
        try await Self.expectAllReplicated(pair, primary: pair.re0)
        #expect(try await pair.re0.status().uplinks.map(\.running) == [false, true])

        // Another interface comes under its name.
        for command in [
          "link add re0 type veth peer name eth0 netns \(lab.namespace(of: .re0))",
          "link set re0 addrgenmode none master br0 up",
        ] {
          try await lab.run(["ip"] + command.split(separator: " ").map(String.init), on: .switch)
        }
        try await lab.run(["ip", "link", "set", "eth0", "up"], on: .re0)
        try await pair.re0.engine.waitForLine(containing: "uplink eth0 is there", within: .seconds(5))
        try await eventually(within: .seconds(5), "the addresses are on eth0, and it is running") {
          let running = try await pair.re0.status().uplinks.map(\.running)
          return try await Self.places(on: pair.re0) == ["eth0"] && running == [true, true]
        }
        try await traffic.waitUntilFlowing()
        try await Self.leadNowhere(pair)
        try await Self.waitUntilCarried(by: "eth0", not: "eth1", to: pair.re0)
        try await traffic.waitUntilFlowing()
        try await Self.expectAllReplicated(pair, primary: pair.re0)

        // Down for a moment, it loses what addresses of IPv6 it has.
        try await lab.run(["ip", "link", "set", "eth0", "down"], on: .re0)
        try await lab.run(["ip", "link", "set", "eth0", "up"], on: .re0)
        try await eventually(within: .seconds(5), "the addresses are on eth0 again") {
          let lines = try await lab.run(["ip", "-brief", "address", "show", "dev", "eth0"], on: .re0)
          return Family.allCases.allSatisfy { family in lines.contains { $0.contains(family.prefix) } }
        }
        try await traffic.waitUntilFlowing()

        try await pair.re1.requestMaster("acquire")
        try await pair.waitUntilInStep(primary: pair.re1)
        try await pair.waitUntilReplicated(4, primary: pair.re1)
        try await traffic.waitUntilFlowing()
        #expect(try await Self.places(on: pair.re0) == [])
        let summary = try await traffic.stop(living: [pair.re0, pair.re1])
        #expect(summary.echoedByRe0 > 0 && summary.echoedByRe1 > 0)
        let seen = try await second.finish()
        #expect(seen.resets.isEmpty && seen.unaskedFins.isEmpty, "\(seen)")
        print("uplinks: the longest gap while one vanished was \(summary.longestGapMs) ms")
      }
    }

    /// What an uplink is, other than a plain interface.
    enum Kind: String, CaseIterable, Sendable {
      case bridge, vlan, macvlan

      /// The commands of ip(8) that make one of eth0.
      var commands: [String] {
        switch self {
        case .bridge:
          [
            "link add up0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            "link set eth0 master up0",
          ]
        case .vlan: ["link add link eth0 name up0 type vlan id 100"]
        case .macvlan: ["link add link eth0 name up0 type macvlan mode bridge"]
        }
      }
    }

    /// Kernels without a kind of interface have no uplinks of it.
    private static func isKnown(_ kind: Kind, in lab: Lab) async -> Bool {
      do {
        for command in kind.commands { try await ip(command, on: .re0, in: lab) }
        return true
      } catch {
        print("uplinks: this kernel has no \(kind) interfaces")
        return false
      }
    }

    private static func ip(_ command: String, on node: Node, in lab: Lab) async throws {
      try await lab.run(["ip"] + command.split(separator: " ").map(String.init), on: node)
    }

    @Test(
      "an uplink may be a bridge, a VLAN or another interface on top of one", .timeLimit(.minutes(1)),
      arguments: Kind.allCases)
    func kinds(_ kind: Kind) async throws {
      try await Lab.run("uplinks-\(kind)") { lab in
        guard await Self.isKnown(kind, in: lab) else { return }
        for command in kind.commands { try await Self.ip(command, on: .re1, in: lab) }
        for node in [Node.re0, .re1] { try await Self.ip("link set up0 up", on: node, in: lab) }
        if kind == .vlan {
          for command in kind.commands + ["link set up0 up"] {
            try await Self.ip(command, on: .peer, in: lab)
          }
          for family in Family.allCases {
            let length = family.prefix.split(separator: "/")[1]
            try await Self.ip("address delete \(family.peer)/\(length) dev eth0", on: .peer, in: lab)
            try await Self.ip(
              "address add \(family.peer)/\(length) dev up0" + (family == .v6 ? " nodad" : ""), on: .peer,
              in: lab)
          }
        }
        var configuration = EngineConfiguration()
        configuration.uplinks = ["up0"]
        let pair = try await EnginePair(in: lab, configuration: configuration)
        let levels = (try await pair.re0.levels(), try await pair.re1.levels())
        // The peer's summary is all that says how connections ended: a capture would see the tags of a VLAN.
        let peer = try PeerTraffic(in: lab, ["-n", "4", "-l", "20000"] + Self.traffic)
        try await pair.waitUntilReplicated(4, primary: pair.re0)
        if kind == .bridge {
          // A bridge takes over the address of one of its ports, and so may change it at any time.
          try await Self.ip("link set up0 address 02:00:00:00:05:05", on: .re0, in: lab)
          try await pair.re0.engine.waitForLine(
            containing: "uplink up0 has another MTU or hardware address", within: .seconds(5))
          let before = peer.program.output.count
          try await Task.sleep(for: .seconds(1))
          #expect(peer.program.output.count == before, "nothing is said but what is wrong")
          #expect(try await pair.re0.sockets().map(\.state) == Array(repeating: "replicating", count: 4))
        }
        try await pair.re1.requestMaster("acquire")
        try await pair.waitUntilInStep(primary: pair.re1)
        try await pair.waitUntilReplicated(4, primary: pair.re1)
        try await Task.sleep(for: .milliseconds(500))
        let (summary, end) = try await peer.stop()
        #expect(end == .exited(0), "jsrpeer: \(peer.program.lastWords)")
        #expect(summary.faults == 0 && summary.connections == 4, "\(summary)")
        #expect(summary.echoedByRe0 > 0 && summary.echoedByRe1 > 0)
        #expect(summary.longestGapMs < 3000)
        await pair.re0.checkNothingIsLeft(since: levels.0)
        await pair.re1.checkNothingIsLeft(since: levels.1)
      }
    }
  }
}

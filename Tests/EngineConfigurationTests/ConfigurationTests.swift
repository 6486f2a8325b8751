import EngineConfiguration
import Foundation
import Logging
import Packet
import Testing

@Suite("jsrd's configuration")
struct ConfigurationTests {
  static let smallest = """
    node: re0
    slot: 0
    link:
      listen: 10.77.0.1:7000
      connect: 10.77.0.2:7000
      insecure: true
    addresses: [ 5.5.5.5/24 ]
    uplinks: [ eth0 ]

    """

  static func read(_ yaml: String) throws(ConfigurationError) -> Configuration {
    try Configuration(yaml: yaml, file: "jsrd.yaml")
  }

  /// The smallest configuration with one piece of text changed.
  static func smallest(_ old: String, _ new: String) -> String {
    precondition(smallest.contains(old), "\(old) does not occur")
    return smallest.replacing(old, with: new)
  }

  // MARK: - What is right

  @Test("without optional keys has the documented defaults")
  func defaults() throws {
    let configuration = try Self.read(Self.smallest)
    #expect(configuration.node == "re0")
    #expect(configuration.slot == 0)
    #expect(configuration.link.listen == Endpoint(IPAddress("10.77.0.1")!, 7000))
    #expect(configuration.link.connect == Endpoint(IPAddress("10.77.0.2")!, 7000))
    #expect(configuration.link.security == .insecure)
    #expect(configuration.link.versions == 1...3)
    #expect(configuration.addresses.map(\.description) == ["5.5.5.5/24"])
    #expect(configuration.uplinks == ["eth0"])
    #expect(configuration.instances.isEmpty)
    #expect(configuration.mastership.arbiter == .pair)
    #expect(configuration.mastership.priority == 100)
    #expect(configuration.mastership.keepalive.interval == .milliseconds(100))
    #expect(configuration.mastership.keepalive.misses == 3)
    #expect(configuration.control == "/run/jsr/jsrd.sock")
    #expect(configuration.mode == .overlap)
    #expect(configuration.timeouts.prl == .seconds(1))
    #expect(configuration.timeouts.sdrl == .seconds(1))
    #expect(configuration.timeouts.psrm == .seconds(1))
    #expect(configuration.limits.sockets == 20_000)
    #expect(configuration.limits.snoopBuffer == 4 * 1024 * 1024)
    #expect(configuration.limits.holdBuffer == 64 * 1024 * 1024)
    #expect(configuration.limits.record == 1024 * 1024)
    #expect(configuration.log.level == .info)
    #expect(configuration.log.destination == .stderr)
    #expect(configuration.onApplicationFailure == .switchover)
    #expect(configuration.busyPoll == .zero)
    #expect(!configuration.debug)
  }

  @Test("takes every documented key")
  func everything() throws {
    let configuration = try Self.read(
      """
      node: re1
      slot: 1                                  # 0 or 1
      link:
        listen: "[2001:db8::2]:7000"
        connect: "[2001:db8::1]:7001"
        tls: { certificate: keys/b.pem, key: /etc/b.key, ca: ca.pem, name: B.example.net, peer: a }
        min-version: 1
        max-version: 1
      addresses: [ 5.5.5.5/24, "2001:db8:5::5/64" ]
      uplinks: [ ens3, br0.100 ]
      mastership:
        arbiter: pair
        priority: 90
        keepalive: { interval: 20ms, misses: 5 }
      control: /run/other/control
      mode: strict
      busy-poll: 50us
      timeouts: { prl: 500ms, sdrl: 2s, psrm: 1m }
      limits: { sockets: 100, snoop-buffer: 64KiB, hold-buffer: 1GiB, record: 131072B }
      log: { level: debug, destination: syslog }
      on-application-failure: close
      debug: true
      """)
    #expect(configuration.slot == 1)
    #expect(configuration.link.listen == Endpoint(IPAddress("2001:db8::2")!, 7000))
    #expect(configuration.link.connect == Endpoint(IPAddress("2001:db8::1")!, 7001))
    #expect(configuration.link.versions == 1...1)
    #expect(
      configuration.link.security
        == .tls(
          Configuration.LinkTLS(
            certificate: "keys/b.pem", key: "/etc/b.key", ca: "ca.pem", name: "b.example.net", peer: "a")))
    #expect(configuration.addresses.map(\.description) == ["5.5.5.5/24", "2001:db8:5::5/64"])
    #expect(configuration.mastership.priority == 90)
    #expect(configuration.mastership.keepalive.interval == .milliseconds(20))
    #expect(configuration.mastership.keepalive.misses == 5)
    #expect(configuration.control == "/run/other/control")
    #expect(configuration.mode == .strict)
    #expect(configuration.busyPoll == .microseconds(50))
    #expect(configuration.timeouts.prl == .milliseconds(500))
    #expect(configuration.timeouts.sdrl == .seconds(2))
    #expect(configuration.timeouts.psrm == .seconds(60))
    #expect(configuration.limits.sockets == 100)
    #expect(configuration.limits.snoopBuffer == 65_536)
    #expect(configuration.limits.holdBuffer == 1 << 30)
    #expect(configuration.limits.record == 131_072)
    #expect(configuration.log.level == .debug)
    #expect(configuration.log.destination == .syslog)
    #expect(configuration.onApplicationFailure == .close)
    #expect(configuration.debug)
  }

  @Test("takes the ends of every range")
  func ends() throws {
    for (interval, misses) in [("10ms", 8), ("40ms", 2), ("10s", 100)] {
      let yaml = Self.smallest + "mastership: { keepalive: { interval: \(interval), misses: \(misses) } }\n"
      #expect(try Self.read(yaml).mastership.keepalive.misses == misses)
    }
    for priority in [0, 255] {
      #expect(
        try Self.read(Self.smallest + "mastership: { priority: \(priority) }").mastership.priority == priority
      )
    }
  }

  /// Every key of the file, with a value that is not the one it has in `smallest`, as one more line or in
  /// place of what stands there.
  static let changes: [(key: String, yaml: String, atOnce: Bool)] = [
    ("timeouts.prl", smallest + "timeouts: { prl: 2s }", true),
    ("timeouts.sdrl", smallest + "timeouts: { sdrl: 2s }", true),
    ("timeouts.psrm", smallest + "timeouts: { psrm: 2s }", true),
    ("log.level", smallest + "log: { level: debug }", true),
    ("on-application-failure", smallest + "on-application-failure: close", true),
    ("debug", smallest + "debug: true", true),
    ("node", smallest("node: re0", "node: re7"), false),
    ("slot", smallest("slot: 0", "slot: 1"), false),
    ("link.listen", smallest("10.77.0.1:7000", "10.77.0.1:7001"), false),
    ("link.connect", smallest("10.77.0.2:7000", "10.77.0.2:7001"), false),
    ("link.min-version", smallest("  insecure", "  min-version: 2\n  insecure"), false),
    ("link.max-version", smallest("  insecure", "  max-version: 1\n  insecure"), false),
    ("link.insecure", smallest("insecure: true", "tls: { certificate: a, key: b, ca: c }"), false),
    ("addresses", smallest("5.5.5.5/24", "5.5.5.6/24"), false),
    ("uplinks", smallest("eth0", "eth1"), false),
    ("instances", smallest + instance("\(place), \(rest)"), false),
    ("mastership.priority", smallest + "mastership: { priority: 7 }", false),
    ("busy-poll", smallest + "busy-poll: 20us", false),
    (
      "mastership.keepalive.interval", smallest + "mastership: { keepalive: { interval: 200ms } }", false
    ),
    ("mastership.keepalive.misses", smallest + "mastership: { keepalive: { misses: 4 } }", false),
    ("control", smallest + "control: /run/x", false),
    ("mode", smallest + "mode: strict", false),
    ("limits.sockets", smallest + "limits: { sockets: 7 }", false),
    ("limits.snoop-buffer", smallest + "limits: { snoop-buffer: 1MiB }", false),
    ("limits.hold-buffer", smallest + "limits: { hold-buffer: 1MiB }", false),
    ("log.destination", smallest + "log: { destination: syslog }", false),
    ("limits.record", smallest + "limits: { record: 2MiB }", false),
  ]

  @Test("says of every key that has changed whether a running engine takes it over", arguments: changes)
  func change(key: String, yaml: String, atOnce: Bool) throws {
    let old = try Self.read(Self.smallest)
    let changes = old.changes(to: try Self.read(yaml))
    #expect(changes.atOnce == (atOnce ? [key] : []))
    #expect(changes.afterRestart == (atOnce ? [] : [key]))
    #expect(old.changes(to: old).isEmpty)
  }

  @Test("has no key that could change unnoticed")
  func unnoticed() throws {
    let old = try Self.read(Self.smallest)
    for (key, yaml, _) in Self.changes { #expect(try Self.read(yaml) != old, "\(key)") }
    // A field that is added to the configuration belongs into `changes` as well.
    #expect(Mirror(reflecting: old).children.count == 15)
  }

  @Test("finds the files of the link where the file itself is, and each name by the slot")
  func linkFiles() throws {
    let yaml = Self.tls("certificate: a, key: ../b, ca: /c")
    let here = try Configuration(yaml: yaml, file: "/etc/jsr/jsrd.yaml")
    #expect(
      here.link.security
        == .tls(
          Configuration.LinkTLS(
            certificate: "/etc/jsr/a", key: "/etc/jsr/../b", ca: "/c", name: "re0", peer: "re1")))
    let other = try Self.read(yaml.replacing("slot: 0", with: "slot: 1"))
    #expect(
      other.link.security
        == .tls(Configuration.LinkTLS(certificate: "a", key: "../b", ca: "/c", name: "re1", peer: "re0")))
    // The files may be others while the engine runs.
    let changes = try Self.read(yaml).changes(to: try Self.read(yaml.replacing("/c", with: "/d")))
    #expect(changes.atOnce == ["link.tls"] && changes.afterRestart.isEmpty)
  }

  // MARK: - What is wrong

  /// One mistake, and what is said about it.
  struct Mistake: Sendable, CustomTestStringConvertible {
    let name: String
    let yaml: String
    let line: Int?
    let key: String?
    let says: String

    var testDescription: String { name }

    init(_ name: String, _ yaml: String, line: Int?, key: String?, says: String) {
      self.name = name
      self.yaml = yaml
      self.line = line
      self.key = key
      self.says = says
    }

    /// A mistake in a key behind the smallest configuration, which has 8 lines.
    init(_ name: String, behind text: String, line: Int = 9, key: String, says: String) {
      self.init(name, smallest + text + "\n", line: line, key: key, says: says)
    }
  }

  static let mistakes: [Mistake] = missing + shape + ranges + unsupported + values + instances

  static let missing: [Mistake] = [
    Mistake("no node", smallest("node: re0\n", ""), line: 1, key: "node", says: "is missing"),
    Mistake("no slot", smallest("slot: 0\n", ""), line: 1, key: "slot", says: "is missing"),
    Mistake(
      "no link",
      smallest("link:\n  listen: 10.77.0.1:7000\n  connect: 10.77.0.2:7000\n  insecure: true\n", ""), line: 1,
      key: "link", says: "is missing"),
    Mistake(
      "no listen", smallest("  listen: 10.77.0.1:7000\n", ""), line: 3, key: "link.listen", says: "is missing"
    ),
    Mistake(
      "no connect", smallest("  connect: 10.77.0.2:7000\n", ""), line: 3, key: "link.connect",
      says: "is missing"
    ),
    Mistake(
      "no addresses", smallest("addresses: [ 5.5.5.5/24 ]\n", ""), line: 1, key: "addresses",
      says: "is missing"),
    Mistake("no uplinks", smallest("uplinks: [ eth0 ]\n", ""), line: 1, key: "uplinks", says: "is missing"),
    Mistake(
      "neither tls nor insecure", smallest("  insecure: true\n", ""), line: 3, key: "link.tls",
      says: "is missing: jsrctl link-keys new DIRECTORY makes what it names; or insecure: true"),
    Mistake(
      "insecure denied", smallest("insecure: true", "insecure: false"), line: 6, key: "link.insecure",
      says: "can only be true"),
    Mistake("no certificate", tls("key: b, ca: c"), line: 6, key: "link.tls.certificate", says: "is missing"),
    Mistake("no key", tls("certificate: a, ca: c"), line: 6, key: "link.tls.key", says: "is missing"),
    Mistake("no ca", tls("certificate: a, key: b"), line: 6, key: "link.tls.ca", says: "is missing"),
    Mistake("no value", smallest("node: re0", "node:"), line: 1, key: "node", says: "there is no value"),
  ]

  static let shape: [Mistake] = [
    Mistake("an empty file", "", line: nil, key: nil, says: "is empty"),
    Mistake("only a comment", "# nothing\n", line: nil, key: nil, says: "is empty"),
    Mistake("a list for a file", "- a\n- b\n", line: 1, key: nil, says: "must be a mapping"),
    Mistake("no YAML", "node: [ re0\nslot: 0\n", line: 2, key: nil, says: "is not valid YAML"),
    Mistake("a tab", "node: re0\n\tslot: 0\n", line: 2, key: nil, says: "is not valid YAML"),
    Mistake("two documents", smallest + "---\nnode: re1\n", line: 9, key: nil, says: "is not valid YAML"),
    Mistake(
      "unknown key", behind: "nodes: 2", key: "nodes", says: "is not known; the keys here are node, slot"),
    Mistake(
      "unknown key in link", smallest("  insecure", "  secure: 1\n  insecure"), line: 6, key: "link.secure",
      says: "is not known"),
    Mistake(
      "unknown key in mastership", behind: "mastership: { lease: 1s }", key: "mastership.lease",
      says: "is not known"),
    Mistake(
      "unknown key in keepalive", behind: "mastership:\n  keepalive:\n    every: 1s", line: 11,
      key: "mastership.keepalive.every", says: "is not known"),
    Mistake(
      "unknown key in timeouts", behind: "timeouts: { iha: 1s }", key: "timeouts.iha", says: "is not known"),
    Mistake(
      "unknown key in limits", behind: "limits: { memory: 1GiB }", key: "limits.memory", says: "is not known"),
    Mistake("unknown key in log", behind: "log: { file: /tmp/x }", key: "log.file", says: "is not known"),
    Mistake("a key twice", behind: "slot: 1", line: 2, key: "slot", says: "is given more than once"),
    Mistake(
      "a key twice in link", smallest("  insecure", "  listen: 10.77.0.1:7000\n  insecure"), line: 4,
      key: "listen",
      says: "is given more than once"),
    Mistake("a key that is a list", behind: "[a]: 1", key: "", says: "a key must be a word"),
    Mistake(
      "a word for link", "node: re0\nslot: 0\nlink: yes\n", line: 3, key: "link", says: "must be a mapping"),
    Mistake(
      "a list for node", smallest("re0", "[ re0 ]"), line: 1, key: "node", says: "not a list or mapping"),
    Mistake(
      "a word for addresses", smallest("[ 5.5.5.5/24 ]", "5.5.5.5/24"), line: 7, key: "addresses",
      says: "must be a list"),
    Mistake(
      "a word for uplinks", smallest("[ eth0 ]", "eth0"), line: 8, key: "uplinks", says: "must be a list"),
    Mistake("no address", smallest("[ 5.5.5.5/24 ]", "[]"), line: 7, key: "addresses", says: "at least one"),
    Mistake("no uplink", smallest("[ eth0 ]", "[]"), line: 8, key: "uplinks", says: "at least one"),
  ]

  static let ranges: [Mistake] = [
    Mistake("slot 2", smallest("slot: 0", "slot: 2"), line: 2, key: "slot", says: "from 0 to 1, not 2"),
    Mistake("slot -1", smallest("slot: 0", "slot: -1"), line: 2, key: "slot", says: "from 0 to 1, not -1"),
    Mistake(
      "slot as a text", smallest("slot: 0", "slot: \"0\""), line: 2, key: "slot", says: "not the text \"0\""),
    Mistake("slot a fraction", smallest("slot: 0", "slot: 0.5"), line: 2, key: "slot", says: "from 0 to 1"),
    Mistake(
      "priority 256", behind: "mastership: { priority: 256 }", key: "mastership.priority",
      says: "from 0 to 255"),
    Mistake(
      "interval too short", behind: "mastership: { keepalive: { interval: 9ms } }",
      key: "mastership.keepalive.interval", says: "from 10ms to 10s, not 9ms"),
    Mistake(
      "interval too long", behind: "mastership: { keepalive: { interval: 11s } }",
      key: "mastership.keepalive.interval", says: "from 10ms to 10s, not 11s"),
    Mistake(
      "detection too short", behind: "mastership: { keepalive: { interval: 26ms, misses: 3 } }",
      key: "mastership.keepalive", says: "at least 80ms"),
    Mistake(
      "one miss", behind: "mastership: { keepalive: { misses: 1 } }", key: "mastership.keepalive.misses",
      says: "from 2 to 100"),
    Mistake(
      "101 misses", behind: "mastership: { keepalive: { misses: 101 } }", key: "mastership.keepalive.misses",
      says: "from 2 to 100"),
    Mistake(
      "timeout of nothing", behind: "timeouts: { prl: 0ms }", key: "timeouts.prl", says: "from 10ms to 60s"),
    Mistake(
      "timeout too long", behind: "timeouts: { sdrl: 2m }", key: "timeouts.sdrl", says: "from 10ms to 60s"),
    Mistake(
      "timeout beyond any number", behind: "timeouts: { psrm: 9223372036854775807m }", key: "timeouts.psrm",
      says: "from 10ms to 60s"),
    Mistake("no sockets", behind: "limits: { sockets: 0 }", key: "limits.sockets", says: "from 1 to 1000000"),
    Mistake(
      "small snoop buffer", behind: "limits: { snoop-buffer: 1KiB }", key: "limits.snoop-buffer",
      says: "from 64KiB to 1GiB"),
    Mistake(
      "small hold buffer", behind: "limits: { hold-buffer: 1B }", key: "limits.hold-buffer",
      says: "from 1MiB to 16GiB"),
    Mistake(
      "small record", behind: "limits: { record: 127KiB }", key: "limits.record", says: "from 128KiB to 64MiB"
    ),
    Mistake(
      "link version 0", smallest("  insecure", "  min-version: 0\n  insecure"), line: 6,
      key: "link.min-version",
      says: "from 1 to 3"),
    Mistake(
      "link version of the future", smallest("  insecure", "  max-version: 4\n  insecure"), line: 6,
      key: "link.max-version", says: "from 1 to 3"),
    Mistake(
      "link versions the wrong way round",
      smallest("  insecure", "  min-version: 2\n  max-version: 1\n  insecure"), line: 7,
      key: "link.max-version", says: "must not be lower than link.min-version, 2"),
    Mistake(
      "size beyond any number", behind: "limits: { record: 9223372036854775807GiB }", key: "limits.record",
      says: "from 128KiB to 64MiB"),
  ]

  /// One routing instance behind the smallest configuration, and what is written of it beside its name.
  static func instance(_ text: String) -> String {
    "instances: [ { name: blue, \(text) } ]"
  }
  static let place = "netns: blue"
  static let rest = "addresses: [ 5.5.5.5/24 ], uplinks: [ eth0 ]"
  static let vrfRest = "addresses: [ 5.5.5.5/24 ], uplinks: [ eth1 ]"

  static let instances: [Mistake] = [
    Mistake(
      "no instance", behind: "instances: []", key: "instances", says: "at least one of routing instances"),
    Mistake(
      "an instance without a name", behind: "instances: [ { \(place), \(rest) } ]", key: "instances[0].name",
      says: "is missing"),
    Mistake(
      "an instance called main", behind: "instances: [ { name: main, \(place), \(rest) } ]",
      key: "instances[0].name", says: "cannot be main"),
    Mistake(
      "an instance nowhere", behind: instance(rest), key: "instances[0]",
      says: "needs netns, a network namespace, or vrf"
    ),
    Mistake(
      "an instance in two places", behind: instance("\(place), vrf: red, \(rest)"), key: "instances[0].netns",
      says: "excludes vrf"),
    Mistake(
      "a namespace of another folder", behind: instance("netns: ../blue, \(rest)"), key: "instances[0].netns",
      says: "the name of a network namespace, or its absolute path"),
    Mistake(
      "a VRF that cannot be", behind: instance("vrf: blue/red, \(vrfRest)"), key: "instances[0].vrf",
      says: "the name of the device of a VRF"),
    Mistake(
      "an uplink of the main instance in a VRF", behind: instance("vrf: red, \(rest)"),
      key: "instances[0].uplinks", says: "eth0 is an uplink of another instance already"),
    Mistake(
      "an instance without addresses", behind: instance("\(place), uplinks: [ eth0 ]"),
      key: "instances[0].addresses", says: "is missing"),
    Mistake(
      "unknown key in an instance", behind: instance("\(place), \(rest), table: 10"),
      key: "instances[0].table",
      says: "is not known; the keys here are name, netns, vrf, addresses, uplinks"),
    Mistake(
      "two instances of one name", behind: "instances: [ { name: blue, \(place), \(rest) }, { name: blue } ]",
      key: "instances[1].name", says: "blue is given more than once"),
    Mistake(
      "two instances in one namespace",
      behind:
        "instances: [ { name: blue, \(place), \(rest) }, { name: red, netns: /run/netns/blue, \(rest) } ]",
      key: "instances[1].netns", says: "/run/netns/blue is given to another instance already"),
    Mistake(
      "two instances in one VRF",
      behind: "instances: [ { name: blue, vrf: v, \(vrfRest) }, { name: red, vrf: v, \(vrfRest) } ]",
      key: "instances[1].vrf", says: "v is given to another instance already"),
  ]

  @Test("names routing instances, which are network namespaces and VRFs")
  func routingInstances() throws {
    let configuration = try Self.read(
      Self.smallest
        + """
        instances:
          - { name: blue, \(Self.place), \(Self.rest) }
          - { name: red, netns: /run/other/red, \(Self.rest) }
          - { name: green, vrf: vrf0, \(Self.vrfRest) }

        """)
    #expect(configuration.instances.map(\.name) == ["blue", "red", "green"])
    #expect(
      configuration.instances.map(\.place) == [
        .namespace("/run/netns/blue"), .namespace("/run/other/red"), .vrf("vrf0"),
      ])
    #expect(configuration.instances.map(\.uplinks) == [["eth0"], ["eth0"], ["eth1"]])
    #expect(configuration.instances.allSatisfy { $0.addresses.map(\.description) == ["5.5.5.5/24"] })
  }

  static let unsupported: [Mistake] = [
    Mistake(
      "arbiter etcd", behind: "mastership:\n  arbiter: etcd", line: 10, key: "mastership.arbiter",
      says: "etcd is not supported by this version, use pair"),
    Mistake(
      "arbiter external", behind: "mastership:\n  arbiter: external", line: 10, key: "mastership.arbiter",
      says: "external is not supported by this version, use pair"),
  ]

  static func tls(_ keys: String) -> String { smallest("insecure: true", "tls: { \(keys) }") }

  static let values: [Mistake] = [
    Mistake(
      "tls and insecure", smallest("  insecure: true", "  insecure: true\n  tls: { ca: a }"), line: 6,
      key: "link.insecure", says: "cannot be given together with link.tls"),
    Mistake(
      "a word for tls", smallest("insecure", "tls"), line: 6, key: "link.tls", says: "must be a mapping"),
    Mistake(
      "a folder for a key", tls("certificate: a, key: b/, ca: c"), line: 6, key: "link.tls.key",
      says: "the path of a file"),
    Mistake(
      "a name that is none", tls("certificate: a, key: b, ca: c, peer: re_1"), line: 6, key: "link.tls.peer",
      says: "a DNS name such as re1"),
    Mistake(
      "a name that any certificate has", tls("certificate: a, key: b, ca: c, peer: '*'"), line: 6,
      key: "link.tls.peer", says: "a DNS name such as re1"),
    Mistake(
      "the own name", tls("certificate: a, key: b, ca: c, name: RE1"), line: 6, key: "link.tls.peer",
      says: "must be the other routing engine's name"),
    Mistake(
      "unknown key in tls", tls("certificate: a, key: b, ca: c, version: 1.2"), line: 6,
      key: "link.tls.version", says: "is not known"),
    Mistake("a node with a blank", smallest("re0", "\"re 0\""), line: 1, key: "node", says: "must be a name"),
    Mistake(
      "a long node", smallest("re0", String(repeating: "x", count: 65)), line: 1, key: "node",
      says: "must be a name"),
    Mistake(
      "a host name", smallest("10.77.0.1:7000", "re0:7000"), line: 4, key: "link.listen",
      says: "an address with a port"),
    Mistake(
      "no port", smallest("10.77.0.1:7000", "10.77.0.1"), line: 4, key: "link.listen",
      says: "an address with a port"),
    Mistake(
      "port 0", smallest("10.77.0.2:7000", "10.77.0.2:0"), line: 5, key: "link.connect",
      says: "a port from 1 to 65535"),
    Mistake(
      "port 65536", smallest("10.77.0.2:7000", "10.77.0.2:65536"), line: 5, key: "link.connect",
      says: "a port from 1 to 65535"),
    Mistake(
      "IPv6 without brackets", smallest("10.77.0.2:7000", "2001:db8::1:7000"), line: 5, key: "link.connect",
      says: "an address with a port"),
    Mistake(
      "two families", smallest("10.77.0.2:7000", "\"[2001:db8::1]:7000\""), line: 5, key: "link.connect",
      says: "of the same family"),
    Mistake(
      "a link to itself", smallest("10.77.0.2", "10.77.0.1"), line: 5, key: "link.connect",
      says: "not this one's"),
    Mistake(
      "insecure: maybe", smallest("insecure: true", "insecure: maybe"), line: 6, key: "link.insecure",
      says: "true or false"),
    Mistake(
      "an address without prefix", smallest("5.5.5.5/24", "5.5.5.5"), line: 7, key: "addresses[0]",
      says: "with prefix length"),
    Mistake(
      "prefix 33", smallest("5.5.5.5/24", "5.5.5.5/33"), line: 7, key: "addresses[0]", says: "from 1 to 32"),
    Mistake(
      "prefix 129", smallest("5.5.5.5/24", "\"2001:db8::5/129\""), line: 7, key: "addresses[0]",
      says: "from 1 to 128"),
    Mistake(
      "prefix 0", smallest("5.5.5.5/24", "5.5.5.5/0"), line: 7, key: "addresses[0]", says: "from 1 to 32"),
    Mistake(
      "a multicast address", smallest("5.5.5.5/24", "224.0.0.5/32"), line: 7, key: "addresses[0]",
      says: "an address of one host"),
    Mistake(
      "a loopback address", smallest("5.5.5.5/24", "127.0.0.1/8"), line: 7, key: "addresses[0]",
      says: "an address of one host"),
    Mistake(
      "the IPv6 loopback address", smallest("5.5.5.5/24", "\"::1/128\""), line: 7, key: "addresses[0]",
      says: "an address of one host"),
    Mistake(
      "an IPv4 address written as IPv6", smallest("5.5.5.5/24", "\"::ffff:5.5.5.5/120\""), line: 7,
      key: "addresses[0]", says: "an address of one host"),
    Mistake(
      "a link-local address", smallest("5.5.5.5/24", "\"fe80::5/64\""), line: 7, key: "addresses[0]",
      says: "valid on one link only"),
    Mistake(
      "an address that is none", smallest("5.5.5.5/24", "5.5.5/24"), line: 7, key: "addresses[0]",
      says: "with prefix length"),
    Mistake(
      "the same address twice, on lines of their own",
      smallest("[ 5.5.5.5/24 ]", "\n  - 5.5.5.5/24\n  - 5.5.5.5/32"),
      line: 9, key: "addresses[1]", says: "5.5.5.5 is given more than once"),
    Mistake(
      "a long interface name", smallest("eth0", "abcdefghijklmnop"), line: 8, key: "uplinks[0]",
      says: "name of an interface"),
    Mistake(
      "the same uplink twice", smallest("[ eth0 ]", "[ eth0, eth1, eth0 ]"), line: 8, key: "uplinks[2]",
      says: "eth0 is given more than once"),
    Mistake(
      "more uplinks than anybody has",
      smallest("[ eth0 ]", "[ \((0..<65).map { "eth\($0)" }.joined(separator: ", ")) ]"), line: 8,
      key: "uplinks", says: "at most 64 interface names, not 65"),
    Mistake(
      "an interface name with a slash", smallest("eth0", "a/b"), line: 8, key: "uplinks[0]",
      says: "name of an interface"),
    Mistake(
      "a relative control path", behind: "control: jsrd.sock", key: "control", says: "an absolute path"),
    Mistake(
      "a control path that no socket can have", behind: "control: /" + String(repeating: "x", count: 107),
      key: "control",
      says: "at most 107 bytes"),
    Mistake(
      "a mode that is none", behind: "mode: fast", key: "mode", says: "one of overlap, strict, not fast"),
    Mistake(
      "an arbiter that is none", behind: "mastership: { arbiter: coin }", key: "mastership.arbiter",
      says: "must be pair"),
    Mistake(
      "a time without unit", behind: "timeouts: { prl: 100 }", key: "timeouts.prl",
      says: "a time such as 100ms"),
    Mistake(
      "a time with a blank", behind: "timeouts: { prl: 1 s }", key: "timeouts.prl",
      says: "a time such as 100ms"),
    Mistake(
      "a negative time", behind: "timeouts: { prl: -1s }", key: "timeouts.prl", says: "a time such as 100ms"),
    Mistake(
      "a size without unit", behind: "limits: { record: 1048576 }", key: "limits.record",
      says: "a size such as 512KiB"),
    Mistake(
      "a decimal size", behind: "limits: { record: 1MB }", key: "limits.record", says: "a size such as 512KiB"
    ),
    Mistake("a long spin", behind: "busy-poll: 2ms", key: "busy-poll", says: "1ms"),
    Mistake(
      "a level that is none", behind: "log: { level: loud }", key: "log.level", says: "one of trace, debug"),
    Mistake(
      "a destination that is none", behind: "log: { destination: file }", key: "log.destination",
      says: "one of stderr, syslog"),
    Mistake(
      "a policy that is none", behind: "on-application-failure: restart", key: "on-application-failure",
      says: "one of switchover, close, not restart"),
    Mistake("debug: 1", behind: "debug: 1", key: "debug", says: "must be true or false, not 1"),
  ]

  @Test("refuses, in one line with file, line and key:", arguments: mistakes)
  func mistake(_ mistake: Mistake) throws {
    let error = try #require(throws: ConfigurationError.self) { try Self.read(mistake.yaml) }
    #expect(error.file == "jsrd.yaml")
    #expect(error.line == mistake.line)
    #expect(error.key == (mistake.key == "" ? nil : mistake.key))
    #expect(error.message.contains(mistake.says), "says: \(error.message)")
    #expect(!error.description.contains { $0.isNewline })
    let place = mistake.line.map { "jsrd.yaml:\($0): " } ?? "jsrd.yaml: "
    #expect(error.description.hasPrefix(place))
  }

  @Test("every key of the documentation can be left out or changed on its own without another being blamed")
  func unrelated() throws {
    for text in [
      "debug: false", "mode: strict", "control: /x", "on-application-failure: close", "log: {}", "limits: {}",
      "timeouts: {}",
      "mastership: {}",
    ] {
      _ = try Self.read(Self.smallest + text)
    }
  }

  /// Lists of lists, nine times nine and so on, of which each is written once.
  static let nestedAliases =
    "k0: &k0 [\(Array(repeating: "x", count: 9).joined(separator: ","))]\n"
    + (1...8).map { level in
      "k\(level): &k\(level) [\(Array(repeating: "*k\(level - 1)", count: 9).joined(separator: ","))]\n"
    }.joined() + "? *k8\n: a\n? [*k8]\n: b\n"

  @Test(
    "refuses aliases before they can grow beyond all bounds, wherever the parser would find one",
    .timeLimit(.minutes(1)),
    arguments: [
      (nestedAliases, 2), ("\(smallest)mode: *a\n", 9), ("*a : b", 1), ("a: [*b]", 1),
      ("a: {b: c,*d : e}", 1),
      ("? *a\n: b", 1), ("- *a", 1), ("\u{feff}*a : b", 1), ("a:\u{85}*b", 1), ("a:\n\t*b", 2),
    ])
  func aliases(_ yaml: String, _ line: Int) throws {
    let error = try #require(throws: ConfigurationError.self) { try Self.read(yaml) }
    #expect(error.line == line)
    #expect(error.message.hasPrefix("aliases such as *name are not understood"))
  }

  @Test("lets an asterisk be where it begins no alias")
  func asterisks() throws {
    let text = Self.smallest + "# *** a line of them, one * two, 2*3\ncontrol: /run/a*b/*c\n"
    #expect(try Self.read(text).control == "/run/a*b/*c")
  }

  // MARK: - Files

  @Test("is read from a file")
  func file() throws {
    let path =
      FileManager.default.temporaryDirectory.path
      + "/jsrd-\(getpid())-\(UInt32.random(in: 0...UInt32.max)).yaml"
    defer { try? FileManager.default.removeItem(atPath: path) }
    try Self.smallest.write(toFile: path, atomically: false, encoding: .utf8)
    #expect(try Configuration(contentsOf: path) == Self.read(Self.smallest))

    try Data([0x6e, 0x3a, 0xff]).write(to: URL(fileURLWithPath: path))
    let error = try #require(throws: ConfigurationError.self) { try Configuration(contentsOf: path) }
    #expect(error.description == "\(path): is not UTF-8 text")
  }

  @Test("names a file that is not there, or is no file")
  func absent() throws {
    let absent = try #require(throws: ConfigurationError.self) {
      try Configuration(contentsOf: "/nonexistent/jsrd.yaml")
    }
    #expect(absent.description == "/nonexistent/jsrd.yaml: cannot be opened: No such file or directory")
    let directory = try #require(throws: ConfigurationError.self) { try Configuration(contentsOf: "/") }
    #expect(directory.description == "/: cannot be read: Is a directory")
    let endless = try #require(throws: ConfigurationError.self) { try Configuration(contentsOf: "/dev/zero") }
    #expect(endless.description == "/dev/zero: is longer than 1 MiB, which no configuration is")
  }
}

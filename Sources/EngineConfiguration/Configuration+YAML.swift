import Control
import Glibc
import Logging
import Packet
import Replication
import Yams

extension Configuration {
  /// No configuration needs more; whoever names a device by mistake is told so.
  private static let fileLimit = 1 << 20

  /// Reads a file.
  ///
  /// - Throws: a `ConfigurationError` that names the first thing that is wrong, from the top of what is
  ///   known, and last what is not known.
  public init(contentsOf path: String) throws(ConfigurationError) {
    try self.init(yaml: try Self.read(path), file: path)
  }

  /// Reads a text.
  ///
  /// - Parameter file: named in errors.
  public init(yaml: String, file: String) throws(ConfigurationError) {
    var root = try ConfigurationSection(file: file, root: try Self.compose(yaml, file: file))
    node = try root.require("node").string("a name of 1 to 64 letters, digits, dots, dashes and underscores")
    {
      (1...64).contains($0.utf8.count)
        && $0.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "._-".contains($0)) }
    }
    slot = UInt8(try root.require("slot").integer(in: 0...1))
    link = try Link(root.requireSection("link"), slot: slot)
    addresses = try Self.addresses(root.require("addresses"))
    uplinks = try Self.uplinks(root.require("uplinks"))
    instances = try Self.instances(root.take("instances"), mainUplinks: uplinks)
    mastership = try Mastership(root.takeSection("mastership"))
    control =
      try root.take("control")?.string("an absolute path of at most 107 bytes") {
        $0.hasPrefix("/") && !$0.hasSuffix("/") && $0.utf8.count <= 107
      } ?? ControlProtocol.defaultPath
    mode = try root.take("mode")?.choice(Mode.self) ?? .overlap
    busyPoll = try root.take("busy-poll")?.duration(in: .zero ... .milliseconds(1)) ?? .zero
    timeouts = try Timeouts(root.takeSection("timeouts"))
    limits = try Limits(root.takeSection("limits"))
    log = try Log(root.takeSection("log"))
    onApplicationFailure =
      try root.take("on-application-failure")?.choice(ApplicationFailurePolicy.self) ?? .switchover
    debug = try root.take("debug")?.truth() ?? false
    try root.finish(known: [
      "node", "slot", "link", "addresses", "uplinks", "instances", "mastership", "control", "mode",
      "busy-poll", "timeouts", "limits", "log", "on-application-failure", "debug",
    ])
  }

  private static func read(_ path: String) throws(ConfigurationError) -> String {
    func wrong(_ message: String) -> ConfigurationError {
      ConfigurationError(file: path, line: nil, key: nil, message: message)
    }
    guard let file = fopen(path, "re") else {
      throw wrong("cannot be opened: \(String(cString: strerror(errno)))")
    }
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: fileLimit + 1)
    let count = fread(&bytes, 1, bytes.count, file)
    guard ferror(file) == 0 else { throw wrong("cannot be read: \(String(cString: strerror(errno)))") }
    guard count <= fileLimit else { throw wrong("is longer than 1 MiB, which no configuration is") }
    guard let text = String(validating: bytes.prefix(count), as: UTF8.self) else {
      throw wrong("is not UTF-8 text")
    }
    return text
  }

  private static func compose(_ yaml: String, file: String) throws(ConfigurationError) -> Node {
    func wrong(_ line: Int?, _ message: String, key: String? = nil) -> ConfigurationError {
      ConfigurationError(file: file, line: line, key: key, message: message)
    }
    if let line = lineOfAlias(in: yaml) {
      throw wrong(
        line, "aliases such as *name are not understood here, also in comments: write the value out")
    }
    do {
      guard let node = try Yams.compose(yaml: yaml) else { throw wrong(nil, "is empty") }
      return node
    } catch let error as ConfigurationError {
      throw error
    } catch YamlError.scanner(_, let problem, let mark, _), YamlError.parser(_, let problem, let mark, _),
      YamlError.composer(_, let problem, let mark, _)
    {
      throw wrong(mark.line, "is not valid YAML: \(problem)")
    } catch YamlError.reader(let problem, let offset, _, _) {
      let line = offset.map { offset in 1 + yaml.prefix(offset).count { $0.isNewline } }
      throw wrong(line, "is not valid YAML: \(problem)")
    } catch YamlError.duplicatedKeysInMapping(let duplicates, let context) {
      throw wrong(context.mark.line, "is given more than once", key: duplicates.joined(separator: ", "))
    } catch {
      throw wrong(nil, "is not valid YAML: \(error)")
    }
  }

  /// Where an asterisk stands before a name, as at the beginning of an alias (YAML 1.2, section 7.1).
  ///
  /// A few nested aliases stand for more values than a machine can hold, and the parser compares all of them
  /// where they are keys. What looks like one is refused before it is parsed: where comments and quoted texts
  /// begin and end only the parser knows.
  private static func lineOfAlias(in yaml: String) -> Int? {
    let bytes = Array(yaml.utf8)
    let names = Set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-".utf8)
    // After a word or a slash it is a part of the text.
    let indicators = Set(" \t\r\n[]{},:?-\"'".utf8)
    for index in bytes.indices.dropLast() where bytes[index] == UInt8(ascii: "*") {
      guard names.contains(bytes[index + 1]) else { continue }
      // Line breaks beyond ASCII end in bytes beyond ASCII.
      guard index == 0 || indicators.contains(bytes[index - 1]) || bytes[index - 1] >= 0x80 else { continue }
      return 1 + bytes[..<index].count { $0 == UInt8(ascii: "\n") }
    }
    return nil
  }

  /// More than a router has of them.
  private static let instanceLimit = 64

  private static func instances(
    _ value: ConfigurationValue?, mainUplinks: [String]
  ) throws(ConfigurationError) -> [Instance] {
    guard let value else { return [] }
    let elements = try value.list("routing instances, each with name, netns or vrf, addresses and uplinks")
    guard elements.count <= instanceLimit else {
      throw value.wrong("must be at most \(instanceLimit) routing instances, not \(elements.count)")
    }
    var instances: [Instance] = []
    for element in elements {
      var section = try element.section()
      let nameValue = try section.require("name")
      let name = try nameValue.string("a name of 1 to 32 letters, digits, dots, dashes and underscores") {
        (1...32).contains($0.utf8.count)
          && $0.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "._-".contains($0)) }
      }
      guard name != "main" else { throw nameValue.wrong("cannot be main, which is where the engine is") }
      guard !instances.contains(where: { $0.name == name }) else {
        throw nameValue.wrong("\(name) is given more than once")
      }
      let place = try place(&section, of: element)
      guard !instances.contains(where: { $0.place == place.value }) else {
        throw place.key.wrong("\(place.text) is given to another instance already")
      }
      let addresses = try addresses(section.require("addresses"))
      let uplinksValue = try section.require("uplinks")
      let uplinks = try uplinks(uplinksValue)
      if !place.value.isNamespace {
        // All VRFs are in one namespace, with the main instance.
        let others = instances.filter { !$0.place.isNamespace }.flatMap(\.uplinks) + mainUplinks
        if let twice = uplinks.first(where: others.contains) {
          throw uplinksValue.wrong("\(twice) is an uplink of another instance already")
        }
      }
      instances.append(Instance(name: name, place: place.value, addresses: addresses, uplinks: uplinks))
      try section.finish(known: ["name", "netns", "vrf", "addresses", "uplinks"])
    }
    return instances
  }

  /// Where an instance is, as its section says it.
  private static func place(
    _ section: inout ConfigurationSection, of element: ConfigurationValue
  ) throws(ConfigurationError) -> (value: Instance.Place, key: ConfigurationValue, text: String) {
    if let key = section.take("vrf") {
      let device = try key.string("the name of the device of a VRF, of 1 to 15 bytes", where: isInterfaceName)
      if let other = section.take("netns") { throw other.wrong("excludes vrf: an instance is one of both") }
      return (.vrf(device), key, device)
    }
    guard let key = section.take("netns") else {
      throw element.wrong("needs netns, a network namespace, or vrf, the device of a VRF")
    }
    let text = try key.string("the name of a network namespace, or its absolute path") {
      !$0.isEmpty && $0 != "." && $0 != ".." && ($0.hasPrefix("/") || !$0.contains("/"))
    }
    return (.namespace(text.hasPrefix("/") ? text : "/run/netns/" + text), key, text)
  }

  private static func addresses(_ value: ConfigurationValue) throws(ConfigurationError) -> [ReplicatedAddress]
  {
    let expected = "an address with prefix length, such as 5.5.5.5/24 or 2001:db8::5/64"
    var addresses: [ReplicatedAddress] = []
    for element in try value.list("addresses with prefix length, such as 5.5.5.5/24") {
      let text = try element.string(expected) { !$0.isEmpty }
      let parts = text.split(separator: "/", omittingEmptySubsequences: false)
      guard parts.count == 2, let address = IPAddress(parts[0]) else {
        throw element.wrong("must be \(expected), not \(text)")
      }
      guard let prefixLength = Int(parts[1]), (1...address.byteCount * 8).contains(prefixLength) else {
        throw element.wrong("must have a prefix length from 1 to \(address.byteCount * 8), unlike \(text)")
      }
      guard isUnicast(address) else {
        throw element.wrong("must be an address of one host that others can reach, not \(text)")
      }
      guard !address.isLinkLocal else {
        throw element.wrong("must not be valid on one link only, as \(text) is: it moves between machines")
      }
      guard !addresses.contains(where: { $0.address == address }) else {
        throw element.wrong("\(address) is given more than once")
      }
      addresses.append(ReplicatedAddress(address: address, prefixLength: prefixLength))
    }
    return addresses
  }

  /// Not unspecified, loopback, multicast, broadcast, nor an IPv4 address in the form of IPv6, which is on no wire
  /// (RFC 6890, RFC 4291).
  private static func isUnicast(_ address: IPAddress) -> Bool {
    let bytes = address.bytes
    switch address.family {
    case .v4:
      return (1..<224).contains(bytes[0]) && bytes[0] != 127
    case .v6:
      let leadingZeros = bytes.dropLast().allSatisfy { $0 == 0 }
      let isMapped = bytes[..<10].allSatisfy { $0 == 0 } && bytes[10] == 0xff && bytes[11] == 0xff
      return bytes[0] != 0xff && !(leadingZeros && bytes[15] <= 1) && !isMapped
    }
  }

  /// Each has a TAP device, and is asked for its carrier a hundred times a second.
  private static let uplinkLimit = 64

  private static func uplinks(_ value: ConfigurationValue) throws(ConfigurationError) -> [String] {
    let elements = try value.list("interface names")
    guard elements.count <= uplinkLimit else {
      throw value.wrong("must be at most \(uplinkLimit) interface names, not \(elements.count)")
    }
    var uplinks: [String] = []
    for element in elements {
      let name = try element.string("the name of an interface of 1 to 15 bytes", where: isInterfaceName)
      guard !uplinks.contains(name) else { throw element.wrong("\(name) is given more than once") }
      uplinks.append(name)
    }
    return uplinks
  }

  /// By the kernel's own rule, dev_valid_name in net/core/dev.c.
  private static func isInterfaceName(_ name: String) -> Bool {
    (1...15).contains(name.utf8.count) && name != "." && name != ".."
      && !name.contains { $0 == "/" || $0 == ":" || $0.isWhitespace }
  }
}

extension ConfigurationSection {
  fileprivate mutating func requireSection(_ key: String) throws(ConfigurationError) -> ConfigurationSection {
    guard let section = try takeSection(key) else {
      throw ConfigurationError(file: file, line: line, key: path + key, message: "is missing")
    }
    return section
  }
}

extension Configuration.Link {
  /// - Parameter slot: of this routing engine, for names that are not given.
  fileprivate init(_ section: ConfigurationSection, slot: UInt8) throws(ConfigurationError) {
    var section = section
    let listenValue = try section.require("listen")
    listen = try listenValue.endpoint()
    let connectValue = try section.require("connect")
    connect = try connectValue.endpoint()
    guard listen.address.family == connect.address.family else {
      throw connectValue.wrong("must be of the same family as link.listen, \(listen)")
    }
    guard listen != connect else {
      throw connectValue.wrong("must be the other routing engine's address, not this one's, \(listen)")
    }
    let insecure = section.take("insecure")
    if section.has("tls"), let insecure {
      throw insecure.wrong("cannot be given together with link.tls")
    }
    if let tls = try section.takeSection("tls") {
      security = .tls(try Configuration.LinkTLS(tls, slot: slot))
    } else if let insecure {
      guard try insecure.truth() else {
        throw insecure.wrong(
          "can only be true; for a link that is not insecure, leave it out and give link.tls")
      }
      security = .insecure
    } else {
      throw ConfigurationError(
        file: section.file, line: section.line, key: "link.tls",
        message:
          "is missing: jsrctl link-keys new DIRECTORY makes what it names; or insecure: true for a link "
          + "in plain text, which must be one that nobody else can reach")
    }
    versions = try Self.versions(&section)
    try section.finish(known: ["listen", "connect", "tls", "insecure", "min-version", "max-version"])
  }

  private static func versions(
    _ section: inout ConfigurationSection
  ) throws(ConfigurationError) -> ClosedRange<UInt16> {
    let supported = LinkVersion.supported
    let range = Int(supported.lowerBound)...Int(supported.upperBound)
    let lowest = try section.take("min-version")?.integer(in: range) ?? range.lowerBound
    let highestValue = section.take("max-version")
    let highest = try highestValue?.integer(in: range) ?? range.upperBound
    guard lowest <= highest else {
      throw highestValue!.wrong("must not be lower than link.min-version, \(lowest)")
    }
    return UInt16(lowest)...UInt16(highest)
  }
}

extension Configuration.LinkTLS {
  fileprivate init(_ section: ConfigurationSection, slot: UInt8) throws(ConfigurationError) {
    var section = section
    certificate = try section.require("certificate").path()
    key = try section.require("key").path()
    ca = try section.require("ca").path()
    name = try section.take("name")?.hostName() ?? "re\(slot)"
    let peerValue = section.take("peer")
    peer = try peerValue?.hostName() ?? "re\(1 - slot)"
    guard name != peer else {
      throw ConfigurationError(
        file: section.file, line: peerValue?.line ?? section.line, key: "link.tls.peer",
        message: "must be the other routing engine's name, not this one's, \(name) (link.tls.name)")
    }
    try section.finish(known: ["certificate", "key", "ca", "name", "peer"])
  }
}

extension Configuration.Mastership {
  fileprivate init(_ section: ConfigurationSection?) throws(ConfigurationError) {
    arbiter = .pair
    priority = 100
    keepalive = Configuration.Keepalive(interval: .milliseconds(100), misses: 3)
    guard var section else { return }
    if let value = section.take("arbiter") {
      let name = try value.string("pair") { _ in true }
      guard name != "etcd", name != "external" else {
        throw value.wrong("the arbiter \(name) is not supported by this version, use pair")
      }
      arbiter = try value.choice(Configuration.Arbiter.self)
    }
    if let value = section.take("priority") { priority = try value.integer(in: 0...255) }
    if var inner = try section.takeSection("keepalive") {
      if let value = inner.take("interval") {
        keepalive.interval = try value.duration(in: .milliseconds(10) ... .seconds(10))
      }
      if let value = inner.take("misses") { keepalive.misses = try value.integer(in: 2...100) }
      try inner.finish(known: ["interval", "misses"])
      let shortest = PairTiming.shortestDetection
      guard keepalive.interval * keepalive.misses >= .nanoseconds(shortest.count) else {
        throw ConfigurationError(
          file: inner.file, line: inner.line, key: "mastership.keepalive",
          message:
            "interval times misses must be at least \(shortest.milliseconds)ms: half of it is the time of the lease, "
            + "which must outlast the engine's timers")
      }
    }
    try section.finish(known: ["arbiter", "priority", "keepalive"])
  }
}

extension Configuration.Timeouts {
  fileprivate init(_ section: ConfigurationSection?) throws(ConfigurationError) {
    var section = section
    prl = try section?.take("prl")?.duration(in: Self.range) ?? .seconds(1)
    sdrl = try section?.take("sdrl")?.duration(in: Self.range) ?? .seconds(1)
    psrm = try section?.take("psrm")?.duration(in: Self.range) ?? .seconds(1)
    try section?.finish(known: ["prl", "sdrl", "psrm"])
  }
}

extension Configuration.Limits {
  fileprivate init(_ section: ConfigurationSection?) throws(ConfigurationError) {
    var section = section
    sockets = try section?.take("sockets")?.integer(in: 1...1_000_000) ?? 20_000
    snoopBuffer = try section?.take("snoop-buffer")?.size(in: 64 << 10...1 << 30) ?? 4 << 20
    holdBuffer = try section?.take("hold-buffer")?.size(in: 1 << 20...16 << 30) ?? 64 << 20
    // A frame of 64 KiB, the largest that segmentation offload makes, must fit with its headers.
    record = try section?.take("record")?.size(in: 128 << 10...64 << 20) ?? 1 << 20
    try section?.finish(known: ["sockets", "snoop-buffer", "hold-buffer", "record"])
  }
}

extension Configuration.Log {
  fileprivate init(_ section: ConfigurationSection?) throws(ConfigurationError) {
    level = .info
    destination = .stderr
    guard var section else { return }
    if let value = section.take("level") { level = try value.choice(Logger.Level.self) }
    if let value = section.take("destination") {
      destination = try value.choice(Configuration.LogDestination.self)
    }
    try section.finish(known: ["level", "destination"])
  }
}

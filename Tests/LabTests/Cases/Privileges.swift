import Foundation
import Glibc
import Testing

extension LabSuite {
  /// docs/privileges.md, and what `packaging/jsrd.service` permits.
  @Suite("privileges")
  struct Privileges {
    private static let engineUser: uid_t = 64_998
    private static let applicationUser: uid_t = 64_997
    private static let group: gid_t = 64_999

    /// CAP_NET_BIND_SERVICE, CAP_NET_ADMIN and CAP_NET_RAW.
    private static let kept = "0000000000003400"

    /// Others than root get to the programs.
    private static var isReachable: Bool {
      var path = Binaries.directory
      var file = stat()
      while path != "/" {
        guard stat(path, &file) == 0, file.st_mode & S_IXOTH != 0 else { return false }
        path = (path as NSString).deletingLastPathComponent
      }
      return true
    }

    /// A command that runs jsrd as systemd does.
    private static func asUnit(in lab: Lab) throws -> [String] {
      // The group need not exist on this machine, and udev, which opens the device to everybody, not run.
      let groups = "\(lab.directory)/group"
      try "root:x:0:\njsr:x:\(group):\n".write(toFile: groups, atomically: true, encoding: .utf8)
      let script = """
        mount --bind \(groups) /etc/group && mount -t tmpfs tmpfs /mnt && mknod -m 666 /mnt/tun c 10 200 \
          && mount --bind /mnt/tun /dev/net/tun && exec "$@"
        """
      let capabilities = "-all,+net_admin,+net_raw,+net_bind_service"
      return [
        "unshare", "--mount", "bash", "-c", script, "bash", "setpriv", "--reuid=\(engineUser)",
        "--regid=\(group)", "--clear-groups", "--no-new-privs", "--bounding-set=\(capabilities)",
        "--inh-caps=\(capabilities)", "--ambient-caps=\(capabilities)", "--",
      ]
    }

    private static let asApplication = [
      "setpriv", "--reuid=\(applicationUser)", "--regid=\(group)", "--clear-groups", "--no-new-privs",
      "--bounding-set=-all", "--inh-caps=-all", "--",
    ]

    /// Makes the directory of the control socket the user's, and an empty one.
    private static func give(_ engine: RoutingEngine, to user: uid_t, _ group: gid_t) throws {
      let socket = engine.lab.controlSocket(of: engine.node)
      for left in [socket, socket + ".lock"] { unlink(left) }
      try give((socket as NSString).deletingLastPathComponent, to: user, group)
    }

    private static func give(_ path: String, to user: uid_t, _ group: gid_t) throws {
      guard chown(path, user, group) == 0 else {
        throw LabFailure("chown \(path): \(String(cString: strerror(errno)))")
      }
    }

    /// Every thread of a program has the same, and no way to more.
    private static func expect(_ program: Program, hasOnly mask: String, user: uid_t) throws {
      let tasks = "/proc/\(program.pid)/task"
      let threads = try FileManager.default.contentsOfDirectory(atPath: tasks)
      #expect(threads.count > 1)
      for thread in threads {
        let text = try String(contentsOfFile: "\(tasks)/\(thread)/status", encoding: .utf8)
        func field(_ name: String) -> String? {
          text.split(separator: "\n").first { $0.hasPrefix(name + ":") }?
            .dropFirst(name.count + 1).trimmingCharacters(in: .whitespaces)
        }
        for set in ["CapEff", "CapPrm", "CapBnd"] { #expect(field(set) == mask, "\(program.name): \(set)") }
        for set in ["CapInh", "CapAmb"] {
          #expect(field(set) == "0000000000000000", "\(program.name): \(set)")
        }
        #expect(field("NoNewPrivs") == "1")
        #expect(field("Uid") == Array(repeating: "\(user)", count: 4).joined(separator: "\t"))
      }
    }

    @Test(
      "three capabilities are enough for jsrd, also as an ordinary user, and none for its application",
      .enabled(if: isReachable, "the programs are where ordinary users do not get to"),
      .timeLimit(.minutes(1)))
    func ordinaryUsers() async throws {
      try await Lab.run("privileges") { lab in
        let keys = try LinkKeyFiles.make(at: "\(lab.directory)/keys")
        for node in [Node.re0, .re1] { try Self.give("\(keys)/\(node).key", to: Self.engineUser, Self.group) }
        var configuration = EngineConfiguration()
        configuration.keys = keys
        let pair = EnginePair(unstarted: lab, configuration: configuration)
        for engine in [pair.re0, pair.re1] {
          try Self.give(engine, to: Self.engineUser, Self.group)
          try await engine.startEngine(behind: try Self.asUnit(in: lab))
          try engine.startServer(behind: Self.asApplication)
        }
        try await pair.waitUntilInStep(primary: pair.re0)
        try await pair.re0.waitUntilServing()
        try await pair.re1.server.waitForLine(containing: "CHANNEL up", within: .seconds(10))
        for engine in [pair.re0, pair.re1] {
          try Self.expect(try engine.engine, hasOnly: Self.kept, user: Self.engineUser)
          try Self.expect(try engine.server, hasOnly: "0000000000000000", user: Self.applicationUser)
        }
        // From here on its port is one that not everybody may have, like BGP's.
        try await lab.run(["sysctl", "-q", "-w", "net.ipv4.ip_unprivileged_port_start=16001"], on: .re1)

        let traffic = try await WatchedTraffic(pair, ["-m", "0", "-w", "5", "--quiet"])
        try await traffic.waitUntilFlowing()
        try await pair.re0.lose()
        try await pair.re1.waitUntilPrimary(merged: 5)
        try await traffic.waitUntilFlowing()
        try await traffic.stop(living: [pair.re1])

        // The other one as root, as in all other tests.
        try Self.give(pair.re0, to: 0, 0)
        try Self.give("\(keys)/re0.key", to: 0, 0)
        try await pair.re0.comeBack()
        try await pair.waitUntilInStep(primary: pair.re1)
        try Self.expect(try pair.re0.engine, hasOnly: Self.kept, user: 0)
      }
    }
  }
}

import CLinux
import Descriptors
import Foundation
import Glibc
import Synchronization
import Testing

/// A machine of the lab.
enum Node: String, Sendable {
  case re0, re1, peer
  /// Not a machine of its own: the bridge that the others hang on, where captures are made.
  case `switch`
  /// The same in another routing instance, if there is one: namespaces of their own on the same machines.
  case re0Blue = "re0-blue"
  case re1Blue = "re1-blue"
  case peerBlue = "peer-blue"

  /// Those that are always there.
  static let machines: [Node] = [.re0, .re1, .peer, .switch]
}

/// A cable of a routing engine that can be pulled.
enum Cable: String, Sendable {
  /// From eth0 to the switch.
  case uplink
  /// From eth1 to the second switch, if there is one.
  case second
  /// From engine to engine.
  case link
}

/// One lab of its own, laid out by `scripts/lab` under a name nobody else uses.
final class Lab: Sendable {
  private static let counter = Atomic<Int>(0)

  let id: String
  /// For configurations and logs; logs stay there after the case.
  let directory: String
  private let programs = Mutex<[Program]>([])

  private init(_ title: String) throws {
    let number = Self.counter.add(1, ordering: .relaxed).newValue
    // scripts/test gives its labs a name of their own, to find what is left of an interrupted run.
    let prefix = ProcessInfo.processInfo.environment["JSR_LAB"] ?? "t"
    id = "\(prefix)-\(ProcessInfo.processInfo.processIdentifier)-\(number)"
    directory = Binaries.package + "/.build/lab/\(title)"
    try? FileManager.default.removeItem(atPath: directory)
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
  }

  /// Lays out a lab, runs `body` in it, and takes it away however `body` ends.
  ///
  /// - Parameter title: Names the directory under `.build/lab` where what every program printed is kept.
  static func run(_ title: String, _ body: (Lab) async throws -> Void) async throws {
    let lab = try Lab(title)
    do {
      try await lab.script(["up"])
      try await body(lab)
    } catch {
      await lab.clearAway()
      throw LabFailure("\(error) (logs: .build/lab/\(title))")
    }
    await lab.clearAway()
  }

  /// Takes everything away, also when the test has run out of time and its task is cancelled: an
  /// unstructured task does not inherit that.
  private func clearAway() async {
    await Task {
      do {
        for program in programs.withLock({ $0 }) { try await program.killAndWait() }
        try await script(["down"])
      } catch {
        Issue.record("the lab \(id) was not taken away: \(error)")
      }
      for program in programs.withLock({ $0 }) {
        let text = program.output.suffix(20_000) + ["-- errors --"] + program.errors.suffix(20_000)
        try? text.joined(separator: "\n").write(
          toFile: "\(directory)/\(program.name).log", atomically: true, encoding: .utf8)
      }
    }.value
  }

  private func script(_ arguments: [String]) async throws {
    let program = try Program(
      "lab \(arguments[0])", [Binaries.labScript] + arguments, environment: environment)
    let end = try await program.waitForEnd(within: .seconds(20))
    guard end == .exited(0) else {
      throw LabFailure("scripts/lab \(arguments.joined(separator: " ")): \(end), \(program.lastWords)")
    }
  }

  private var environment: [String: String] { ["JSR_LAB": id] }

  /// Starts a command on `node`; the pid is that of the command itself. It is killed when the case is over.
  func start(_ name: String, on node: Node, _ command: [String]) throws -> Program {
    let program = try Program(
      name, [Binaries.labScript, "exec", node.rawValue] + command, environment: environment)
    programs.withLock { $0.append(program) }
    return program
  }

  /// Runs a command on `node` to its end and returns what it printed.
  /// - Throws: ``LabFailure`` with its last words if it does not exit with status 0.
  @discardableResult
  func run(_ command: [String], on node: Node, within time: Duration = .seconds(10)) async throws -> [String]
  {
    let program = try Program(
      command[0], [Binaries.labScript, "exec", node.rawValue] + command, environment: environment)
    do {
      let end = try await program.waitForEnd(within: time)
      guard end == .exited(0) else {
        throw LabFailure("\(command.joined(separator: " ")) on \(node): \(end), \(program.lastWords)")
      }
    } catch {
      try? await program.killAndWait()
      throw error
    }
    return program.output
  }

  /// Pulls a cable: the node loses carrier.
  func cut(_ cable: Cable, of node: Node) async throws {
    try await script(["cut", cable.rawValue, node.rawValue])
  }

  /// Gives both routing engines and the peer a second uplink, eth1, to a switch of its own; or those back what they have
  /// lost of that.
  func plugSecondUplinks() async throws { try await script(["second"]) }

  /// Adds the routing instance blue.
  func addInstance() async throws { try await script(["instance", "blue"]) }

  /// Makes of the instance that was added one that is a VRF called `blue`, of eth1, on both routing engines. Its peer
  /// stays where it is.
  ///
  /// - Returns: whether the kernel has VRFs. Otherwise the device is a bridge, which is like one in what concerns the
  ///   engine, save for the routing table, and that it learns where addresses are.
  func turnInstanceIntoVRF() async throws -> Bool {
    var isVRF = true
    for (node, blue) in [(Node.re0, Node.re0Blue), (.re1, .re1Blue)] {
      try await run(
        ["ip", "link", "set", "dev", "eth0", "netns", namespace(of: node), "name", "eth1"], on: blue)
      do {
        try await run(["ip", "link", "add", "blue", "type", "vrf", "table", "10"], on: node)
      } catch is LabFailure {
        isVRF = false
        try await run(
          ["ip", "link", "add", "blue", "type", "bridge", "stp_state", "0", "mcast_snooping", "0"], on: node)
        // Otherwise it would change with the ports.
        let address = try await run(["cat", "/sys/class/net/eth1/address"], on: node)
        try await run(["ip", "link", "set", "blue", "address", address.first ?? ""], on: node)
      }
      try await run(["ip", "link", "set", "blue", "up"], on: node)
      try await run(["ip", "link", "set", "eth1", "master", "blue", "up"], on: node)
    }
    return isVRF
  }

  /// Keeps the bridge that stands for a VRF from sending to the TAP device of the engine what is for the wire.
  func isolateTap(_ name: String, on node: Node) async throws {
    try await run(
      [
        "bridge", "link", "set", "dev", name, "learning", "off", "flood", "off", "mcast_flood", "off",
        "bcast_flood", "off",
      ],
      on: node)
  }

  /// The name of the network namespace of a node.
  func namespace(of node: Node) -> String { "jsr-\(id)-\(node.rawValue)" }

  /// Plugs it in again.
  func mend(_ cable: Cable, of node: Node) async throws {
    try await script(["mend", cable.rawValue, node.rawValue])
  }

  /// Where the engine of `node` listens, as seen from outside its private /run/jsr.
  func controlSocket(of node: Node) -> String { "/run/jsr-lab/\(id)/\(node.rawValue)/jsrd.sock" }

  /// Runs `body`, which must not wait for long, on a thread that is inside the network namespace of `node`.
  /// Sockets made there stay there for good.
  func inside<Value: Sendable>(
    _ node: Node, _ body: @escaping @Sendable () throws -> Value
  ) async throws -> Value {
    let path = "/run/netns/\(namespace(of: node))"
    return try await withCheckedThrowingContinuation { continuation in
      Thread.detachNewThread {
        continuation.resume(
          with: Result {
            let namespace = try OwnedDescriptor(returnedBy: "open", open(path, O_RDONLY | O_CLOEXEC))
            guard jsr_enter_network_namespace(namespace.rawValue) == 0 else { throw SystemError("setns") }
            return try body()
          })
      }
    }
  }
}

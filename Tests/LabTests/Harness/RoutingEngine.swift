import Foundation
import Glibc
import Synchronization
import Testing

/// One routing engine of the lab, with the two programs that run on it: jsrd and the echo server.
final class RoutingEngine: Sendable {
  let node: Node
  let lab: Lab

  private struct State {
    var engine: Program?
    var server: Program?
    var starts = 0
    var configuration: EngineConfiguration
  }
  private let state: Mutex<State>

  /// - Parameter node: re0 or re1.
  init(_ node: Node, in lab: Lab, configuration: EngineConfiguration = EngineConfiguration()) {
    self.node = node
    self.lab = lab
    state = Mutex(State(configuration: configuration))
  }

  /// 0 or 1; the name under which this engine's answers are counted by jsrpeer.
  var slot: Int { node == .re0 ? 0 : 1 }
  private var otherLinkAddress: String { node == .re0 ? "10.77.0.2" : "10.77.0.1" }

  /// The engine that was started last.
  var engine: Program {
    get throws { try running(\.engine, "jsrd") }
  }
  /// The echo server that was started last.
  var server: Program {
    get throws { try running(\.server, "jsrutil") }
  }

  private func running(_ program: any KeyPath<State, Program?> & Sendable, _ name: String) throws -> Program {
    guard let program = state.withLock({ $0[keyPath: program] }) else {
      throw LabFailure("\(name) was not started on \(node)")
    }
    return program
  }

  /// A name for the log of a program that may be started several times in one case.
  private func logName(_ program: String) -> String {
    let number = state.withLock {
      $0.starts += 1
      return $0.starts
    }
    return "\(node)-\(program)-\(number)"
  }

  /// Changes the configuration file of the running engine, and tells it to read it again.
  func reconfigure(_ text: String) throws {
    try text.write(toFile: configurationPath, atomically: true, encoding: .utf8)
    try engine.send(SIGHUP)
  }

  /// Configures the engine otherwise from its next start on.
  func configure(_ configuration: EngineConfiguration) { state.withLock { $0.configuration = configuration } }

  /// What the engine was told when it was started.
  var configurationText: String { get throws { try state.withLock { $0.configuration }.text(for: node) } }

  private var configurationPath: String { "\(lab.directory)/\(node).yaml" }

  /// Starts jsrd and waits until its control socket answers.
  ///
  /// - Parameter prefix: A command that runs jsrd, and becomes it.
  func startEngine(behind prefix: [String] = []) async throws {
    let path = configurationPath
    try configurationText.write(toFile: path, atomically: true, encoding: .utf8)
    let engine = try lab.start(
      logName("jsrd"), on: node, prefix + [Binaries.path(of: "jsrd"), "--config", path])
    state.withLock { $0.engine = engine }
    try await eventually(within: .seconds(10), "jsrd on \(node) answers; last: \(engine.lastWords)") {
      if let end = engine.end { throw LabFailure("jsrd on \(node) ended, \(end): \(engine.lastWords)") }
      return (try? await status()) != nil
    }
  }

  /// Starts the echo server, as the one that takes its part from mastership unless `mode` says otherwise.
  ///
  /// - Parameter prefix: A command that runs the server, and becomes it.
  func startServer(
    mode: String = "jsr_echo_server", _ options: [String] = ["--quiet"], behind prefix: [String] = []
  ) throws {
    let server = try lab.start(
      logName("jsrutil"), on: node,
      prefix + [Binaries.path(of: "jsrutil"), "-a", mode, "-p", "16000", "--ore", otherLinkAddress, "-v"]
        + options)
    state.withLock { $0.server = server }
  }

  /// Waits until the echo server takes connections and talks to its other instance.
  func waitUntilServing() async throws {
    try await waitUntilListening()
    try await server.waitForLine(containing: "CHANNEL up", within: .seconds(10))
  }

  /// Waits until the echo server takes connections.
  func waitUntilListening() async throws {
    try await eventually(within: .seconds(10), "the echo server on \(node) listens") {
      try await !lab.run(["ss", "-tlnH", "sport", "=", ":16000"], on: node).isEmpty
    }
  }

  /// Waits until this engine is primary.
  func waitUntilPrimary(within time: Duration = .seconds(10)) async throws {
    try await eventually(within: time, "\(node) is primary") { try await status().role == "primary" }
  }

  /// Waits until this engine is primary and its application has taken over `merged` connections.
  func waitUntilPrimary(merged: Int, within time: Duration = .seconds(10)) async throws {
    try await eventually(within: time, "\(node) is primary with \(merged) live sockets") {
      let ends = Family.allCases.map(\.localEnd)
      let live = try await kernelSockets().filter { $0.state == "ESTAB" && ends.contains($0.localEnd) }
      return try await status().role == "primary" && live.count == merged
    }
  }

  /// Engine and application, if there is one, die at once, with no warning.
  func killPrograms() throws {
    try engine.send(SIGKILL)
    state.withLock { $0.server }?.send(SIGKILL)
  }

  /// The whole routing engine is gone: cables pulled, programs dead.
  ///
  /// The programs are killed first, within microseconds of each other; what their kernel says after that
  /// (FIN for every socket that closes) must be stopped by the fence until the cable is out.
  func lose() async throws {
    try killPrograms()
    async let uplink: Void = lab.cut(.uplink, of: node)
    async let link: Void = lab.cut(.link, of: node)
    _ = try await (uplink, link)
    try await engine.killAndWait()
    try await state.withLock { $0.server }?.killAndWait()
  }

  /// The lost routing engine comes back as an empty one.
  func comeBack(_ server: [String] = ["--quiet"]) async throws {
    try await lab.mend(.uplink, of: node)
    try await lab.mend(.link, of: node)
    try await startEngine()
    try startServer(server)
  }

  // MARK: What jsrctl says

  /// Runs jsrctl to its end, whatever that is.
  func jsrctl(_ words: [String]) async throws -> (end: Program.End, output: [String], errors: [String]) {
    let program = try lab.start(logName("jsrctl"), on: node, [try Binaries.path(of: "jsrctl")] + words)
    let end = try await program.waitForEnd(within: .seconds(40))
    return (end, program.output, program.errors)
  }

  private func control(_ words: [String]) async throws -> Data {
    let lines = try await lab.run([Binaries.path(of: "jsrctl"), "--json"] + words, on: node)
    return Data(lines.joined(separator: "\n").utf8)
  }

  private func show<Report: Decodable>(_ what: String) async throws -> Report {
    let document = try await control(["show", what])
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    do {
      return try decoder.decode(Report.self, from: document)
    } catch {
      throw LabFailure(
        "show \(what) on \(node): \(error) in \(String(decoding: document.prefix(400), as: UTF8.self))")
    }
  }

  func status() async throws -> StatusReport { try await show("status") }
  func sockets() async throws -> [SocketReport] { try await show("sockets") }
  func connections() async throws -> [ConnectionReport] { try await show("connections") }
  /// Without what is told of each routing instance.
  func statistics() async throws -> [StatisticsReport] {
    let all: [StatisticsReport] = try await show("statistics")
    return all.filter { $0.instance == nil }
  }
  func memory() async throws -> [MemoryReport] { try await show("memory") }

  /// All of `show statistics`, which is of one moment, under names such as `sdrl.records`.
  func figures() async throws -> [String: Int] {
    Dictionary(uniqueKeysWithValues: try await statistics().map { ("\($0.layer).\($0.name)", $0.value) })
  }

  /// What the kernel of this engine says of the echo server's connections.
  func kernelSockets() async throws -> [KernelSocket] { try await KernelSocket.all(on: node, in: lab) }

  /// The names of the levels of `show statistics`, as opposed to its counts: what the engine holds now.
  private static let levelNames: Set = [
    "sockets", "flows", "held_packets", "held_bytes", "stored_frames", "buffered_bytes", "snoop_pairs",
    "records_unacknowledged", "bytes_unacknowledged", "descriptors",
  ]

  /// What the engine holds at the moment.
  func levels() async throws -> [String: Int] {
    let found = try await statistics().filter { Self.levelNames.contains($0.name) }
    let levels = Dictionary(found.map { ($0.name, $0.value) }) { $0 + $1 }
    guard levels.count == Self.levelNames.count else {
      throw LabFailure(
        "show statistics on \(node) lacks \(Self.levelNames.subtracting(levels.keys).sorted())")
    }
    return levels
  }

  /// Checks that levels are back where they were at some time before.
  ///
  /// The number of descriptors may be lower: a link or an application that was connected may be gone.
  func checkNothingIsLeft(since before: [String: Int]) async {
    var now: [String: Int] = [:]
    do {
      try await eventually(within: .seconds(10), "\(node) lets go of everything") {
        now = try await levels()
        return now.allSatisfy { name, value in
          name == "descriptors" ? value <= before[name] ?? 0 : value == before[name]
        }
      }
    } catch {
      Issue.record("\(error): before \(before), now \(now)")
    }
  }

  /// A setting as it is in force.
  func get(_ name: String) async throws -> String {
    try await lab.run([Binaries.path(of: "jsrctl"), "get", name], on: node).joined()
  }

  /// Has jsrctl do something.
  /// - Throws: ``LabFailure`` if it is refused.
  func order(_ words: [String]) async throws { _ = try await control(words) }

  /// `jsrctl request master acquire | release | switch`
  func requestMaster(_ what: String) async throws {
    _ = try await control(["request", "master", what])
  }
}

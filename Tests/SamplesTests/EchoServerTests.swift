import Foundation
import Glibc
import JSR
import Testing

@testable import Samples

@Suite("The echo server", .serialized, .enabled(if: geteuid() == 0, "network namespaces need root"))
struct EchoServerTests {
  /// An instance that runs, and what it prints.
  private final class Instance: Sendable {
    private let path: String
    private let mailbox: Mailbox<EngineNotice>
    private let ended: Task<Void, any Error>

    init(_ options: EchoServerOptions, in namespace: TestNamespace, session: ModelSession?) async throws {
      let path = NSTemporaryDirectory() + "jsr-samples-\(getpid())-\(UUID().uuidString)"
      self.path = path
      let (ready, readiness) = AsyncStream<Mailbox<EngineNotice>>.makeStream()
      ended = Task {
        try await namespace.run {
          let file = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0o600)
          defer { close(file) }
          defer { readiness.finish() }
          let server = try EchoServer(options, line: LineOutput(descriptor: file)) { () throws(JSRError) in
            guard let session else { throw .unreachable(path: "none", reason: "there is none") }
            return session
          }
          readiness.yield(server.engine.mailbox)
          try server.run()
        }
      }
      guard let mailbox = await ready.first(where: { _ in true }) else {
        try await ended.value
        preconditionFailure("a server that ended has thrown")
      }
      self.mailbox = mailbox
    }

    var output: String { (try? String(contentsOfFile: path, encoding: .utf8)) ?? "" }

    func stop() async throws {
      mailbox.post(.stop)
      try await ended.value
      try FileManager.default.removeItem(atPath: path)
    }
  }

  private func traffic(
    in namespace: TestNamespace, _ change: (inout TrafficPeerOptions) -> Void
  ) async throws -> TrafficSummary {
    var options = TrafficPeerOptions(hosts: ["127.0.0.1"])
    options.isQuiet = true
    // Ends what would never end, so that a failure is one and not a standstill.
    options.duration = 20
    change(&options)
    let fixed = options
    return try await namespace.run {
      let nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC)
      defer { close(nowhere) }
      return try TrafficPeer(
        fixed, line: LineOutput(descriptor: nowhere), complaint: LineOutput(descriptor: nowhere)
      ).run()
    }
  }

  @Test(
    "answers every kind of message of every length, byte for byte", .timeLimit(.minutes(1)),
    arguments: TrafficPeerOptions.Kind.allCases, [0, 1, 100, 65_535, 3_000_000])
  func plain(kind: TrafficPeerOptions.Kind, length: UInt32) async throws {
    let namespace = try TestNamespace()
    var options = EchoServerOptions()
    options.isPlain = true
    options.slot = 1
    options.verifiesPayload = true
    let server = try await Instance(options, in: namespace, session: nil)
    let summary = try await traffic(in: namespace) {
      $0.hosts = ["127.0.0.1", "::1"]
      $0.connections = 3
      $0.messages = 4
      $0.pipeline = 2
      $0.rounds = 2
      $0.length = length
      $0.kind = kind
      $0.halfCloses = length % 2 == 0
    }
    #expect(summary.isClean, "\(summary.failures)")
    #expect(summary.echoedByRe1 == 24 && summary.echoedByRe0 == 0)
    #expect(summary.connections == 6)
    #expect(!server.output.contains("DAMAGED"))
    try await server.stop()
  }

  @Test(
    "listens at one address if it is told to; at :: one socket takes both families", .timeLimit(.minutes(1)))
  func addresses() async throws {
    for (address, answers) in [("::", [true, true]), ("::1", [false, true]), ("127.0.0.1", [true, false])] {
      let namespace = try TestNamespace()
      var options = EchoServerOptions()
      options.isPlain = true
      options.listenAddress = address
      let server = try await Instance(options, in: namespace, session: nil)
      for (host, isAnswered) in zip(["127.0.0.1", "::1"], answers) {
        let summary = try await traffic(in: namespace) { $0.hosts = [host] }
        #expect(summary.isClean == isAnswered, "at \(address), from \(host): \(summary.failures)")
      }
      try await server.stop()
    }
  }

  @Test(
    "that ends closes its connections, and the peer calls that an end it did not expect",
    .timeLimit(.minutes(1)))
  func ending() async throws {
    let namespace = try TestNamespace()
    var options = EchoServerOptions()
    options.isPlain = true
    let server = try await Instance(options, in: namespace, session: nil)
    async let summary = traffic(in: namespace) {
      $0.connections = 2
      $0.messages = 0
      $0.pauseMilliseconds = 1
    }
    try await Task.sleep(for: .milliseconds(300))
    try await server.stop()
    let found = try await summary
    #expect(!found.isClean)
    #expect(found.unexpectedEnds == 2)
    #expect(found.mismatched == 0 && found.repeated == 0)
  }

  /// Two instances, as on two routing engines; the peer reaches the first one.
  private func withInstances(
    unreplicateAfter: UInt64? = nil,
    _ body: (TestNamespace, EnginePairModel, [Instance]) async throws -> Void
  ) async throws {
    let namespace = try TestNamespace()
    let model = EnginePairModel()
    var instances: [Instance] = []
    for slot in 0..<2 {
      var options = EchoServerOptions()
      options.listenAddress = "127.0.0.\(slot + 1)"
      options.channelListenAddress = "127.0.0.\(slot + 1)"
      options.otherAddress = "127.0.0.\(2 - slot)"
      options.verifiesPayload = true
      options.unreplicateAfter = unreplicateAfter
      instances.append(try await Instance(options, in: namespace, session: model.sessions[slot]))
    }
    try await eventually { instances[0].output.contains("CHANNEL up") }
    try await body(namespace, model, instances)
    for instance in instances {
      let output = instance.output
      #expect(!output.contains("MISMATCH"))
      #expect(!output.contains("DAMAGED"))
      try await instance.stop()
    }
  }

  private func eventually(_ condition: () -> Bool) async throws {
    for _ in 0..<500 {
      if condition() { return }
      try await Task.sleep(for: .milliseconds(10))
    }
    Issue.record("it did not happen within 5 seconds")
  }

  struct Load: Sendable, CustomTestStringConvertible {
    var kind: TrafficPeerOptions.Kind
    var length: UInt32
    var pipeline: Int
    var pause: UInt64
    var testDescription: String { "\(kind.rawValue) \(length) x \(pipeline)" }
  }

  @Test(
    "carries every connection through two switchovers in the middle of traffic", .timeLimit(.minutes(1)),
    arguments: [
      Load(kind: .echo, length: 100, pipeline: 1, pause: 1),
      Load(kind: .echo, length: 0, pipeline: 8, pause: 0),
      Load(kind: .echo, length: 70_000, pipeline: 4, pause: 0),
      Load(kind: .sink, length: 30_000, pipeline: 3, pause: 0),
      Load(kind: .source, length: 200_000, pipeline: 3, pause: 0),
    ])
  func switchover(load: Load) async throws {
    try await withInstances { namespace, model, instances in
      async let summary = traffic(in: namespace) {
        $0.connections = 3
        $0.messages = 0
        $0.kind = load.kind
        $0.length = load.length
        $0.pipeline = load.pipeline
        $0.pauseMilliseconds = load.pause
        $0.duration = 2
      }
      try await eventually { model.replicatedCount == 3 }
      try await Task.sleep(for: .milliseconds(200))
      model.switchOver()
      // The other way round needs the protection back first.
      try await eventually { model.replicatedCount == 6 }
      try await Task.sleep(for: .milliseconds(200))
      model.switchOver()
      let found = try await summary
      #expect(found.isClean, "\(found.failures)")
      #expect(found.echoedByRe0 > 0 && found.echoedByRe1 > 0)
      for instance in instances { #expect(instance.output.contains("MERGED")) }
    }
  }

  @Test("serves connections that cannot be replicated, and replicates them later", .timeLimit(.minutes(1)))
  func refusal() async throws {
    try await withInstances { namespace, model, instances in
      model.refuseAttach(true)
      async let summary = traffic(in: namespace) {
        $0.connections = 2
        $0.messages = 0
        $0.pauseMilliseconds = 1
        $0.duration = 2
      }
      try await eventually { instances[0].output.contains("the other instance could not attach") }
      #expect(model.replicatedCount == 0)
      model.refuseAttach(false)
      try await eventually { model.replicatedCount == 2 }
      let found = try await summary
      #expect(found.isClean, "\(found.failures)")
      #expect(instances[1].output.contains(" MATCH for 100 bytes, verified"))
    }
  }

  @Test(
    "keeps to the end of the stream when the peer half-closes after a switchover", .timeLimit(.minutes(1)))
  func halfClose() async throws {
    try await withInstances { namespace, model, _ in
      async let summary = traffic(in: namespace) {
        $0.connections = 3
        $0.messages = 100
        $0.pauseMilliseconds = 10
        $0.halfCloses = true
      }
      try await eventually { model.replicatedCount == 3 }
      try await Task.sleep(for: .milliseconds(300))
      model.switchOver()
      let found = try await summary
      #expect(found.isClean, "\(found.failures)")
      #expect(found.echoedByRe1 > 0 && found.sent == 300)
    }
  }

  @Test("stops replicating each connection after as many messages as it was told", .timeLimit(.minutes(1)))
  func unreplication() async throws {
    try await withInstances(unreplicateAfter: 6) { namespace, model, instances in
      let summary = try await traffic(in: namespace) {
        $0.connections = 3
        $0.messages = 10
        $0.length = 300
        $0.pauseMilliseconds = 100
      }
      #expect(summary.isClean, "\(summary.failures)")
      #expect(summary.echoedByRe0 == 30)
      #expect(model.replicatedCount == 3)
      try await eventually { instances[1].output.ranges(of: "SNOOP ENDED").count == 3 }
      let ends = instances[1].output.split(separator: "\n").filter { $0.contains("SNOOP ENDED") }
      #expect(ends.allSatisfy { $0.hasSuffix("rcv 1872 bytes snd 1872 bytes: requested") }, "\(ends)")
      #expect(instances[1].output.ranges(of: " MATCH ").count == 18)
    }
  }
}

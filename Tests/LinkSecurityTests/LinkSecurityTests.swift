import EngineConfiguration
import Foundation
import Glibc
import LinkKeys
import NIOCore
import NIOPosix
import NIOSSL
import Replication
import Synchronization
import Testing

@testable import Engine

@Suite("The link with TLS", .timeLimit(.minutes(2)))
struct LinkSecurityTests {
  private static let keys = Result { try KeyFiles() }

  private var keys: KeyFiles { get throws { try Self.keys.get() } }

  /// Both ends, with a wire between them.
  private struct Pair {
    let listening: LinkEnd
    let connecting: LinkEnd
    let wire: Wire
    let port: UInt16

    init(_ first: LinkCredentials, _ second: LinkCredentials, wire spoiled: (Wire) -> Void = { _ in }) throws
    {
      port = try Loopback.freePort()
      wire = try Wire(to: port)
      spoiled(wire)
      listening = try LinkEnd(slot: 0, port: port, credentials: first)
      // The engine speaks as soon as it can; without a first word the other end would wait for it.
      try listening.run { witness in witness.greets = true }
      connecting = try LinkEnd(slot: 1, port: wire.port, credentials: second)
    }

    func waitUntilOpen(times: Int = 1) throws {
      for end in [listening, connecting] {
        try end.wait("opened \(times) times") { $0.notes.events.count { $0 == .opened } >= times }
      }
    }

    func stop() throws {
      try connecting.stop()
      try listening.stop()
      wire.end()
    }
  }

  private func pair(wire spoiled: (Wire) -> Void = { _ in }) throws -> Pair {
    try Pair(try keys.credentials(slot: 0), try keys.credentials(slot: 1), wire: spoiled)
  }

  private static func pattern(_ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0 ^ $0 >> 8) }
  }

  @Test("carries what is written, both ways, and nothing of it can be read on the way")
  func carries() throws {
    let pair = try pair()
    try pair.waitUntilOpen()
    let bytes = Self.pattern(3 << 20)
    pair.wire.hold(.toConnecting)
    try pair.listening.send(Array(bytes.prefix(1000)))
    for _ in 0..<1000 where pair.wire.keptByteCount(.toConnecting) < 1000 { usleep(1000) }
    let seen = pair.wire.kept(.toConnecting)
    #expect(seen.count > 1000 && seen.firstRange(of: bytes.prefix(100)) == nil)
    pair.wire.letGo(.toConnecting)
    try pair.listening.send(Array(bytes.dropFirst(1000)))
    try pair.connecting.send(bytes)
    for end in [pair.listening, pair.connecting] {
      let greeting = end === pair.connecting ? LinkEnd.greeting.count : 0
      try end.wait("all is heard") { $0.notes.heard.count == greeting + bytes.count }
      let notes = try end.notes
      let isRight = Array(notes.heard.dropFirst(greeting)) == bytes
      #expect(isRight, "every byte in its place")
      #expect(notes.events == [.opened] && notes.interruptions == 0)
    }
    try pair.stop()
  }

  // MARK: How it ends

  @Test("is ended in order by either end, at once", arguments: [0, 1])
  func ended(by slot: Int) throws {
    let pair = try pair()
    try pair.waitUntilOpen()
    let (first, second) = slot == 0 ? (pair.listening, pair.connecting) : (pair.connecting, pair.listening)
    let start = ContinuousClock.now
    try first.run { $0.link.drop() }
    try second.wait("the end is told") { $0.notes.events.contains(.ended(.endOfStream)) }
    // TLS alone would wait for an answer; the silence of a dead peer would make that the full time.
    #expect(ContinuousClock.now - start < .seconds(1))
    try pair.waitUntilOpen(times: 2)
    #expect(try first.notes.events == [.opened, .opened])
    try pair.stop()
  }

  @Test("takes a FIN without a word for the end of the other engine, as it comes from a kernel")
  func processGone() throws {
    let pair = try pair()
    try pair.waitUntilOpen()
    pair.wire.inject([], .toConnecting, ends: true)
    try pair.connecting.wait("the end is told") { $0.notes.events.contains(.ended(.endOfStream)) }
    try pair.stop()
  }

  enum Moment: CaseIterable, Sendable {
    /// In the middle of what came before.
    case onReceipt
    /// While nothing is being received.
    case betweenReceipts
    case never
  }

  @Test(
    "tells what came before a reset, to the last byte, one thing at a time, and then the reset; this end writes:",
    arguments: Moment.allCases)
  func reset(_ moment: Moment) throws {
    let pair = try pair()
    try pair.waitUntilOpen()
    let bytes = Self.pattern(90_000)
    let greeting = LinkEnd.greeting.count
    let wire = pair.wire
    try pair.listening.send(Array(bytes.prefix(30_000)))
    try pair.connecting.wait("the first part") { $0.notes.heard.count == greeting + 30_000 }
    // Both parts are on the way when the wire breaks: one is being received then, or none.
    wire.hold(.toConnecting)
    try pair.listening.send(Array(bytes.dropFirst(30_000)))
    for _ in 0..<5000 where wire.keptByteCount(.toConnecting) < 60_000 { usleep(1000) }
    switch moment {
    case .onReceipt:
      let trigger = wire.takeKept(.toConnecting, 20_000)
      try pair.connecting.run { witness in
        witness.onReceipt = { witness in
          witness.onReceipt = nil
          try? wire.handOnAndReset(.toConnecting)
          witness.write([1, 2, 3])
        }
      }
      wire.inject(trigger, .toConnecting, ends: false)
    case .betweenReceipts:
      try pair.connecting.run { witness in
        try wire.handOnAndReset(.toConnecting)
        witness.write([1, 2, 3])
      }
    case .never:
      try wire.handOnAndReset(.toConnecting)
    }
    try pair.connecting.wait("the end is told") { $0.notes.events.contains(.ended(.reset)) }
    let notes = try pair.connecting.notes
    let isRight = Array(notes.heard.dropFirst(greeting).prefix(bytes.count)) == bytes
    #expect(isRight, "\(notes.heard.count) of \(greeting + bytes.count) bytes, \(notes.events)")
    #expect(notes.interruptions == 0)
    #expect(notes.events.prefix(2) == [.opened, .ended(.reset)])
    try pair.stop()
  }

  // MARK: What is not TLS

  enum Rubbish: String, CaseIterable, Sendable {
    case garbage, truncated, oversized, alert

    /// In place of a piece of what was said.
    var mischief: Wire.Mischief {
      let rubbish = self
      return Wire.Mischief(
        replacement: { piece in rubbish == .truncated ? Array(piece.prefix(piece.count / 2)) : rubbish.bytes
        },
        ends: self == .truncated)
    }

    /// Between two pieces.
    var bytes: [UInt8] {
      switch self {
      case .garbage: Array("GET / HTTP/1.1\r\nHost: re0\r\n\r\n".utf8)
      // The beginning of a record of application data of 100 bytes.
      case .truncated: [0x17, 3, 3, 0, 100] + [UInt8](repeating: 7, count: 50)
      case .oversized: [0x17, 3, 3, 0xff, 0xff] + [UInt8](repeating: 0, count: 0xffff)
      // A fatal one in plain text, as anybody can send it: handshake_failure.
      case .alert: [0x15, 3, 3, 0, 2, 2, 40]
      }
    }
  }

  static let hostile = Wire.Direction.allCases.flatMap { direction in
    (0...2).flatMap { stage in Rubbish.allCases.map { (direction, stage, $0) } }
  }

  @Test(
    "7.2 is not opened by, and does not live on with, what is not TLS: to whom, after how many pieces, and what",
    arguments: hostile)
  func notTLS(_ direction: Wire.Direction, _ stage: Int, _ rubbish: Rubbish) throws {
    let isEstablished = stage == 2
    let pair = try pair { wire in
      if !isEstablished { wire.spoil(direction, piece: stage, rubbish.mischief) }
    }
    let (victim, other) =
      direction == .toListening ? (pair.listening, pair.connecting) : (pair.connecting, pair.listening)
    guard isEstablished else {
      try victim.waitForLine(" refused: ")
      // The next connection is as good as any.
      try pair.waitUntilOpen()
      #expect(try victim.notes.events.first == .opened)
      #expect(try victim.run(\.link.refusalCount) >= 1)
      return try pair.stop()
    }
    try pair.waitUntilOpen()
    pair.wire.inject(rubbish.bytes, direction, ends: rubbish == .truncated)
    let ending = rubbish == .truncated ? LinkEnding.endOfStream : .closedHere
    try victim.wait("the end is told") { $0.notes.events.dropFirst().first == .ended(ending) }
    if rubbish != .truncated {
      try victim.waitForLine("KKCM link broken: TLS: ")
      // It is told that this was not the end of an engine.
      try other.wait("the end is told") { $0.notes.events.dropFirst().first == .ended(.closedHere) }
      try other.waitForLine("KKCM link broken: TLS: ")
    }
    try pair.waitUntilOpen(times: 2)
    try pair.stop()
  }

  // MARK: Who is not the other RE

  enum Stranger: String, CaseIterable, Sendable {
    case otherAuthority, otherName, ownName, expired, notYetValid, noCertificate, oldTLS

    /// Makes what the stranger has, who would like to be taken for `name`.
    func configuration(_ keys: KeyFiles, as name: String) throws -> TLSConfiguration {
      var configuration = TLSConfiguration.makeClientConfiguration()
      configuration.certificateVerification = .none
      switch self {
      case .noCertificate: return configuration
      case .otherAuthority: try keys.issue("stranger", to: name, by: KeyFiles.authority())
      case .otherName: try keys.issue("stranger", to: "re2")
      case .ownName: try keys.issue("stranger", to: "re0")
      case .expired: try keys.issue("stranger", to: name, days: -10 ... -1)
      case .notYetValid: try keys.issue("stranger", to: name, days: 1...10)
      case .oldTLS:
        try keys.issue("stranger", to: name)
        configuration.maximumTLSVersion = .tlsv12
      }
      configuration.certificateChain = try NIOSSLCertificate.fromPEMFile(keys.path("stranger.pem")).map {
        .certificate($0)
      }
      configuration.privateKey = .privateKey(
        try KeyFiles.key(keys.path("stranger.key")))
      return configuration
    }

    /// What is logged of it.
    var reason: String {
      switch self {
      case .otherAuthority, .expired, .notYetValid: "CERTIFICATE_VERIFY_FAILED"
      case .otherName: "its certificate is for re2, not for re1"
      case .ownName: "its certificate is for re0, not for re1"
      case .noCertificate: "PEER_DID_NOT_RETURN_A_CERTIFICATE"
      case .oldTLS: "UNSUPPORTED_PROTOCOL"
      }
    }
  }

  @Test("7.2 is not opened to whoever connects with:", arguments: Stranger.allCases)
  func refuses(_ stranger: Stranger) async throws {
    let keys = try KeyFiles()
    let port = try Loopback.freePort()
    let end = try LinkEnd(slot: 0, port: port, credentials: try keys.credentials(slot: 0))
    let context = try NIOSSLContext(configuration: try stranger.configuration(keys, as: "re1"))
    let channel = try await ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup)
      .channelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHandler(
            NIOSSLClientHandler(context: context, serverHostname: nil))
        }
      }
      .connect(host: "127.0.0.1", port: Int(port)).get()
    try await channel.closeFuture.get()
    try end.waitForLine("KKCM connection with 127.0.0.1 refused: ")
    #expect(end.lines.all.contains { $0.contains(stranger.reason) }, "\(end.lines.all)")
    #expect(try end.notes.events.isEmpty)
    #expect(try end.run(\.link.refusalCount) == 1)
    try end.stop()
  }

  @Test(
    "7.2 is not opened to whoever listens with:",
    arguments: [Stranger.otherAuthority, .otherName, .expired])
  func refusesServer(_ stranger: Stranger) throws {
    let keys = try KeyFiles()
    _ = try stranger.configuration(keys, as: "re0")
    let context = try NIOSSLContext(
      configuration: .makeServerConfiguration(
        certificateChain: NIOSSLCertificate.fromPEMFile(keys.path("stranger.pem")).map { .certificate($0) },
        privateKey: .privateKey(KeyFiles.key(keys.path("stranger.key")))))
    let server = try ServerBootstrap(group: .singletonMultiThreadedEventLoopGroup)
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: context))
        }
      }
      .bind(host: "127.0.0.1", port: 0).wait()
    let end = try LinkEnd(
      slot: 1, port: UInt16(server.localAddress!.port!), credentials: try keys.credentials(slot: 1))
    try end.waitForLine(
      stranger == .otherName ? "is for re2, not for re0" : "refused: TLS: CERTIFICATE_VERIFY_FAILED")
    try end.wait("it tries again") { $0.link.refusalCount > 1 }
    #expect(try end.notes.events.isEmpty)
    try end.stop()
    try server.close().wait()
  }

  @Test("is not told open to the one who connects before it is known that its certificate is accepted")
  func refusedClient() throws {
    let keys = try KeyFiles()
    let first = try keys.credentials(slot: 0)
    // re1 trusts the authority of re0, and believes in one of its own as well.
    let other = try KeyFiles.authority()
    try keys.write(keys.authority.certificatePEM + other.certificatePEM, "ca.pem")
    try keys.issue("re1", to: "re1", by: other)
    let pair = try Pair(first, try keys.credentials(slot: 1))
    try pair.connecting.waitForLine("KKCM connection with 127.0.0.1 refused: TLS: TLSV1_ALERT_UNKNOWN_CA")
    try pair.connecting.wait("it tries again") { $0.link.refusalCount > 2 }
    for end in [pair.listening, pair.connecting] { #expect(try end.notes.events.isEmpty) }

    // With what it gets now, the next try is the last.
    try keys.issue("re1", to: "re1")
    let good = try keys.credentials(slot: 1)
    try pair.connecting.run { $0.link.use(good) }
    try pair.waitUntilOpen()
    try pair.stop()
  }

  // MARK: Strangers without keys

  @Test(
    "keeps few connections open that have not shown who they are, and none for long",
    arguments: [false, true])
  func silentStrangers(theySpeak: Bool) throws {
    let keys = try keys
    let port = try Loopback.freePort()
    let end = try LinkEnd(slot: 0, port: port, credentials: try keys.credentials(slot: 0))
    let strangers = try (0..<40).map { _ in try Loopback.connect(to: port) }
    defer { for stranger in strangers { close(stranger) } }
    // The beginning of a handshake, that never goes on.
    if theySpeak {
      for stranger in strangers { Loopback.send([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc], on: stranger) }
    }
    func openCount() -> Int {
      strangers.count { stranger in
        var byte: UInt8 = 0
        let count = recv(stranger, &byte, 1, Int32(MSG_DONTWAIT | MSG_PEEK))
        return count < 0 && errno == EAGAIN
      }
    }
    for _ in 0..<1000 where openCount() > Link.unprovenLimit { usleep(1000) }
    #expect(openCount() == Link.unprovenLimit)
    try end.wait("all are refused", within: 4) { $0.link.refusalCount == 40 }
    #expect(openCount() == 0)
    // Not a line for each.
    let lines = end.lines.all.filter { $0.contains("refused") }
    #expect((1...6).contains(lines.count), "\(lines)")
    try end.stop()
  }

  @Test("does not read without end from whoever has not shown who he is")
  func talkativeStranger() throws {
    let port = try Loopback.freePort()
    let end = try LinkEnd(slot: 0, port: port, credentials: try keys.credentials(slot: 0))
    let stranger = try Loopback.connect(to: port)
    // Handshake records that say that more of the same message is to come.
    let record: [UInt8] =
      [0x16, 3, 1, 0x10, 0, 1, 0xff, 0xff, 0xff] + [UInt8](repeating: 0, count: 0x1000 - 4)
    for _ in 0..<64 { Loopback.send(record, on: stranger) }
    try end.waitForLine(" refused: ")
    try end.wait("it is refused") { $0.link.refusalCount == 1 }
    close(stranger)
    try end.stop()
  }

  @Test("comes up, and lives on, while a stranger connects as fast as it can", arguments: [false, true])
  func flood(theySpeak: Bool) throws {
    let keys = try keys
    let port = try Loopback.freePort()
    let listening = try LinkEnd(slot: 0, port: port, credentials: try keys.credentials(slot: 0))
    try listening.run { $0.greets = true }
    let flood = Flood(of: port, theySpeak: theySpeak)
    defer { flood.end() }
    try listening.wait("the flood is there") { $0.link.refusalCount > 100 }
    let connecting = try LinkEnd(slot: 1, port: port, credentials: try keys.credentials(slot: 1))
    let start = ContinuousClock.now
    for end in [listening, connecting] { try end.wait("opened", within: 20) { $0.notes.events == [.opened] } }
    let time = ContinuousClock.now - start
    let bytes = Self.pattern(1 << 20)
    try connecting.send(bytes)
    try listening.wait("all is heard") { $0.notes.heard.count == bytes.count }
    let before = try listening.run(\.link.refusalCount)
    try listening.wait("the flood goes on") { $0.link.refusalCount > before + 100 }
    for end in [listening, connecting] { #expect(try end.notes.events == [.opened]) }
    #expect(listening.lines.all.count { $0.contains("refused") } < 20)
    print(
      "the link came up \(time) after the start, through \(try listening.run(\.link.refusalCount)) strangers")
    try connecting.stop()
    try listening.stop()
  }
}

/// A stranger at the right address, without a key, on two threads.
private final class Flood: Sendable {
  private let isOver = Over()

  private final class Over: Sendable {
    let value = Atomic(false)
  }

  init(of port: UInt16, theySpeak: Bool) {
    for _ in 0..<2 {
      Thread.detachNewThread { [isOver] in
        var open: [Int32] = []
        while !isOver.value.load(ordering: .relaxed) {
          guard let stranger = try? Loopback.connect(to: port), stranger >= 0 else { continue }
          if theySpeak { Loopback.send(Array("hello\n".utf8), on: stranger) }
          open.append(stranger)
          // He holds what he can get, as long as that is not closed anyway.
          if open.count > 64 { close(open.removeFirst()) }
        }
        for stranger in open { close(stranger) }
      }
    }
  }

  func end() { isOver.value.store(true, ordering: .relaxed) }
}

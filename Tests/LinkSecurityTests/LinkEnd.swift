import EngineConfiguration
import Glibc
import Logging
import NIOCore
import NIOPosix
import Packet
import Replication
import Synchronization
import Testing

@testable import Engine

/// One end of the link, on an event loop of its own.
final class LinkEnd: Sendable {
  enum Event: Equatable, Sendable {
    case opened
    case ended(LinkEnding)
  }

  struct Notes: Sendable {
    var events: [Event] = []
    var heard: [UInt8] = []
    /// What was told before something else was over.
    var interruptions = 0
  }

  /// Notes what the link tells. For the event loop only.
  final class Witness: LinkDelegate {
    var notes = Notes()
    var link: Link!
    /// Called in the middle of each receipt.
    var onReceipt: ((Witness) -> Void)?
    private var isOccupied = false

    private func occupied(_ work: () -> Void) {
      if isOccupied { notes.interruptions += 1 }
      isOccupied = true
      work()
      isOccupied = false
    }

    /// Puts something on the wire, as the engine does in the middle of its work.
    func write(_ bytes: [UInt8]) {
      let wasOccupied = isOccupied
      isOccupied = true
      link.append(bytes)
      link.flush()
      isOccupied = wasOccupied
    }

    /// Says a first word as soon as the link is open, as the engine does.
    var greets = false

    func linkOpened() {
      occupied {
        notes.events.append(.opened)
        if greets { write(LinkEnd.greeting) }
      }
    }

    func linkReceived(_ bytes: UnsafeRawBufferPointer, moreFollows: Bool) -> Int {
      occupied {
        notes.heard.append(contentsOf: bytes)
        onReceipt?(self)
      }
      return bytes.count
    }

    func linkBatchEnded() {}

    func linkEnded(_ ending: LinkEnding) { occupied { notes.events.append(.ended(ending)) } }

    func linkFailed(because reason: String) { Issue.record("\(reason)") }
  }

  /// Keeps the lines.
  final class Lines: Sendable {
    private let lines = Mutex<[String]>([])

    var all: [String] { lines.withLock { $0 } }

    struct Handler: LogHandler {
      let lines: Lines
      var logLevel = Logger.Level.trace
      var metadata: Logger.Metadata = [:]
      subscript(metadataKey _: String) -> Logger.Metadata.Value? {
        get { nil }
        set {}
      }

      func log(event: LogEvent) { lines.lines.withLock { $0.append("\(event.message)") } }
    }
  }

  static let greeting = Array("hello".utf8)

  private let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
  private let witness: NIOLoopBoundBox<Witness?>
  let lines = Lines()

  /// - Parameters:
  ///   - port: where slot 0 listens, and slot 1 connects to.
  ///   - credentials: `nil` for plain text.
  init(slot: UInt8, port: UInt16, credentials: LinkCredentials?) throws {
    let loop = group.next()
    witness = .makeEmptyBox(eventLoop: loop)
    let (witness, lines) = (witness, lines)
    try loop.submit {
      let endpoint = Endpoint(IPAddress("127.0.0.1")!, port)
      let new = Witness()
      new.link = Link(
        delegate: new, eventLoop: loop,
        configuration: Configuration.Link(listen: endpoint, connect: endpoint, security: .insecure),
        credentials: credentials, slot: slot, retryDelay: .milliseconds(50),
        logger: Logger(label: "test") { _ in Lines.Handler(lines: lines) })
      witness.value = new
      try new.link.start()
    }.wait()
    while slot == 0, try !Loopback.isListening(on: port) { usleep(1000) }
  }

  /// Does something on the event loop.
  @discardableResult
  func run<Value: Sendable>(_ body: @escaping @Sendable (Witness) throws -> Value) throws -> Value {
    let witness = witness
    return try group.next().submit { try body(witness.value!) }.wait()
  }

  var notes: Notes { get throws { try run(\.notes) } }

  func send(_ bytes: [UInt8]) throws { try run { $0.write(bytes) } }

  func wait(
    _ what: String, within seconds: Int = 10, _ condition: @escaping @Sendable (Witness) -> Bool
  ) throws {
    for _ in 0..<seconds * 1000 {
      if try run(condition) { return }
      usleep(1000)
    }
    let events = try run { "\($0.notes.heard.count) bytes heard, events \($0.notes.events)" }
    Issue.record("never came true: \(what); \(events); \(lines.all)")
  }

  func waitForLine(_ text: String) throws {
    let lines = lines
    try wait("a line with \(text)") { _ in lines.all.contains { $0.contains(text) } }
  }

  /// Ends the link.
  func stop() throws {
    try run { witness in
      witness.link.stop()
      witness.onReceipt = nil
      witness.link = nil
    }
    try group.syncShutdownGracefully()
  }
}

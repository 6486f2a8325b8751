import CLinux
import Descriptors
import EngineConfiguration
import Foundation
import Glibc
import Logging
import NIOCore
import NIOPosix
import Packet
import Replication
import Synchronization
import Testing

@testable import Engine

@Suite("The link", .timeLimit(.minutes(1)))
struct LinkTests {
  /// When this side writes to a connection that is broken, with unread bytes in it.
  enum Moment: CaseIterable, Sendable {
    /// In the middle of what came before those bytes.
    case onReceipt
    /// While nothing is being received, as a timer or a packet would make it.
    case betweenReceipts
    case never
  }

  @Test(
    "tells what came over a broken connection once, in order, one thing at a time, and the end last",
    arguments: Moment.allCases)
  func brokenConnection(_ moment: Moment) throws {
    let bytes = Bytes.pattern
    // Both parts end inside a record: its beginning must be kept and completed.
    let (first, second) = (bytes[..<2500], bytes[2500..<6200])
    let other = try OtherEngine()
    let bench = try Bench(other)
    try other.accept()
    if moment == .onReceipt {
      try bench.run { witness in
        witness.onReceipt = { witness in
          guard witness.notes.heard.count >= 4000 else { return }
          witness.onReceipt = nil
          try? other.sendAndReset(bytes[6200...])
          witness.write()
        }
      }
    }
    try other.send(first)
    try bench.wait("the first records are there") { $0.notes.heard.count == 2000 }
    switch moment {
    case .onReceipt:
      try other.send(second)
    case .betweenReceipts:
      try bench.run { witness in
        try other.sendAndReset(bytes[2500...])
        witness.write()
      }
    case .never:
      try other.send(second)
      try other.sendAndReset(bytes[6200...])
    }
    try bench.wait("the end is told") { $0.notes.events.last == .ended(.reset) }
    let told = try bench.stop()
    #expect(told.heard.count == bytes.count)
    let isRight = told.heard == bytes
    #expect(isRight, "every byte in its place")
    #expect(told.interruptions.isEmpty)
    #expect(told.events.first == .opened)
    #expect(told.events.last == .ended(.reset))
    #expect(told.events.count { $0 != .received && $0 != .batchEnded } == 2, "\(told.events)")
  }

  @Test(
    "tells whole records, however they are cut on their way", arguments: [1, 7, 15, 16, 17, 999, 1001, 2500])
  func pieces(of size: Int) throws {
    let bytes = Bytes.pattern
    let other = try OtherEngine()
    let bench = try Bench(other)
    try other.accept()
    for start in stride(from: 0, to: bytes.count, by: size) {
      let end = min(start + size, bytes.count)
      try other.send(bytes[start..<end])
      // Often alone, and sometimes together with the next.
      if start % 3 == 0 {
        try bench.wait("what is whole is told") { $0.notes.heard.count == end / 1000 * 1000 }
      }
    }
    try bench.wait("all is told") { $0.notes.heard.count == bytes.count }
    let isRight = try bench.stop().heard == bytes
    #expect(isRight, "every byte in its place")
  }

  @Test("says nothing more of a connection that this side has dropped, and makes another")
  func droppedConnection() throws {
    let bytes = Bytes.pattern
    let other = try OtherEngine()
    let bench = try Bench(other)
    try other.accept()
    try bench.run { witness in
      witness.onReceipt = { witness in
        witness.onReceipt = nil
        try? other.sendAndReset(bytes[2500...])
        // What the broken connection still holds is read by the write, and waits to be told.
        witness.write()
        witness.link?.drop()
      }
    }
    try other.send(bytes[..<2500])
    try bench.wait("there is another connection") { $0.notes.events.count { $0 == .opened } == 2 }
    let told = try bench.stop()
    #expect(told.heard.count == 2000)
    #expect(told.interruptions.isEmpty)
    #expect(!told.events.contains { if case .ended = $0 { true } else { false } }, "\(told.events)")
  }
}

/// What the other side sends in these tests: whole records of one size, in whose bodies no byte can be taken for
/// another one nearby.
private enum Bytes {
  static let recordByteCount = 1000
  static let pattern = {
    var bytes = (0..<9000).map { UInt8(truncatingIfNeeded: $0 ^ $0 >> 8) }
    for start in stride(from: 0, to: bytes.count, by: recordByteCount) {
      bytes.withUnsafeMutableBytes {
        RecordHeader(kind: .kkcmKeepalive, byteCount: recordByteCount, handle: Handle(rawValue: 0))
          .store(in: UnsafeMutableRawBufferPointer(rebasing: $0[start...]))
      }
    }
    return bytes
  }()
}

/// Notes what the link tells, and writes to it when it is told to. For the event loop only.
private final class Witness: LinkDelegate {
  enum Event: Equatable, Sendable {
    case opened, received, batchEnded
    case ended(LinkEnding)
    case failed(String)
  }

  struct Notes: Sendable {
    var heard: [UInt8] = []
    var events: [Event] = []
    /// What was told before something else was over.
    var interruptions: [Event] = []
  }

  var link: Link?
  /// Called in the middle of each receipt.
  var onReceipt: ((Witness) -> Void)?
  private(set) var notes = Notes()
  private var isOccupied = false

  private func note(_ event: Event, _ work: () -> Void = {}) {
    notes.events.append(event)
    if isOccupied { notes.interruptions.append(event) }
    occupied(work)
  }

  private func occupied(_ work: () -> Void) {
    let wasOccupied = isOccupied
    isOccupied = true
    work()
    isOccupied = wasOccupied
  }

  /// Puts something on the wire.
  func write() {
    occupied {
      link?.append([UInt8](repeating: 0, count: 100))
      link?.flush()
    }
  }

  func linkOpened() { note(.opened) }

  func linkReceived(_ bytes: UnsafeRawBufferPointer, moreFollows: Bool) -> Int {
    let used = bytes.count / Bytes.recordByteCount * Bytes.recordByteCount
    note(.received) {
      notes.heard.append(contentsOf: bytes[..<used])
      onReceipt?(self)
    }
    return used
  }

  func linkBatchEnded() { note(.batchEnded) }

  func linkEnded(_ ending: LinkEnding) {
    note(.ended(ending))
    // Otherwise it connects again.
    link?.stop()
  }

  func linkFailed(because reason: String) { note(.failed(reason)) }
}

/// A link on an event loop of its own, which may be made to wait.
private final class Bench: Sendable {
  private let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
  private let witness: NIOLoopBoundBox<Witness?>

  /// Connects to `other`.
  init(_ other: OtherEngine) throws {
    let loop = group.next()
    witness = .makeEmptyBox(eventLoop: loop)
    let port = other.port
    let witness = witness
    try loop.submit {
      var logger = Logger(label: "test")
      logger.logLevel = .critical
      let endpoint = Endpoint(IPAddress("127.0.0.1")!, port)
      let new = Witness()
      let link = Link(
        delegate: new, eventLoop: loop,
        configuration: Configuration.Link(listen: endpoint, connect: endpoint, security: .insecure),
        credentials: nil, slot: 1, retryDelay: .milliseconds(100), logger: logger)
      new.link = link
      witness.value = new
      try link.start()
    }.wait()
  }

  /// Does something on the event loop.
  @discardableResult
  func run<Value: Sendable>(_ body: @escaping @Sendable (Witness) throws -> Value) throws -> Value {
    let witness = witness
    return try group.next().submit { try body(witness.value!) }.wait()
  }

  func wait(_ what: String, _ condition: @escaping @Sendable (Witness) -> Bool) throws {
    for _ in 0..<10_000 {
      if try run(condition) { return }
      usleep(1000)
    }
    let events = try run { "\($0.notes.heard.count) bytes heard, events \($0.notes.events)" }
    Issue.record("never came true: \(what); \(events)")
  }

  /// Ends the link.
  ///
  /// - Returns: what it had told until then.
  func stop() throws -> Witness.Notes {
    let notes = try run { witness in
      let notes = witness.notes
      witness.link?.stop()
      witness.link = nil
      return notes
    }
    try group.syncShutdownGracefully()
    return notes
  }
}

/// The engine at the other end: a plain socket that listens on the loopback interface.
private final class OtherEngine: Sendable {
  let port: UInt16
  private let listener: OwnedDescriptor
  private let connection = Mutex<Connection?>(nil)

  private final class Connection: Sendable {
    let socket: OwnedDescriptor
    /// The port of the link's end.
    let remotePort: UInt16

    init(_ socket: consuming OwnedDescriptor, remotePort: UInt16) {
      self.socket = socket
      self.remotePort = remotePort
    }
  }

  init() throws {
    listener = try OwnedDescriptor(
      returnedBy: "socket",
      socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0))
    var address = Self.loopback
    let descriptor = listener.rawValue
    let bound = Self.with(&address) { bind(descriptor, $0, $1) }
    guard bound == 0 else { throw SystemError("bind") }
    guard listen(descriptor, 4) == 0 else { throw SystemError("listen") }
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let named = Self.with(&address) { pointer, _ in getsockname(descriptor, pointer, &size) }
    guard named == 0 else { throw SystemError("getsockname") }
    port = UInt16(bigEndian: address.sin_port)
    // accept(2) waits no longer than that either.
    var timeout = timeval(tv_sec: 10, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
  }

  private static var loopback: sockaddr_in {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    return address
  }

  private static func with(
    _ address: inout sockaddr_in, _ body: (UnsafeMutablePointer<sockaddr>, socklen_t) -> Int32
  ) -> Int32 {
    withUnsafeMutableBytes(of: &address) {
      body($0.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t($0.count))
    }
  }

  /// Waits for the link to connect.
  func accept() throws {
    var address = sockaddr_in()
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let number = Self.with(&address) { pointer, _ in Glibc.accept(listener.rawValue, pointer, &size)
    }
    let new = Connection(
      try OwnedDescriptor(returnedBy: "accept", number),
      remotePort: UInt16(bigEndian: address.sin_port))
    connection.withLock { $0 = new }
  }

  func send(_ bytes: ArraySlice<UInt8>) throws {
    try connection.withLock { connection in
      let sent = bytes.withUnsafeBytes {
        Glibc.send(connection!.socket.rawValue, $0.baseAddress!, $0.count, Int32(MSG_NOSIGNAL))
      }
      guard sent == bytes.count else { throw SystemError("send") }
    }
  }

  /// Sends the last bytes and resets the connection, and returns when the link's kernel knows.
  func sendAndReset(_ bytes: ArraySlice<UInt8>) throws {
    try send(bytes)
    let remotePort = try connection.withLock { connection in
      var option = linger(l_onoff: 1, l_linger: 0)
      let result = setsockopt(
        connection!.socket.rawValue, SOL_SOCKET, SO_LINGER, &option,
        socklen_t(MemoryLayout<linger>.size))
      guard result == 0 else { throw SystemError("setsockopt(SO_LINGER)") }
      let port = connection!.remotePort
      connection = nil
      return port
    }
    // A socket that was reset is in no table any more, even as long as it is open.
    let entry = String(format: ": 0100007F:%04X ", Int(remotePort))
    for _ in 0..<5000 {
      let table = try String(contentsOfFile: "/proc/self/net/tcp", encoding: .utf8)
      guard table.contains(entry) else { return }
      usleep(1000)
    }
    throw SystemError("close", code: ETIMEDOUT)
  }
}

import CLinux
import Control
import Descriptors
import Glibc
import NIOCore
import Packet
import Replication

/// The engine's end of the channel over which an application gives records of one socket.
///
/// A Unix stream socket: its buffer in the kernel is what makes the application wait, since the engine reads only as long
/// as records are taken. What is read and not taken yet is at most one record and one buffer.
final class RecordChannel {
  /// What came of an attempt to read.
  enum Reading {
    case bytes
    case notNow
    /// The application has ended the channel, or itself.
    case ended
  }

  let handle: Handle
  let flow: Flow?
  /// Kept open, whatever becomes of replication, until all is written.
  let socket: ReplicatedSocket
  /// Open until `finish`.
  private(set) var descriptor: OwnedDescriptor?
  let number: Int32
  private var framing: RecordFraming
  private var input = ByteBuffer()
  /// A record that has to wait.
  private var waiting: [UInt8]?
  /// Nothing more comes.
  private(set) var hasEnded = false
  /// Without replication: what is left to be written.
  var left: RecordQueue?
  private(set) var takenCount: UInt64 = 0
  private(set) var safeCount: UInt64 = 0
  /// What the application has not been told, for want of room in its buffer.
  private var report: RecordReport?
  /// The application has closed its socket, or is gone: why the duplicate is closed when all is written.
  var closing: Engine.Closing?

  var token: ReadinessMonitor.Token?
  /// The kernel's send buffer is full.
  var kernelToken: ReadinessMonitor.Token?

  private static let inputCapacity = 256 << 10

  /// - Parameter application: receives the open descriptor that the application is to own.
  init(
    _ handle: Handle, _ flow: Flow?, _ socket: ReplicatedSocket, recordLimit: Int, application: inout Int32
  ) throws(SystemError) {
    var ends: (Int32, Int32) = (-1, -1)
    let result = withUnsafeMutableBytes(of: &ends) {
      socketpair(
        AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue),
        0,
        $0.baseAddress!.assumingMemoryBound(to: Int32.self))
    }
    guard result == 0 else { throw SystemError("socketpair") }
    self.handle = handle
    self.flow = flow
    self.socket = socket
    number = ends.0
    descriptor = OwnedDescriptor(owning: ends.0)
    application = ends.1
    framing = RecordFraming(limit: recordLimit)
  }

  // MARK: Records

  /// Everything that was given is taken, or was never whole.
  var isDry: Bool { waiting == nil && input.readableBytes == 0 }

  /// The next whole record of what has been read, behind its headroom; `nil` if more must be read.
  func next() throws(RecordFraming.Failure) -> [UInt8]? {
    if let record = waiting {
      waiting = nil
      return record
    }
    while input.readableBytes > 0 {
      let result = input.withUnsafeReadableBytes { bytes in
        Result { () throws(RecordFraming.Failure) in try framing.take(bytes) }
      }
      let (used, record) = try result.get()
      input.moveReaderIndex(forwardBy: used)
      if let record { return record }
    }
    return nil
  }

  func putBack(_ record: [UInt8]) { waiting = record }

  func noteTaken() { takenCount += 1 }

  /// Reads what the application has given, as far as a buffer holds it.
  func read() -> Reading {
    guard !hasEnded else { return .ended }
    input.discardReadBytes()
    input.reserveCapacity(Self.inputCapacity)
    while true {
      let count = input.withUnsafeMutableWritableBytes {
        recv(number, $0.baseAddress, min($0.count, Self.inputCapacity), Int32(MSG_DONTWAIT))
      }
      if count > 0 {
        input.moveWriterIndex(forwardBy: count)
        return .bytes
      }
      if count < 0, errno == EINTR { continue }
      if count < 0, errno == EAGAIN { return .notNow }
      hasEnded = true
      return .ended
    }
  }

  /// The application can give nothing more; what it has given stays to be read.
  func shut() { if descriptor != nil { _ = shutdown(number, Int32(SHUT_RD)) } }

  /// Nothing more is taken, not even what has come.
  func drop() {
    shut()
    hasEnded = true
    waiting = nil
    input.clear()
  }

  // MARK: Reports

  func noteSafe(_ count: UInt64) {
    safeCount = count
    say(RecordReport(.safe, count: count))
  }

  /// - Returns: whether the report has to wait for room, or for a later one that says more.
  @discardableResult
  func say(_ report: RecordReport) -> Bool {
    guard descriptor != nil else { return false }
    let sent = report.bytes.withUnsafeBytes {
      Glibc.send(number, $0.baseAddress, $0.count, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
    }
    // To one that is gone nothing need be said.
    self.report = sent < 0 && errno == EAGAIN ? report : nil
    return self.report != nil
  }

  var hasReport: Bool { report != nil }

  func sayAgain() { if let report { say(report) } }

  /// Says the last word, and closes the channel.
  func finish(_ kind: RecordReport.Kind) {
    // Should it not fit, the application learns from the end of the stream that there was more to be said.
    say(RecordReport(kind, count: kind == .ended ? takenCount : safeCount))
    descriptor = nil
  }
}

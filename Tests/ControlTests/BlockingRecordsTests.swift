import Control
import Foundation
import Glibc
import JSR
import Testing

@Suite("Records for threads that wait", .timeLimit(.minutes(1)))
struct BlockingRecordsTests {
  static let handle = SessionTests.primary

  /// The engine's end of a record channel, and the application's records.
  final class Channel: Sendable {
    let session: BlockingSession
    let records: BlockingRecords
    let number: Int32
    private let engine: FakeEngine

    init(limit: Int = 1 << 20) throws {
      var ends: [Int32] = [-1, -1]
      try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
      var size: Int32 = 4096
      for end in ends {
        setsockopt(end, SOL_SOCKET, SO_SNDBUF, &size, socklen_t(MemoryLayout<Int32>.size))
      }
      let (given, kept) = (ends[0], ends[1])
      engine = try FakeEngine { _, _ in .reply(.recordChannel(limit: limit), descriptors: [given]) }
      session = try BlockingSession(path: engine.path, application: "test")
      records = try session.beginRecords(BlockingRecordsTests.handle, within: .seconds(10))
      number = kept
    }

    deinit {
      records.letGo()
      session.close()
      close(number)
    }

    func send(_ size: Int, within time: Duration?) throws(JSRError) -> UInt64? {
      let bytes = [UInt8](repeating: 7, count: size)
      return try bytes.withUnsafeBufferPointer { bytes throws(JSRError) in
        try records.send(UnsafeRawBufferPointer(bytes), within: time)
      }
    }

    func report(_ kind: RecordReport.Kind, _ count: UInt64) {
      let bytes = RecordReport(kind, count: count).bytes
      #expect(Glibc.write(number, bytes, bytes.count) == bytes.count)
    }

    /// Reads so many bytes of what was given, waiting for them.
    func take(_ count: Int) -> [UInt8] {
      var bytes: [UInt8] = []
      var chunk = [UInt8](repeating: 0, count: 65_536)
      while bytes.count < count {
        let read = Glibc.read(number, &chunk, min(chunk.count, count - bytes.count))
        guard read > 0 else { break }
        bytes += chunk[..<read]
      }
      return bytes
    }

    /// Waits until there is news.
    func waitForNews() throws {
      var entry = pollfd(fd: try records.newsDescriptor(), events: Int16(POLLIN), revents: 0)
      try #require(poll(&entry, 1, 10_000) == 1, "no news came")
    }
  }

  /// What waits must not do so on a thread of Swift's pool, which has few.
  static func onThread<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value
  {
    try await withCheckedThrowingContinuation { continuation in
      Thread.detachNewThread { continuation.resume(with: Result { try body() }) }
    }
  }

  @Test("are given whole behind their length, and what does not fit is refused")
  func framing() throws {
    let channel = try Channel(limit: 1000)
    #expect(try channel.send(3, within: nil) == 1)
    #expect(try channel.send(2, within: .zero) == 2)
    #expect(channel.take(13) == [0, 0, 0, 3, 7, 7, 7, 0, 0, 0, 2, 7, 7])
    for size in [0, 1001] {
      #expect(throws: JSRError.recordSize(size, limit: 1000)) { _ = try channel.send(size, within: nil) }
    }
    #expect(channel.records.takeNews().givenCount == 2)
  }

  @Test("find no room behind one that is still on its way, and hear of room again")
  func room() throws {
    let channel = try Channel()
    let news = try channel.records.newsDescriptor()
    #expect(try channel.records.newsDescriptor() == news)
    #expect(try channel.send(100_000, within: .zero) == 1)
    #expect(!BlockingSessionTests.isReadable(news), "nobody has asked for room")
    let start = ContinuousClock().now
    #expect(try channel.send(5, within: .zero) == nil)
    #expect(try channel.send(5, within: .milliseconds(50)) == nil)
    #expect(ContinuousClock().now - start >= .milliseconds(50))
    #expect(!BlockingSessionTests.isReadable(news))

    #expect(channel.take(100_004).count == 100_004)
    try channel.waitForNews()
    _ = channel.records.takeNews()
    #expect(BlockingSessionTests.isReadable(news), "the room is there until it is tried")
    #expect(try channel.send(5, within: .zero) == 2)
    #expect(!BlockingSessionTests.isReadable(news))
  }

  @Test("wait for room as long as it takes, and come from several threads one after the other")
  func threads() async throws {
    let channel = try Channel()
    let size = 20_000
    let numbers = try await withThrowingTaskGroup(of: [UInt64].self) { group in
      for _ in 0..<3 {
        group.addTask {
          try await Self.onThread {
            try (0..<20).map { _ in try #require(try channel.send(size, within: nil)) }
          }
        }
      }
      group.addTask {
        try await Self.onThread {
          for number in 1...60 {
            let record = channel.take(size + 4)
            #expect(record.prefix(4) == [0, 0, 0x4e, 0x20])
            channel.report(.safe, UInt64(number))
          }
          return []
        }
      }
      return try await group.reduce(into: []) { $0 += $1 }
    }
    #expect(numbers.sorted() == Array(1...60))
    #expect(try channel.records.waitUntilSafe(60, within: .seconds(10)))
  }

  @Test("are waited for until they are safe, and news of that is told once")
  func safe() throws {
    let channel = try Channel()
    let news = try channel.records.newsDescriptor()
    for _ in 1...3 { _ = try channel.send(5, within: nil) }
    #expect(try !channel.records.waitUntilSafe(1, within: .zero))
    channel.report(.safe, 2)
    #expect(try channel.records.waitUntilSafe(2, within: .seconds(10)))
    try channel.waitForNews()
    #expect(channel.records.takeNews() == (.open, 3, 2))
    #expect(!BlockingSessionTests.isReadable(news))
    #expect(try !channel.records.waitUntilSafe(3, within: .milliseconds(20)))
  }

  @Test("end when that is asked for, behind what was given")
  func end() throws {
    let channel = try Channel()
    #expect(try channel.send(5, within: nil) == 1)
    #expect(try channel.records.end(within: .milliseconds(20)) == nil)
    #expect(channel.take(9).count == 9)
    #expect(channel.take(1) == [], "the application has ended the channel")
    channel.report(.ended, 1)
    #expect(try channel.records.end(within: nil) == 1)
    #expect(BlockingSessionTests.isReadable(try channel.records.newsDescriptor()))
    #expect(channel.records.takeNews() == (.ended(accepted: 1), 1, 0))
    #expect(BlockingSessionTests.isReadable(try channel.records.newsDescriptor()), "for ever")
    #expect(try channel.records.waitUntilSafe(1, within: nil), "it is written")
    #expect(throws: JSRError.recordsEnded(accepted: 1)) { _ = try channel.send(5, within: nil) }
  }

  @Test(
    "fail, also for those who wait, when the connection moves or the engine ends", arguments: [true, false])
  func lost(moves: Bool) async throws {
    let channel = try Channel()
    #expect(try channel.send(100_000, within: nil) == 1)
    let waiting = Task { try await Self.onThread { try channel.send(5, within: nil) } }
    let unsafe = Task { try await Self.onThread { try channel.records.waitUntilSafe(1, within: nil) } }
    try await Task.sleep(for: .milliseconds(20))
    if moves { channel.report(.moved, 0) } else { shutdown(channel.number, Int32(SHUT_RDWR)) }
    let wanted: JSRError = moves ? .connectionMoved(safe: 0) : .engineGone
    await #expect(throws: wanted) { _ = try await waiting.value }
    await #expect(throws: wanted) { _ = try await unsafe.value }
    #expect(throws: wanted) { _ = try channel.records.end(within: nil) }
  }
}

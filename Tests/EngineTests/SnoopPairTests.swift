import Descriptors
import Glibc
import Packet
import Replication
import Testing

@testable import Engine

@Suite("A stream of a snoop pair")
struct SnoopPairTests {
  /// 4 MiB, more than the socket holds.
  private static let bytes = Array(0..<UInt64(512 << 10)).withUnsafeBytes { Array($0) }

  /// A pair of which one stream waits for its application to read.
  private final class FullPair {
    let pair: SnoopPair
    /// The application's end of the stream, until it is closed.
    private let application: Int32
    private var isClosed = false
    private let other: OwnedDescriptor

    init() throws {
      let (pair, rcv, snd) = try SnoopPair.open(for: .tcp)
      self.pair = pair
      application = rcv
      other = OwnedDescriptor(owning: snd)
      let progress = SnoopPairTests.bytes.withUnsafeBytes { pair.write($0, to: .rcv) }
      #expect(progress == .blocked)
    }

    func close() {
      guard !isClosed else { return }
      isClosed = true
      _ = Glibc.close(application)
    }

    deinit { close() }

    /// What epoll would say of the engine's end.
    func readiness() -> Int32 {
      guard let number = pair.descriptor(of: .rcv) else { return 0 }
      var entry = pollfd(fd: number, events: Int16(POLLOUT), revents: 0)
      return poll(&entry, 1, 0) > 0 ? Int32(entry.revents) : 0
    }

    /// What the application reads without waiting; `nil` at the end.
    func read() -> [UInt8]? {
      var chunk = [UInt8](repeating: 0, count: 1 << 20)
      let count = recv(application, &chunk, chunk.count, Int32(MSG_DONTWAIT))
      return count == 0 ? nil : Array(chunk.prefix(max(0, count)))
    }
  }

  @Test(
    "is given to the application in blocking mode, and never blocks the engine",
    arguments: [TransportProtocol.tcp, .udp])
  func blockingMode(_ transport: TransportProtocol) throws {
    let (pair, rcv, snd) = try SnoopPair.open(for: transport)
    let first = OwnedDescriptor(owning: rcv)
    let second = OwnedDescriptor(owning: snd)
    #expect(fcntl(first.rawValue, F_GETFL) & O_NONBLOCK == 0)
    #expect(fcntl(second.rawValue, F_GETFL) & O_NONBLOCK == 0)
    // Either way of writing finds the socket full, and returns.
    let bytes = [UInt8](repeating: 1, count: 60_000)
    var progress = SnoopOutput.Progress.done
    for _ in 0..<100 { progress = bytes.withUnsafeBytes { pair.write($0, to: .snd) } }
    #expect(progress == .blocked)
    #expect(pair.resume(.snd) == .blocked)
  }

  @Test("takes nothing behind what found no room: nothing may be missing in what it shows")
  func overflow() throws {
    let full = try FullPair()
    #expect(full.pair.reserve(1, on: .rcv, limit: 8 << 20))
    #expect(!full.pair.reserve(8 << 20, on: .rcv, limit: 8 << 20))
    #expect(!full.pair.reserve(1, on: .rcv, limit: 8 << 20))
    #expect(full.pair.reserve(1, on: .snd, limit: 8 << 20))
  }

  @Test("is read to its end by its application when the protocol is done with it")
  func read() throws {
    let full = try FullPair()
    full.pair.retire()
    var read: [UInt8] = []
    while let more = full.read() {
      read += more
      _ = full.pair.resume(.rcv)
    }
    let isRight = read == Self.bytes
    #expect(isRight)
    #expect(full.pair.isFinished)
  }

  @Test(
    "is given up when its application has closed it and nothing will be taken back", arguments: [true, false])
  func closed(_ closedFirst: Bool) throws {
    let full = try FullPair()
    if closedFirst { full.close() }
    #expect(full.readiness() == 0, "as long as there may be a merge, nothing is lost")
    full.pair.retire()
    if !closedFirst {
      #expect(full.readiness() == 0)
      full.close()
    }
    #expect(full.readiness() & POLLHUP != 0)
    #expect(full.pair.resume(.rcv) == .broken)
  }

  @Test("can be taken back as far as it was not read, also from an application that is gone")
  func takenBack() throws {
    let full = try FullPair()
    let read = try #require(full.read())
    full.close()
    let isRight = read + full.pair.rcv.takeBack().joined() == Self.bytes
    #expect(isRight)
  }

  // MARK: Datagrams

  /// Messages of all lengths, more of them than the socket holds.
  private static let messages: [[UInt8]] = (0..<200).map { number in
    [UInt8](repeating: UInt8(number), count: 1 + number * 317)
  }

  @Test(
    "of datagrams keeps their boundaries, also of those that waited, and can be taken back",
    arguments: [0, 1, 150])
  func boundaries(readFirst: Int) throws {
    let (pair, rcv, snd) = try SnoopPair.open(for: .udp)
    let application = OwnedDescriptor(owning: rcv)
    let other = OwnedDescriptor(owning: snd)
    defer { _ = other.rawValue }
    var blocked = false
    for message in Self.messages {
      if message.withUnsafeBytes({ pair.write($0, to: .rcv) }) == .blocked { blocked = true }
    }
    #expect(blocked, "the test must fill the socket")
    var buffer = [UInt8](repeating: 0, count: 1 << 17)
    func read() -> [UInt8]? {
      let count = recv(application.rawValue, &buffer, buffer.count, Int32(MSG_DONTWAIT))
      return count > 0 ? Array(buffer[..<count]) : nil
    }
    var messages: [[UInt8]] = []
    for _ in 0..<readFirst {
      messages.append(try #require(read()))
      _ = pair.resume(.rcv)
    }
    messages += pair.rcv.takeBack()
    let isRight = messages == Self.messages
    #expect(isRight)
    #expect(read() == nil)
  }
}

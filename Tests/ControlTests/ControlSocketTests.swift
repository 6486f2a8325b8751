import Control
import Descriptors
import Glibc
import Testing

@Suite("A control socket", .timeLimit(.minutes(1)))
struct ControlSocketTests {
  /// Two ends of one connection.
  static func pair() throws -> (Int32, Int32) {
    var ends: [Int32] = [-1, -1]
    try #require(
      socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0)
    return (ends[0], ends[1])
  }

  static func pipe() throws -> (read: Int32, write: Int32) {
    var ends: [Int32] = [-1, -1]
    try #require(Glibc.pipe(&ends) == 0)
    return (ends[0], ends[1])
  }

  @Test("keeps messages whole and in order")
  func whole() throws {
    let (a, b) = try Self.pair()
    let sender = ControlSocket(owning: OwnedDescriptor(owning: a))
    let receiver = ControlSocket(owning: OwnedDescriptor(owning: b))
    let messages = [[UInt8](repeating: 1, count: ControlProtocol.messageLimit), [2], [3, 3]]
    for message in messages { try sender.send(message, waiting: false) }
    for message in messages {
      let received = try receiver.receive(waiting: false)
      #expect(received.bytes == message)
      #expect(received.descriptors.count == 0)
    }
    #expect(throws: ControlSocketError.wouldBlock) { _ = try receiver.receive(waiting: false) }
  }

  @Test("passes descriptors, as open files of the receiver's own, close-on-exec")
  func descriptors() throws {
    let (a, b) = try Self.pair()
    let sender = ControlSocket(owning: OwnedDescriptor(owning: a))
    let receiver = ControlSocket(owning: OwnedDescriptor(owning: b))
    let (read, write) = try Self.pipe()
    try sender.send([1], descriptors: [read, write], waiting: false)
    close(read)
    close(write)
    var message = try receiver.receive(waiting: false)
    var parcel = message.takeDescriptors()
    try #require(parcel.count == 2)
    guard let first = parcel.takeFirst(), let second = parcel.takeFirst() else { return }
    #expect(parcel.count == 0)
    #expect(Glibc.write(second.rawValue, [7 as UInt8], 1) == 1)
    var byte: UInt8 = 0
    #expect(Glibc.read(first.rawValue, &byte, 1) == 1)
    #expect(byte == 7)
    #expect(fcntl(first.rawValue, F_GETFD) == FD_CLOEXEC)
  }

  @Test("closes descriptors that nobody takes")
  func untaken() throws {
    let (a, b) = try Self.pair()
    let sender = ControlSocket(owning: OwnedDescriptor(owning: a))
    let receiver = ControlSocket(owning: OwnedDescriptor(owning: b))
    let (read, write) = try Self.pipe()
    defer { close(read) }
    try sender.send([1], descriptors: [write], waiting: false)
    close(write)
    _ = try receiver.receive(waiting: false).bytes
    var byte: UInt8 = 0
    #expect(Glibc.read(read, &byte, 1) == 0, "the write end of the pipe is still open")
  }

  @Test("closes all descriptors of a message that has too many, says what came with it, and goes on")
  func surplus() throws {
    let (a, b) = try Self.pair()
    let sender = OwnedDescriptor(owning: a)
    let receiver = ControlSocket(owning: OwnedDescriptor(owning: b))
    let (read, write) = try Self.pipe()
    defer { close(read) }
    let writes = [write, dup(write), dup(write)]
    try RawMessage.send([9, 9], descriptors: writes, on: sender.rawValue)
    try RawMessage.send([8], descriptors: [], on: sender.rawValue)
    for number in writes { close(number) }
    #expect(throws: ControlSocketError.tooManyDescriptors(message: [9, 9])) {
      _ = try receiver.receive(waiting: false)
    }
    var byte: UInt8 = 0
    #expect(Glibc.read(read, &byte, 1) == 0, "the write end of the pipe is still open")
    #expect(try receiver.receive(waiting: false).bytes == [8])
  }

  @Test("throws away a message that is too long, and goes on")
  func oversized() throws {
    let (a, b) = try Self.pair()
    let sender = ControlSocket(owning: OwnedDescriptor(owning: a))
    let receiver = ControlSocket(owning: OwnedDescriptor(owning: b))
    let long = [UInt8](repeating: 1, count: ControlProtocol.messageLimit + 1)
    #expect(throws: ControlSocketError.oversized) { try sender.send(long, waiting: false) }
    try RawMessage.send(long, descriptors: [], on: sender.descriptor)
    try sender.send([5], waiting: false)
    #expect(throws: ControlSocketError.oversized) { _ = try receiver.receive(waiting: false) }
    #expect(try receiver.receive(waiting: false).bytes == [5])
  }

  @Test("that is full says so instead of waiting")
  func full() throws {
    let (a, b) = try Self.pair()
    let sender = ControlSocket(owning: OwnedDescriptor(owning: a))
    let receiver = OwnedDescriptor(owning: b)
    let message = [UInt8](repeating: 1, count: 1000)
    #expect(throws: ControlSocketError.wouldBlock) {
      for _ in 0..<100_000 { try sender.send(message, waiting: false) }
    }
    _ = receiver.rawValue
  }

  @Test("that the other end has closed ends, after what that end still said")
  func ended() throws {
    let (a, b) = try Self.pair()
    let here = ControlSocket(owning: OwnedDescriptor(owning: a))
    try here.send([1], waiting: false)
    do {
      let there = ControlSocket(owning: OwnedDescriptor(owning: b))
      try there.send([2], waiting: false)
      // Closed with a message unread: the kernel reports a reset before it hands out what is queued.
    }
    #expect(try here.receive(waiting: false).bytes == [2])
    #expect(throws: ControlSocketError.ended) { _ = try here.receive(waiting: false) }
    #expect(throws: ControlSocketError.ended) { try here.send([3], waiting: false) }
  }

  @Test("cannot be reached where nobody listens")
  func nobody() throws {
    let absent = try #require(throws: SystemError.self) {
      _ = try ControlSocket(connectingTo: "/nonexistent/jsrd.sock")
    }
    #expect(absent.code == ENOENT)
    let long = try #require(throws: SystemError.self) {
      _ = try ControlSocket(connectingTo: "/" + String(repeating: "x", count: 107))
    }
    #expect(long.code == ENAMETOOLONG)
  }
}

import CLinux
import Descriptors
import Glibc
import JSR

/// One end of a stream that the test itself holds: of a TCP connection, or of a snoop pair. Its descriptor
/// does not block; whoever must wait does so for a bounded time.
struct StreamEnd: ~Copyable, Sendable {
  private let socket: Socket

  init(_ socket: consuming Socket) throws(SystemError) {
    let flags = fcntl(socket.descriptor, F_GETFL)
    guard flags >= 0, fcntl(socket.descriptor, F_SETFL, flags | O_NONBLOCK) == 0 else {
      throw SystemError("fcntl(F_SETFL)")
    }
    self.socket = socket
  }

  /// Connects to the replicated address, on a thread of `node`.
  ///
  /// - Parameters:
  ///   - family: Which of the replicated addresses.
  ///   - receiveBuffer: Bytes, as for SO_RCVBUF.
  ///   - signingKey: What the connection is signed with (RFC 2385).
  init(
    connectedFrom node: Node, in lab: Lab, receiveBuffer: Int32, port: UInt16 = ListeningSocket.port,
    family: Family = .v4, signingKey: [UInt8]? = nil
  ) async throws {
    let number = try await lab.inside(node) {
      let socket = try OwnedDescriptor(
        returnedBy: "socket",
        Glibc.socket(family.number, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0))
      // The window that is offered in the SYN follows from the buffer.
      var size = receiveBuffer
      guard
        setsockopt(socket.rawValue, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(MemoryLayout.size(ofValue: size)))
          == 0
      else { throw SystemError("setsockopt(SO_RCVBUF)") }
      // It bounds connect(2) too (socket(7)).
      var limit = timeval(tv_sec: 5, tv_usec: 0)
      guard
        setsockopt(
          socket.rawValue, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout.size(ofValue: limit))) == 0
      else { throw SystemError("setsockopt(SO_SNDTIMEO)") }
      try family.withAddress(family.replicated, port) { address, length in
        if let signingKey {
          let result = jsr_set_signing_key(
            socket.rawValue, address, length, -1, signingKey, signingKey.count)
          guard result == 0 else { throw SystemError("setsockopt(TCP_MD5SIG)") }
        }
        guard connect(socket.rawValue, address, length) == 0 else { throw SystemError("connect") }
      }
      return socket.release()
    }
    try self.init(Socket(owning: number))
  }

  /// Gives up the descriptor, to be replicated or closed.
  consuming func release() -> Socket { socket }

  /// Sets an option of the socket.
  func set(_ level: Int32, _ name: Int32, _ value: [UInt8]) throws(SystemError) {
    guard setsockopt(socket.descriptor, level, name, value, socklen_t(value.count)) == 0 else {
      throw SystemError("setsockopt", on: "option \(name)")
    }
  }

  /// Ends the outgoing direction and goes on reading.
  func endWriting() throws(SystemError) {
    guard shutdown(socket.descriptor, Int32(SHUT_WR)) == 0 else { throw SystemError("shutdown") }
  }

  /// Closes a TCP connection by a reset: with a linger time of zero (tcp(7)).
  consuming func reset() throws(SystemError) {
    var linger = linger(l_onoff: 1, l_linger: 0)
    guard
      setsockopt(
        socket.descriptor, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout.size(ofValue: linger))) == 0
    else { throw SystemError("setsockopt(SO_LINGER)") }
  }

  /// Bytes that have come and were not read (SIOCINQ).
  var unread: Int { Int(jsr_queued_unread(socket.descriptor)) }
  /// Bytes that were written and that the other end has not acknowledged (SIOCOUTQ).
  var unacknowledged: Int { Int(jsr_queued_unacknowledged(socket.descriptor)) }
  /// Bytes that were written and never sent (SIOCOUTQNSD).
  var unsent: Int { Int(jsr_queued_unsent(socket.descriptor)) }

  /// Writes as many of `bytes` as the socket takes at once, which may be none.
  func writeSome(_ bytes: ArraySlice<UInt8>) throws(SystemError) -> Int {
    let count = bytes.withUnsafeBytes {
      send(socket.descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
    }
    if count >= 0 { return count }
    guard errno == EAGAIN else { throw SystemError("send") }
    return 0
  }

  /// Writes all of `bytes`.
  func write(_ bytes: [UInt8], within time: Duration = .seconds(10)) async throws {
    var rest = bytes[...]
    try await eventually(within: time, "\(bytes.count) bytes are taken, \(rest.count) were not") {
      rest = rest.dropFirst(try writeSome(rest))
      return rest.isEmpty
    }
  }

  /// Writes `pattern` from its beginning at `position` on, until the socket has taken nothing for half a
  /// second: every buffer on the way is full then, and the other end's window closed.
  ///
  /// - Returns: The position behind the last byte taken.
  func fill(with pattern: BytePattern, from position: Int) async throws -> Int {
    let clock = ContinuousClock()
    var end = position
    var lastProgress = clock.now
    while clock.now - lastProgress < .milliseconds(500) {
      let count = try writeSome(pattern.bytes(from: end, count: 64 << 10)[...])
      end += count
      if count > 0 { lastProgress = clock.now } else { try await Task.sleep(for: .milliseconds(5)) }
    }
    return end
  }

  /// What a read that does not wait finds.
  private enum Found {
    case bytes([UInt8])
    case nothing
    case end
  }

  private func readSome(_ limit: Int) throws(SystemError) -> Found {
    var buffer = [UInt8](repeating: 0, count: min(limit, 256 << 10))
    let count = recv(socket.descriptor, &buffer, buffer.count, 0)
    if count > 0 { return .bytes(Array(buffer.prefix(count))) }
    if count == 0 { return .end }
    guard errno == EAGAIN else { throw SystemError("recv") }
    return .nothing
  }

  /// Reads what is there, which may be nothing; `nil` at the end of the stream.
  func readAvailable(_ limit: Int) throws(SystemError) -> [UInt8]? {
    switch try readSome(limit) {
    case .bytes(let bytes): bytes
    case .nothing: []
    case .end: nil
    }
  }

  /// Reads exactly `count` bytes.
  /// - Throws: ``LabFailure`` if they do not come in time, or the stream ends before.
  func read(_ count: Int, within time: Duration = .seconds(10)) async throws -> [UInt8] {
    var bytes: [UInt8] = []
    try await eventually(within: time, "\(count) bytes come, \(bytes.count) did") {
      while bytes.count < count {
        switch try readSome(count - bytes.count) {
        case .bytes(let more): bytes += more
        case .nothing: return false
        case .end: throw LabFailure("the stream ended after \(bytes.count) of \(count) bytes")
        }
      }
      return true
    }
    return bytes
  }

  /// Whether there is nothing to read now: neither a byte nor the end.
  func isIdle() throws -> Bool {
    if case .nothing = try readSome(1) { true } else { false }
  }

  /// Waits for the end of the stream.
  /// - Throws: ``LabFailure`` if another byte comes before it.
  func readEnd(within time: Duration = .seconds(10)) async throws {
    try await eventually(within: time, "the end of the stream") {
      switch try readSome(1 << 16) {
      case .bytes(let bytes): throw LabFailure("\(bytes.count) bytes too many came")
      case .nothing: false
      case .end: true
      }
    }
  }

  /// Waits for the socket to have failed with `code`, by its pending error (SO_ERROR): nothing is written, since a
  /// byte that left before the failure came would be seen by the other end.
  func wait(forError code: Int32, within time: Duration = .seconds(5)) async throws {
    try await eventually(within: time, "the socket fails with \(code)") {
      var error: Int32 = 0
      var length = socklen_t(MemoryLayout.size(ofValue: error))
      guard getsockopt(socket.descriptor, SOL_SOCKET, SO_ERROR, &error, &length) == 0 else {
        throw SystemError("getsockopt(SO_ERROR)")
      }
      return error == code
    }
  }

  /// The error of the next write, which is wanted to fail.
  func writeError() -> Int32? {
    do throws(SystemError) {
      _ = try writeSome([0])
      return nil
    } catch {
      return error.code
    }
  }
}

import CLinux
import Descriptors
import Foundation
import Glibc
import Synchronization

/// A socket of the loopback interface.
enum Loopback {
  static func make() throws -> Int32 {
    try OwnedDescriptor(
      returnedBy: "socket", socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    ).release()
  }

  private static func with(
    _ address: inout sockaddr_in, _ body: (UnsafeMutablePointer<sockaddr>, socklen_t) -> Int32
  ) -> Int32 {
    withUnsafeMutableBytes(of: &address) {
      body($0.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t($0.count))
    }
  }

  private static func address(_ port: UInt16) -> sockaddr_in {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    address.sin_port = port.bigEndian
    return address
  }

  static func listen() throws -> (descriptor: Int32, port: UInt16) {
    let descriptor = try make()
    var address = address(0)
    guard with(&address, { bind(descriptor, $0, $1) }) == 0, Glibc.listen(descriptor, 64) == 0 else {
      throw SystemError("listen")
    }
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    guard with(&address, { pointer, _ in getsockname(descriptor, pointer, &size) }) == 0 else {
      throw SystemError("getsockname")
    }
    return (descriptor, UInt16(bigEndian: address.sin_port))
  }

  /// A port that nobody uses.
  static func freePort() throws -> UInt16 {
    let (descriptor, port) = try listen()
    close(descriptor)
    return port
  }

  /// Asks the kernel, and not whoever listens.
  static func isListening(on port: UInt16) throws -> Bool {
    try String(contentsOfFile: "/proc/self/net/tcp", encoding: .utf8)
      .contains(String(format: ": 0100007F:%04X 00000000:0000 0A", Int(port)))
  }

  /// - Returns: -1 if nobody listens.
  static func connect(to port: UInt16) throws -> Int32 {
    let descriptor = try make()
    var address = address(port)
    guard with(&address, { Glibc.connect(descriptor, $0, $1) }) == 0 else {
      close(descriptor)
      return -1
    }
    var one: Int32 = 1
    setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
    return descriptor
  }

  static func send(_ bytes: [UInt8], on descriptor: Int32) {
    var sent = 0
    while sent < bytes.count {
      let count = bytes.withUnsafeBytes {
        Glibc.send(descriptor, $0.baseAddress! + sent, bytes.count - sent, Int32(MSG_NOSIGNAL))
      }
      guard count > 0 else { return }
      sent += count
    }
  }
}

/// Carries what the two ends of the link say to each other, until it is told to do something else.
final class Wire: Sendable {
  /// To whom.
  enum Direction: Int, Sendable, CaseIterable { case toListening, toConnecting }

  private struct Track {
    /// Pieces that went through on the present connection.
    var pieces = 0
    /// What is done with the piece of that number, counted from 0; once.
    var mischief: (piece: Int, Mischief)?
    /// Nothing is handed on, but kept.
    var isHeld = false
    var kept: [UInt8] = []
  }

  struct Mischief: Sendable {
    /// What is sent in place of a piece.
    let replacement: @Sendable ([UInt8]) -> [UInt8]
    /// The sender seems to be gone then.
    let ends: Bool
  }

  private struct State {
    var tracks = [Track(), Track()]
    /// The ends of the present connection: at the listening link, and at the connecting one.
    var sockets: [Int32] = [-1, -1]
  }
  private let state = Mutex(State())
  private let listener: Int32
  let port: UInt16

  /// - Parameter target: the port of the listening link.
  init(to target: UInt16) throws {
    (listener, port) = try Loopback.listen()
    Thread.detachNewThread { [self] in
      while true {
        let client = accept(listener, nil, nil)
        guard client >= 0 else { return }
        var one: Int32 = 1
        setsockopt(client, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
        guard let out = try? Loopback.connect(to: target), out >= 0 else {
          close(client)
          continue
        }
        state.withLock { state in
          state.sockets = [out, client]
          for track in state.tracks.indices {
            state.tracks[track].pieces = 0
            state.tracks[track].isHeld = false
            state.tracks[track].kept = []
          }
        }
        let left = Left()
        for direction in Direction.allCases {
          let (from, to) = direction == .toListening ? (client, out) : (out, client)
          Thread.detachNewThread { [self] in
            handOn(from, to, direction)
            if left.isLast() {
              close(from)
              close(to)
            }
          }
        }
      }
    }
  }

  /// How many of two threads are still at work.
  private final class Left: Sendable {
    private let count = Atomic(2)
    func isLast() -> Bool { count.subtract(1, ordering: .sequentiallyConsistent).newValue == 0 }
  }

  private func handOn(_ from: Int32, _ to: Int32, _ direction: Direction) {
    var buffer = [UInt8](repeating: 0, count: 64 << 10)
    while true {
      let count = recv(from, &buffer, buffer.count, 0)
      guard count > 0 else { break }
      let piece = Array(buffer.prefix(count))
      var ends = false
      let bytes = state.withLock { state -> [UInt8] in
        var track = state.tracks[direction.rawValue]
        defer {
          track.pieces += 1
          state.tracks[direction.rawValue] = track
        }
        if let (number, mischief) = track.mischief, number == track.pieces {
          track.mischief = nil
          ends = mischief.ends
          return mischief.replacement(piece)
        }
        guard track.isHeld else { return piece }
        track.kept += piece
        return []
      }
      Loopback.send(bytes, on: to)
      if ends { break }
    }
    _ = shutdown(to, Int32(SHUT_WR))
    // What the other one says to that goes on; what this one says is not heard any more.
    _ = shutdown(from, Int32(SHUT_RD))
  }

  /// Replaces a piece of the next connection.
  func spoil(_ direction: Direction, piece: Int, _ mischief: Mischief) {
    state.withLock { $0.tracks[direction.rawValue].mischief = (piece, mischief) }
  }

  /// Puts bytes between two pieces of the present connection, and ends it then if `ends`.
  func inject(_ bytes: [UInt8], _ direction: Direction, ends: Bool) {
    let socket = state.withLock { $0.sockets[direction.rawValue] }
    Loopback.send(bytes, on: socket)
    if ends { _ = shutdown(socket, Int32(SHUT_WR)) }
  }

  func hold(_ direction: Direction) { state.withLock { $0.tracks[direction.rawValue].isHeld = true } }

  /// How much is held.
  func keptByteCount(_ direction: Direction) -> Int {
    state.withLock { $0.tracks[direction.rawValue].kept.count }
  }

  func kept(_ direction: Direction) -> [UInt8] { state.withLock { $0.tracks[direction.rawValue].kept } }

  /// Takes a part of what is held, from its beginning.
  func takeKept(_ direction: Direction, _ count: Int) -> [UInt8] {
    state.withLock { state in
      let part = Array(state.tracks[direction.rawValue].kept.prefix(count))
      state.tracks[direction.rawValue].kept.removeFirst(part.count)
      return part
    }
  }

  /// Hands on what was held, and what comes.
  func letGo(_ direction: Direction) {
    state.withLock { state in
      Loopback.send(state.tracks[direction.rawValue].kept, on: state.sockets[direction.rawValue])
      state.tracks[direction.rawValue].kept = []
      state.tracks[direction.rawValue].isHeld = false
    }
  }

  /// Hands on what was held, and a reset behind it, and returns when the receiver's kernel knows of that.
  func handOnAndReset(_ direction: Direction) throws {
    let (socket, bytes) = state.withLock { state in
      defer { state.tracks[direction.rawValue].kept = [] }
      return (state.sockets[direction.rawValue], state.tracks[direction.rawValue].kept)
    }
    Loopback.send(bytes, on: socket)
    // The peer's end of this connection, as it stands in the table of the kernel.
    var address = sockaddr_in()
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let own = withUnsafeMutableBytes(of: &address) {
      getpeername(socket, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), &size)
    }
    guard own == 0 else { throw SystemError("getpeername") }
    let remote = UInt16(bigEndian: address.sin_port)
    let local = withUnsafeMutableBytes(of: &address) {
      getsockname(socket, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), &size)
    }
    guard local == 0 else { throw SystemError("getsockname") }
    let entry = String(
      format: ": 0100007F:%04X 0100007F:%04X 01", Int(remote), Int(UInt16(bigEndian: address.sin_port)))
    // Disconnecting resets at once (tcp_disconnect in net/ipv4/tcp.c), whoever else has the descriptor open.
    var nobody = sockaddr()
    nobody.sa_family = sa_family_t(AF_UNSPEC)
    guard Glibc.connect(socket, &nobody, socklen_t(MemoryLayout<sockaddr>.size)) == 0 else {
      throw SystemError("connect(AF_UNSPEC)")
    }
    for _ in 0..<5000 {
      guard try String(contentsOfFile: "/proc/self/net/tcp", encoding: .utf8).contains(entry) else { return }
      usleep(1000)
    }
    throw SystemError("connect(AF_UNSPEC)", code: ETIMEDOUT)
  }

  func end() {
    _ = shutdown(listener, Int32(SHUT_RDWR))
    for socket in state.withLock(\.sockets) where socket >= 0 { _ = shutdown(socket, Int32(SHUT_RDWR)) }
  }

  deinit { close(listener) }
}

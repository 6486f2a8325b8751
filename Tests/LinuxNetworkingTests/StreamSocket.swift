import CLinux
import Descriptors
import Glibc
import LinuxNetworking
import Packet

/// A TCP socket of a test. Reads and writes give up after ten seconds.
final class StreamSocket: Sendable {
  private let owned: OwnedDescriptor
  var descriptor: Int32 { owned.rawValue }

  init(owning descriptor: consuming OwnedDescriptor) {
    owned = descriptor
    for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
      var limit = timeval(tv_sec: 10, tv_usec: 0)
      setsockopt(owned.rawValue, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout<timeval>.size))
    }
  }

  private static func create(_ family: IPAddress.Family) throws -> OwnedDescriptor {
    try OwnedDescriptor(
      returnedBy: "socket",
      socket(
        family == .v4 ? AF_INET : AF_INET6, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0))
  }

  static func withAddress(_ endpoint: Endpoint, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32)
    -> Int32
  {
    var text = Array("\(endpoint.address)".utf8CString)
    if endpoint.address.family == .v4 {
      var address = sockaddr_in()
      address.sin_family = sa_family_t(AF_INET)
      address.sin_port = endpoint.port.bigEndian
      inet_pton(AF_INET, &text, &address.sin_addr)
      return withUnsafePointer(to: address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
        }
      }
    }
    var address = sockaddr_in6()
    address.sin6_family = sa_family_t(AF_INET6)
    address.sin6_port = endpoint.port.bigEndian
    inet_pton(AF_INET6, &text, &address.sin6_addr)
    return withUnsafePointer(to: address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        body($0, socklen_t(MemoryLayout<sockaddr_in6>.size))
      }
    }
  }

  /// Signs what goes to, and demands it of what comes from, a prefix (RFC 2385); with `nil` that is the
  /// address.
  func sign(_ address: IPAddress, prefixLength: Int32? = nil, with key: [UInt8]) throws {
    let result = Self.withAddress(Endpoint(address, 0)) {
      jsr_set_signing_key(descriptor, $0, $1, prefixLength ?? -1, key, key.count)
    }
    guard result == 0 else { throw SystemError("setsockopt(TCP_MD5SIG)") }
  }

  static func listening(at endpoint: Endpoint) throws -> StreamSocket {
    let socket = try create(endpoint.address.family)
    var on: Int32 = 1
    setsockopt(socket.rawValue, SOL_SOCKET, SO_REUSEADDR, &on, 4)
    let descriptor = socket.rawValue
    guard withAddress(endpoint, { bind(descriptor, $0, $1) }) == 0 else { throw SystemError("bind") }
    guard listen(descriptor, 64) == 0 else { throw SystemError("listen") }
    return StreamSocket(owning: socket)
  }

  static func connected(to endpoint: Endpoint, signingKey: [UInt8]? = nil) throws -> StreamSocket {
    let socket = StreamSocket(owning: try create(endpoint.address.family))
    if let signingKey { try socket.sign(endpoint.address, with: signingKey) }
    guard withAddress(endpoint, { connect(socket.descriptor, $0, $1) }) == 0 else {
      throw SystemError("connect")
    }
    return socket
  }

  /// Sends the first packet of a connection; the socket must be non-blocking.
  func startConnecting(to endpoint: Endpoint) {
    _ = Self.withAddress(endpoint) { connect(descriptor, $0, $1) }
  }

  func accepted() throws -> StreamSocket {
    StreamSocket(
      owning: try OwnedDescriptor(
        returnedBy: "accept", accept(descriptor, nil, nil)))
  }

  /// Whether a connection waits to be accepted, or bytes to be read, within the time.
  func isReadable(within milliseconds: Int32) -> Bool {
    var query = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    return poll(&query, 1, milliseconds) > 0
  }

  func write(_ bytes: some Collection<UInt8>) throws {
    var rest = ArraySlice(bytes)
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes {
        send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
      }
      guard count > 0 else { throw SystemError("send") }
      rest = rest.dropFirst(count)
    }
  }

  /// Writes what fits now; returns how much that was.
  func writeWhatFits(_ bytes: [UInt8]) -> Int {
    var written = 0
    while written < bytes.count {
      let count = bytes[written...].withUnsafeBytes {
        send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
      }
      if count <= 0 { break }
      written += count
    }
    return written
  }

  /// Reads exactly `count` bytes, or throws; `ENODATA` if the stream ends before.
  func read(_ count: Int) throws -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(count)
    var buffer = [UInt8](repeating: 0, count: 64 << 10)
    while bytes.count < count {
      let received = recv(descriptor, &buffer, min(buffer.count, count - bytes.count), 0)
      guard received > 0 else { throw SystemError("recv", code: received == 0 ? ENODATA : errno) }
      bytes += buffer[..<received]
    }
    return bytes
  }

  /// Whether the next thing to read is the end of the stream.
  func isAtEnd() throws -> Bool {
    var byte: UInt8 = 0
    let received = recv(descriptor, &byte, 1, 0)
    guard received >= 0 else { throw SystemError("recv") }
    return received == 0
  }

  func shutdownWrite() { shutdown(descriptor, Int32(SHUT_WR)) }

  /// The two ends of a conversation between the replicated address and the peer.
  static func pair(
    on network: TestNetwork, engine: Int = 0, family: IPAddress.Family = .v4, port: UInt16 = 179
  ) throws -> (server: StreamSocket, client: StreamSocket) {
    let endpoint = Endpoint(TestNetwork.replicated(family), port)
    let listener = try network.engines[engine].run { try StreamSocket.listening(at: endpoint) }
    let client = try network.peer.run { try StreamSocket.connected(to: endpoint) }
    return (try listener.accepted(), client)
  }
}

/// Whether two streams agree. As a function, so that a failing expectation does not print them; through
/// memcmp, since a loop over millions of bytes takes seconds without optimization.
func same(_ a: some Sequence<UInt8>, _ b: some Sequence<UInt8>) -> Bool {
  let a = Array(a)
  let b = Array(b)
  return a.count == b.count && memcmp(a, b, a.count) == 0
}

/// Bytes that depend on their position, so that a lost, repeated or moved byte shows.
func pattern(_ seed: UInt64, _ count: Int) -> [UInt8] {
  var state = seed &* 0x9e37_79b9_7f4a_7c15 | 1
  var words = [UInt64](repeating: 0, count: (count + 7) / 8)
  for index in words.indices {
    state ^= state << 13
    state ^= state >> 7
    state ^= state << 17
    words[index] = state
  }
  return words.withUnsafeBytes { Array($0.prefix(count)) }
}

import Descriptors
import Glibc
import LinuxNetworking

/// How long it takes to rebuild a connection, for scripts/bench: `restore-benchmark CONNECTIONS`.
///
/// Does what scripts/lib/soccr.c does with CRIU's library: makes so many connections on the loopback interface, with 300
/// unread bytes each, reads one end of each and ends it silently; then rebuilds all, which is timed, and checks that bytes go
/// both ways. Prints the median of one in microseconds: from the socket to the end of repair mode. Needs CAP_NET_ADMIN, in a
/// network namespace of its own. What it opens stays open until it ends.
@main
enum RestoreBenchmark {
  private static let bytes = [UInt8](repeating: 7, count: 300)

  static func main() {
    guard CommandLine.arguments.count == 2, let count = Int(CommandLine.arguments[1]), 1...5_000 ~= count
    else {
      fail("restore-benchmark CONNECTIONS, 1 to 5000")
    }
    do {
      print(try median(of: count))
    } catch {
      fail("\(error)")
    }
  }

  private static func fail(_ reason: String) -> Never {
    let line = "restore-benchmark: \(reason)\n"
    _ = line.withCString { write(STDERR_FILENO, $0, strlen($0)) }
    exit(1)
  }

  private static func median(of count: Int) throws -> Double {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = in_addr_t(0x7f00_0001).bigEndian
    let listener = try tcpSocket()
    try withAddress(&address) { try check("bind", bind(listener, $0, $1)) }
    try check("listen", listen(listener, 16))
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    try withAddress(&address) { pointer, _ in
      try check("getsockname", getsockname(listener, UnsafeMutablePointer(mutating: pointer), &length))
    }

    let saved = try (0..<count).map { _ in
      let peer = try tcpSocket()
      try withAddress(&address) { try check("connect", connect(peer, $0, $1)) }
      let accepted = try check("accept", accept(listener, nil, nil))
      try check("send", send(peer, bytes, bytes.count, 0) == bytes.count ? 0 : -1)
      let snapshot = try TCPRepair.snapshot(of: accepted)
      try TCPRepair.disconnectSilently(accepted)
      close(accepted)
      return (peer: peer, snapshot: snapshot)
    }
    close(listener)

    let defaults = SocketDefaults()
    let times = try saved.map { peer, snapshot in
      let begun = ContinuousClock.now
      let restored = try TCPRepair.restore(snapshot, defaults: defaults)
      try TCPRepair.activate(restored.rawValue, snapshot)
      let time = ContinuousClock.now - begun
      try exchange(restored.release(), peer)
      return time / .microseconds(1)
    }
    return times.sorted()[count / 2]
  }

  private static func exchange(_ restored: Int32, _ peer: Int32) throws {
    var buffer = [UInt8](repeating: 0, count: bytes.count)
    let count = recv(restored, &buffer, buffer.count, Int32(MSG_WAITALL))
    guard count == bytes.count, buffer == bytes else { fail("a restored socket has lost what was unread") }
    try check("send", send(restored, bytes, 1, Int32(MSG_NOSIGNAL)) == 1 ? 0 : -1)
    guard recv(peer, &buffer, 1, 0) == 1, buffer[0] == bytes[0] else {
      fail("what a restored socket has sent did not arrive")
    }
  }

  private static func tcpSocket() throws -> Int32 {
    try check("socket", socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0))
  }

  @discardableResult
  private static func check(_ call: StaticString, _ result: Int32) throws -> Int32 {
    guard result >= 0 else { throw SystemError(call) }
    return result
  }

  private static func withAddress(
    _ address: inout sockaddr_in, _ body: (UnsafePointer<sockaddr>, socklen_t) throws -> Void
  ) throws {
    try withUnsafePointer(to: &address) {
      try $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        try body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
  }
}

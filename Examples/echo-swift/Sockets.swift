// What a daemon has anyway: listening sockets, and a loop that waits for them.
import Dispatch
import Glibc

/// Waits until a descriptor can be read or written.
@MainActor func ready(_ descriptor: Int32, toWrite: Bool = false) async {
  await withCheckedContinuation { continuation in
    // Nobody but the main queue ever touches it.
    nonisolated(unsafe) let source: any DispatchSourceProtocol =
      toWrite
      ? DispatchSource.makeWriteSource(fileDescriptor: descriptor, queue: .main)
      : DispatchSource.makeReadSource(fileDescriptor: descriptor, queue: .main)
    source.setEventHandler { source.cancel() }
    source.setCancelHandler { continuation.resume() }
    source.resume()
  }
}

/// Gives `use` what there is to be read, when there is something; false at the end.
@MainActor func take(from descriptor: Int32, _ use: (ArraySlice<UInt8>) -> Void) async -> Bool {
  await ready(descriptor)
  var buffer = [UInt8](repeating: 0, count: 1 << 16)
  let count = read(descriptor, &buffer, buffer.count)
  if count > 0 { use(buffer[..<count]) }
  return count > 0 || (count < 0 && errno == EAGAIN)
}

/// Hands over each connection that comes.
@MainActor func accept(
  at listener: Int32, _ body: @escaping @MainActor @Sendable (Int32) async -> Void
) async {
  while true {
    await ready(listener)
    let connection = accept(listener, nil, nil)
    if connection >= 0 { Task { await body(connection) } }
  }
}

func listening(at port: UInt16) -> Int32 {
  // For IPv4, too: net.ipv6.bindv6only is off by default.
  let listener = socket(AF_INET6, Int32(SOCK_STREAM.rawValue), 0)
  var on: Int32 = 1
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<Int32>.size))
  // For what is accepted too: the other instance says at once what it wants.
  var limit = timeval(tv_sec: 1, tv_usec: 0)
  setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
  var any = sockaddr_in6()
  any.sin6_family = sa_family_t(AF_INET6)
  any.sin6_port = port.bigEndian
  guard withUnsafe(any, { bind(listener, $0, $1) }) == 0, listen(listener, 64) == 0
  else { fatalError("port \(port): \(String(cString: strerror(errno)))") }
  return listener
}

func address(_ text: String, _ port: UInt16) -> sockaddr_in {
  var address = sockaddr_in()
  address.sin_family = sa_family_t(AF_INET)
  address.sin_port = port.bigEndian
  address.sin_addr.s_addr = inet_addr(text)
  return address
}

func withUnsafe<Address>(
  _ address: Address, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
) -> Int32 {
  withUnsafePointer(to: address) {
    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
      body($0, socklen_t(MemoryLayout<Address>.size))
    }
  }
}

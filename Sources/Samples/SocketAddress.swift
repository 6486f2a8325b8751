import Glibc

/// An IPv4 or IPv6 address and a port, in the form that system calls take.
struct SocketAddress: CustomStringConvertible {
  /// A host or an address that cannot be used.
  struct ResolutionError: Error, CustomStringConvertible {
    var host: String
    var reason: String
    var description: String { "cannot use '\(host)' as an address: \(reason)" }
  }

  private var storage: sockaddr_storage
  private var length: socklen_t

  /// An address by its digits or, unless `isNumeric`, by its name.
  init(host: String, port: UInt16, isNumeric: Bool) throws(ResolutionError) {
    var hints = addrinfo()
    hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    hints.ai_flags = AI_NUMERICSERV | (isNumeric ? AI_NUMERICHOST : 0)
    var list: UnsafeMutablePointer<addrinfo>?
    let result = getaddrinfo(host, String(port), &hints, &list)
    defer { if let list { freeaddrinfo(list) } }
    guard result == 0, let list, let address = list.pointee.ai_addr else {
      throw ResolutionError(host: host, reason: String(cString: gai_strerror(result)))
    }
    storage = sockaddr_storage()
    length = list.pointee.ai_addrlen
    memcpy(&storage, address, Int(length))
  }

  /// The address that `call` fills in, such as `getpeername`; `nil` if it fails.
  init?(_ call: (UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> Int32) {
    var storage = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    let result = withUnsafeMutablePointer(to: &storage) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { call($0, &length) }
    }
    guard result >= 0 else { return nil }
    self.storage = storage
    self.length = length
  }

  /// `AF_INET` or `AF_INET6`.
  var family: Int32 { Int32(storage.ss_family) }

  func withPointer<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
    withUnsafePointer(to: storage) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) }
    }
  }

  /// The address without the port.
  var host: String { names.host }

  var description: String {
    let (host, port) = names
    return family == AF_INET6 ? "[\(host)]:\(port)" : "\(host):\(port)"
  }

  private var names: (host: String, port: String) {
    var host = [CChar](repeating: 0, count: Int(NI_MAXHOST))
    var port = [CChar](repeating: 0, count: Int(NI_MAXSERV))
    let result = withPointer { address, length in
      getnameinfo(
        address, length, &host, socklen_t(host.count), &port, socklen_t(port.count),
        NI_NUMERICHOST | NI_NUMERICSERV)
    }
    guard result == 0 else { return ("?", "?") }
    func text(_ characters: [CChar]) -> String {
      String(decoding: characters.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
    return (text(host), text(port))
  }
}

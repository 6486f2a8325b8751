import CLinux
import Descriptors
import Glibc
import JSR

/// Listens on one node for connections of both families, on behalf of the test itself.
struct ListeningSocket: ~Copyable, Sendable {
  /// The same as the echo server's, so that everything that looks at its connections sees these.
  static let port: UInt16 = 16000

  /// A socket for each family.
  private let descriptors: [Int32]

  /// - Parameter sendBuffer: Bytes, as for SO_SNDBUF; accepted sockets inherit it.
  /// - Parameter signingKey: What all peers have to sign with (RFC 2385).
  init(
    on node: Node, in lab: Lab, sendBuffer: Int32, port: UInt16 = port, signingKey: [UInt8]? = nil
  ) async throws {
    var descriptors: [Int32] = []
    for family in Family.allCases {
      descriptors.append(
        try await lab.inside(node) {
          try Self.listening(family, sendBuffer: sendBuffer, port: port, signingKey: signingKey).release()
        })
    }
    self.descriptors = descriptors
  }

  deinit {
    for descriptor in descriptors { close(descriptor) }
  }

  private static func listening(
    _ family: Family, sendBuffer: Int32, port: UInt16, signingKey: [UInt8]?
  ) throws -> OwnedDescriptor {
    let socket = try OwnedDescriptor(
      returnedBy: "socket",
      Glibc.socket(
        family.number,
        Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0))
    let number = socket.rawValue
    func set(_ level: Int32, _ name: Int32, _ value: Int32, _ call: StaticString) throws {
      var value = value
      guard
        setsockopt(number, level, name, &value, socklen_t(MemoryLayout.size(ofValue: value))) == 0
      else { throw SystemError(call) }
    }
    try set(SOL_SOCKET, SO_SNDBUF, sendBuffer, "setsockopt(SO_SNDBUF)")
    if family == .v6 { try set(Int32(IPPROTO_IPV6), IPV6_V6ONLY, 1, "setsockopt(IPV6_V6ONLY)") }
    try family.withAddress(nil, port) { address, length in
      if let signingKey {
        let result = jsr_set_signing_key(number, address, length, 0, signingKey, signingKey.count)
        guard result == 0 else { throw SystemError("setsockopt(TCP_MD5SIG)") }
      }
      guard bind(number, address, length) == 0 else { throw SystemError("bind") }
    }
    guard listen(number, 8) == 0 else { throw SystemError("listen") }
    return socket
  }

  func accept() async throws -> StreamEnd {
    let number = try await eventually(within: .seconds(5), "a connection comes") { () -> Int32? in
      for descriptor in descriptors {
        let number = Glibc.accept(descriptor, nil, nil)
        guard number < 0 else {
          // Glibc does not show accept4(2) to Swift. No child is born meanwhile: the case is here.
          _ = fcntl(number, F_SETFD, FD_CLOEXEC)
          return number
        }
        guard errno == EAGAIN else { throw SystemError("accept") }
      }
      return nil
    }
    return try StreamEnd(Socket(owning: number))
  }
}

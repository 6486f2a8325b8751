import CLinux
import Descriptors
import Foundation
import Glibc
import Synchronization

/// Stands between the two engines and hands on what each says in pieces of other sizes: mostly a few bytes, each in
/// a segment of its own, sometimes many records at once. It may also say something of its own.
final class SplittingRelay: Sendable {
  static let port: UInt16 = 7001
  /// Connections that it can make. Each end of a link that breaks and comes back takes one.
  private static let connectionLimit = 64

  private struct State {
    var descriptors: [Int32] = []
    var pieceCount = 0
    /// The ends of the present connection.
    var sockets: [Node: Int32] = [:]
  }
  private let state = Mutex(State())
  private let listener: Int32
  private let splits: Bool

  /// Listens on re1, and connects to the engine of re0 for whoever comes.
  ///
  /// - Parameter splits: Otherwise the pieces are left as they come.
  init(in lab: Lab, seed: UInt64 = 0, splits: Bool = true) async throws {
    self.splits = splits
    let (listener, outgoing) = try await lab.inside(.re1) { () throws -> (Int32, [Int32]) in
      let listener = try Self.makeSocket()
      guard Self.call(bind, listener, "10.77.0.2", Self.port) == 0 else { throw SystemError("bind") }
      guard listen(listener, 8) == 0 else { throw SystemError("listen") }
      return (listener, try (0..<Self.connectionLimit).map { _ in try Self.makeSocket() })
    }
    self.listener = listener
    state.withLock { $0.descriptors = [listener] + outgoing }
    Thread.detachNewThread { [self] in
      for (number, out) in outgoing.enumerated() {
        let client = accept(listener, nil, nil)
        guard client >= 0 else { return }
        state.withLock { $0.descriptors.append(client) }
        guard Self.call(connect, out, "10.77.0.1", 7000) == 0 else {
          _ = shutdown(client, Int32(SHUT_RDWR))
          continue
        }
        for socket in [client, out] {
          var one: Int32 = 1
          setsockopt(socket, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
        }
        state.withLock { $0.sockets = [.re0: out, .re1: client] }
        for (from, to) in [(client, out), (out, client)] {
          Thread.detachNewThread { [self] in
            handOn(from, to, SplitMix(seed: seed &+ UInt64(2 * number + (from == client ? 0 : 1))))
          }
        }
      }
    }
  }

  /// Says something to the engine of `node`, somewhere in what the other one says.
  ///
  /// - Parameter ends: There is no more then.
  func say(_ bytes: [UInt8], to node: Node, ends: Bool) throws {
    guard let socket = state.withLock({ $0.sockets[node] }) else {
      throw LabFailure("there is no connection")
    }
    guard Self.send(bytes, on: socket) else { throw SystemError("send") }
    if ends { _ = shutdown(socket, Int32(SHUT_RDWR)) }
  }

  private static func send(_ bytes: some Collection<UInt8>, on socket: Int32) -> Bool {
    let bytes = Array(bytes)
    var sent = 0
    while sent < bytes.count {
      let more = bytes.withUnsafeBytes {
        Glibc.send(socket, $0.baseAddress! + sent, bytes.count - sent, Int32(MSG_NOSIGNAL))
      }
      guard more > 0 else { return false }
      sent += more
    }
    return true
  }

  /// How many pieces went through.
  var pieceCount: Int { state.withLock(\.pieceCount) }

  /// Ends it. The numbers are closed with the object, when no thread uses them any more.
  func end() {
    for descriptor in state.withLock(\.descriptors) { _ = shutdown(descriptor, Int32(SHUT_RDWR)) }
  }

  deinit { for descriptor in state.withLock(\.descriptors) { close(descriptor) } }

  private func handOn(_ from: Int32, _ to: Int32, _ generator: SplitMix) {
    var generator = generator
    var buffer = [UInt8](repeating: 0, count: 64 << 10)
    while true {
      let limit =
        switch splits ? generator.next() % 8 : 7 {
        case 0: 1
        case 1...5: Int(generator.next() % 200) + 1
        case 6: Int(generator.next() % 3000) + 1
        default: buffer.count
        }
      let count = recv(from, &buffer, limit, 0)
      guard count > 0, Self.send(buffer[..<count], on: to) else { break }
      state.withLock { $0.pieceCount += 1 }
    }
    _ = shutdown(to, Int32(SHUT_RDWR))
    _ = shutdown(from, Int32(SHUT_RDWR))
  }

  private static func makeSocket() throws -> Int32 {
    let socket = try OwnedDescriptor(
      returnedBy: "socket", socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0))
    return socket.release()
  }

  /// bind(2) or connect(2).
  private static func call(
    _ function: (Int32, UnsafePointer<sockaddr>, socklen_t) -> Int32, _ socket: Int32, _ host: String,
    _ port: UInt16
  ) -> Int32 {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = inet_addr(host)
    return withUnsafeBytes(of: &address) {
      function(socket, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t($0.count))
    }
  }
}

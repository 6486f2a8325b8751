import CLinux
import Descriptors
import Foundation
import Glibc
import Synchronization

/// Stands between the two engines and hands on what each says in pieces of other sizes: mostly a few bytes, each in
/// a segment of its own, sometimes many records at once.
final class SplittingRelay: Sendable {
  static let port: UInt16 = 7001
  /// Connections that it can make. Each end of a link that breaks and comes back takes one.
  private static let connectionLimit = 8

  private struct State {
    var descriptors: [Int32] = []
    var pieceCount = 0
  }
  private let state = Mutex(State())
  private let listener: Int32

  /// Listens on re1, and connects to the engine of re0 for whoever comes.
  init(in lab: Lab, seed: UInt64) async throws {
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
        for (from, to) in [(client, out), (out, client)] {
          Thread.detachNewThread { [self] in
            handOn(from, to, SplitMix(seed: seed &+ UInt64(2 * number + (from == client ? 0 : 1))))
          }
        }
      }
    }
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
        switch generator.next() % 8 {
        case 0: 1
        case 1...5: Int(generator.next() % 200) + 1
        case 6: Int(generator.next() % 3000) + 1
        default: buffer.count
        }
      let count = recv(from, &buffer, limit, 0)
      guard count > 0 else { break }
      var sent = 0
      while sent < count {
        let more = buffer.withUnsafeBytes {
          send(to, $0.baseAddress! + sent, count - sent, Int32(MSG_NOSIGNAL))
        }
        guard more > 0 else { break }
        sent += more
      }
      guard sent == count else { break }
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

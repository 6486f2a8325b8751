import Control
import Descriptors
import Foundation
import Glibc
import Synchronization
import Testing

/// An engine of one client, whose answers a test gives. It listens in a directory of its own and ends when it is
/// let go.
final class FakeEngine: Sendable {
  /// What a request is answered with.
  enum Answer: Sendable {
    case reply(ControlReply.Body, descriptors: [Int32] = [])
    case refusal(RefusalCode, String)
    /// Anything, as it is.
    case messages([[UInt8]])
    case nothing
    /// The engine dies.
    case end
  }

  let path: String
  private let directory: String
  private let listener: OwnedDescriptor
  private let client = Mutex<Int32>(-1)
  private let asked = Mutex<[ControlRequest.Body]>([])

  /// The requests that came, without `hello` and `subscribe`.
  var requests: [ControlRequest.Body] { asked.withLock(\.self) }

  /// - Parameter answer: called on the engine's thread with each request but `hello` and `subscribe`, and the
  ///   descriptors that came with it, which are closed afterwards.
  init(
    introducing: Bool = true, _ answer: @escaping @Sendable (ControlRequest, [Int32]) -> Answer
  ) throws {
    directory =
      FileManager.default.temporaryDirectory.path + "/jsr-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    path = directory + "/s"
    listener = try OwnedDescriptor(
      returnedBy: "socket", socket(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue), 0))
    var address = try ControlSocket.address(of: path)
    let number = listener.rawValue
    let bound = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(number, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    try #require(bound == 0)
    try #require(listen(number, 4) == 0)
    let copy = try listener.duplicate().release()
    Thread.detachNewThread { [weak self] in
      let accepted = accept(copy, nil, nil)
      close(copy)
      guard accepted >= 0 else { return }
      let socket = ControlSocket(owning: OwnedDescriptor(owning: accepted))
      self?.client.withLock { $0 = accepted }
      defer { self?.client.withLock { $0 = -1 } }
      while let message = try? socket.receive(waiting: true) {
        guard let request = try? ControlRequest(reading: message.bytes) else { break }
        let answered: Answer
        switch request.body {
        case .hello where introducing:
          answered = .reply(.welcome(.init(node: "re1", slot: 1, engineVersion: "9.9")))
        case .subscribe where introducing:
          answered = .reply(.done)
        default:
          guard let self else { return }
          self.asked.withLock { $0.append(request.body) }
          answered = message.descriptors.withNumbers { answer(request, $0) }
        }
        do {
          switch answered {
          case .reply(let body, let descriptors):
            var pages = ReplyPages(ControlReply(id: request.id, outcome: .success(body)))
            var attached = descriptors
            while let page = pages.next() {
              try socket.send(page, descriptors: attached, waiting: true)
              attached = []
            }
            for number in descriptors { close(number) }
          case .refusal(let code, let text):
            var pages = ReplyPages(
              ControlReply(id: request.id, outcome: .failure(ControlError(code, text))))
            if let page = pages.next() { try socket.send(page, waiting: true) }
          case .messages(let messages):
            for message in messages { try socket.send(message, waiting: true) }
          case .nothing:
            break
          case .end:
            socket.shutdown()
          }
        } catch {
          return
        }
      }
    }
  }

  /// Sends a message of its own accord.
  func send(_ message: [UInt8]) throws {
    try client.withLock { try RawMessage.send(message, descriptors: [], on: $0) }
  }

  /// Dies.
  func end() { client.withLock { _ = shutdown($0, Int32(SHUT_RDWR)) } }

  deinit {
    end()
    _ = shutdown(listener.rawValue, Int32(SHUT_RDWR))
    try? FileManager.default.removeItem(atPath: directory)
  }
}

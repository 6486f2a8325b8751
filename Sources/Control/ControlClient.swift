import Descriptors
import Glibc

/// A client that asks one thing at a time and waits for the answer: what a command line needs. For one thread.
public final class ControlClient {
  /// Why there was no answer.
  public enum Failure: Error, Hashable, Sendable, CustomStringConvertible {
    /// No engine, or none that answers.
    case unreachable(path: String, reason: String)
    /// The engine refused.
    case refused(ControlError)

    public var description: String {
      switch self {
      case .unreachable(let path, let reason): "engine not reachable at \(path): \(reason)"
      case .refused(let error): error.message
      }
    }
  }

  /// How long an answer is waited for: longer than the engine needs for a planned switchover.
  private static let answerSeconds = 30

  private let path: String
  private let socket: ControlSocket
  private var nextID: UInt64 = 1
  /// Events that came while an answer was awaited, the oldest first.
  private var events: [ControlEvent] = []
  private static let eventLimit = 1024
  /// Who answered.
  public private(set) var welcome: ControlReply.Welcome

  /// Connects to the engine that listens at `path` and says hello.
  ///
  /// - Parameters:
  ///   - application: a name of at most `ControlProtocol.applicationNameLimit` bytes.
  ///   - role: what will be asked for.
  public init(
    connectingTo path: String, application: String, role: ControlRequest.ClientRole = .application
  ) throws(Failure) {
    self.path = path
    do throws(SystemError) {
      socket = try ControlSocket(connectingTo: path)
    } catch {
      throw .unreachable(path: path, reason: String(cString: strerror(error.code)))
    }
    welcome = ControlReply.Welcome(node: "", slot: 0, engineVersion: "")
    setReceiveTimeout(seconds: Self.answerSeconds)
    let hello = ControlRequest.Body.hello(
      application: application, protocolVersion: ControlProtocol.version, role: role)
    guard case .welcome(let welcome) = try request(hello) else {
      throw .refused(ControlError(.malformed, "the engine did not answer hello"))
    }
    self.welcome = welcome
  }

  /// Asks, and waits up to 30 seconds for the answer.
  public func request(_ body: ControlRequest.Body) throws(Failure) -> ControlReply.Body {
    let id = nextID
    nextID += 1
    try send(ControlRequest(id: id, body: body))
    var whole: ControlReply?
    while true {
      let part: ControlReply
      switch try receive() {
      case .reply(let reply): part = reply
      case .event(let event):
        if events.count == Self.eventLimit { events.removeFirst() }
        events.append(event)
        continue
      }
      // 0 is the answer to a client that is not let in.
      guard part.id == id || part.id == 0 else { continue }
      do throws(ControlError) {
        if whole == nil { whole = part } else { try whole?.append(part) }
      } catch {
        throw .refused(error)
      }
      guard let reply = whole, !reply.more else { continue }
      switch reply.outcome {
      case .success(let body): return body
      case .failure(let error): throw .refused(error)
      }
    }
  }

  /// Waits for the next event, without limit; after a `subscribe`.
  public func nextEvent() throws(Failure) -> ControlEvent {
    guard events.isEmpty else { return events.removeFirst() }
    setReceiveTimeout(seconds: 0)
    while true {
      if case .event(let event) = try receive() { return event }
    }
  }

  /// The events that came while answers were awaited, of which 1,024 are kept.
  public func takeEvents() -> [ControlEvent] {
    defer { events = [] }
    return events
  }

  private func send(_ request: ControlRequest) throws(Failure) {
    let message: [UInt8]
    do throws(ControlError) { message = try request.message() } catch { throw .refused(error) }
    do throws(ControlSocketError) {
      try socket.send(message, waiting: true)
    } catch {
      // An engine that lets nobody in has closed already; what it said about that is still there to be read.
      guard error == .ended else { throw .unreachable(path: path, reason: error.description) }
    }
  }

  private func receive() throws(Failure) -> EngineMessage {
    let bytes: [UInt8]
    do throws(ControlSocketError) {
      let message = try socket.receive(waiting: true)
      bytes = message.bytes
    } catch {
      switch error {
      case .wouldBlock:
        throw .unreachable(path: path, reason: "no answer within \(Self.answerSeconds) seconds")
      case .ended: throw .unreachable(path: path, reason: "the engine ended the connection")
      default: throw .unreachable(path: path, reason: error.description)
      }
    }
    do throws(ControlError) { return try EngineMessage(reading: bytes) } catch { throw .refused(error) }
  }

  private func setReceiveTimeout(seconds: Int) {
    var timeout = timeval(tv_sec: seconds, tv_usec: 0)
    let result = setsockopt(
      socket.descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
    precondition(result == 0, "a Unix socket takes a receive timeout")
  }
}

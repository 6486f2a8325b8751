// Theory of operation
//
// One thread owns the receiving side of the control socket and waits in poll(2): replies resume the task that
// asked, events go to the buffer. Tasks send for themselves, without waiting; when the socket is full, the
// message goes to a queue that the thread sends from when poll says that there is room. So no call blocks a
// thread of Swift's cooperative pool, however busy or stopped the engine is. The queue holds one message for
// each call under way and is thereby bounded by the application's own calls.
//
// `begin` is the one way in: it sends a request and names who is told of the answer, on the reading thread. A
// task that waits resumes its continuation there; a thread of a program without tasks waits for a semaphore.
//
// The connection ends once: when the engine is gone, when it breaks the protocol, or when `close` shuts the
// socket down. Whatever is pending then fails, and nothing can be added any more.

import CLinux
import Control
import Descriptors
import Glibc
import Replication
import Synchronization

final class EngineConnection: Sendable {
  typealias Answer = Result<EngineAnswer, JSRError>

  private struct Pending {
    var answered: @Sendable (Answer) -> Void
    /// What has come so far of a reply in several messages.
    var partial: ControlReply?
  }

  private struct Outgoing {
    var id: UInt64
    var message: [UInt8]
    /// Lent by the call that waits for the answer.
    var descriptor: Int32?
  }

  private struct State {
    var nextID: UInt64 = EngineConnection.subscribeID + 1
    var pending: [UInt64: Pending] = [:]
    var queue: [Outgoing] = []
    var ended = false
  }

  private static let helloID: UInt64 = 1
  private static let subscribeID: UInt64 = 2
  private static let introductionSeconds = 5
  private static let threadName = "jsr-session"

  private let socket: ControlSocket
  /// Made readable to tell the thread that the queue is no longer empty.
  private let wake: OwnedDescriptor
  private let state = Mutex(State())
  let events = EventBuffer()

  private init(connectingTo path: String) throws(SystemError) {
    socket = try ControlSocket(connectingTo: path)
    wake = try OwnedDescriptor(
      returnedBy: "eventfd", eventfd(0, Int32(EFD_NONBLOCK | EFD_CLOEXEC)))
  }

  /// Those that are open as long as the connection.
  var descriptors: [Int32] { [socket.descriptor, wake.rawValue] }

  // MARK: - Connecting

  /// Why there is no connection.
  struct OpenFailure: Error {
    let error: JSRError
    /// The errno value that says the same, as far as a system call failed; 0 if the engine refused.
    let code: Int32
  }

  /// Connects, says hello and subscribes, on a thread that then goes on as the connection's reader.
  static func open(
    path: String, application: String
  ) async throws(JSRError) -> (EngineConnection, ControlReply.Welcome) {
    typealias Opened = Result<(EngineConnection, ControlReply.Welcome), JSRError>
    let opened: Opened = await withCheckedContinuation { continuation in
      do throws(SystemError) {
        let thread = try LibraryThread.start(named: Self.threadName) {
          let connection: EngineConnection
          do throws(OpenFailure) {
            let welcome: ControlReply.Welcome
            (connection, welcome) = try introduce(path: path, application: application)
            continuation.resume(returning: .success((connection, welcome)))
          } catch {
            continuation.resume(returning: .failure(error.error))
            return
          }
          connection.run()
        }
        pthread_detach(thread)
      } catch {
        continuation.resume(returning: .failure(.unreachable(path: path, reason: error.description)))
      }
    }
    return try opened.get()
  }

  /// Does the same on the calling thread, and then starts the reader, which whoever closes the connection
  /// joins.
  static func openAndWait(
    path: String, application: String
  ) throws(OpenFailure) -> (EngineConnection, ControlReply.Welcome, reader: pthread_t) {
    let (connection, welcome) = try introduce(path: path, application: application)
    do throws(SystemError) {
      return (connection, welcome, try LibraryThread.start(named: threadName) { connection.run() })
    } catch {
      throw OpenFailure(error: .unreachable(path: path, reason: error.description), code: error.code)
    }
  }

  private static func introduce(
    path: String, application: String
  ) throws(OpenFailure) -> (EngineConnection, ControlReply.Welcome) {
    func unreachable(_ code: Int32, _ reason: String) -> OpenFailure {
      OpenFailure(error: .unreachable(path: path, reason: reason), code: code)
    }
    do {
      let connection = try EngineConnection(connectingTo: path)
      let welcome = try connection.introduce(application: application)
      return (connection, welcome)
    } catch let error as JSRError {
      throw OpenFailure(error: error, code: 0)
    } catch let error as ControlError {
      throw OpenFailure(
        error: error.code == .malformed
          ? .misunderstood(error.message) : .refused(error.code, message: error.message), code: 0)
    } catch let error as SystemError {
      throw unreachable(error.code, String(cString: strerror(error.code)))
    } catch ControlSocketError.wouldBlock {
      throw unreachable(ETIMEDOUT, "no answer within \(introductionSeconds) seconds")
    } catch {
      throw unreachable(ECONNRESET, "\(error)")
    }
  }

  private func introduce(application: String) throws -> ControlReply.Welcome {
    setReceiveTimeout(seconds: Self.introductionSeconds)
    defer { setReceiveTimeout(seconds: 0) }
    let requests = [
      ControlRequest(
        id: Self.helloID, body: .hello(application: application, protocolVersion: ControlProtocol.version)),
      ControlRequest(id: Self.subscribeID, body: .subscribe(.own)),
    ]
    for request in requests {
      let message = try request.message()
      // An engine that lets nobody in has closed already; what it said about that is still there to be read.
      do throws(ControlSocketError) {
        try socket.send(message, waiting: true)
      } catch {
        guard error == .ended else { throw error }
      }
    }
    var welcome: ControlReply.Welcome?
    while true {
      switch try receiveOne() {
      case .event(let event):
        events.append(Event(event))
      case .reply(let reply):
        switch reply.outcome {
        case .failure(let error):
          throw error
        case .success(.welcome(let value)):
          welcome = value
        case .success(.done) where reply.id == Self.subscribeID:
          guard let welcome else { throw JSRError.misunderstood("there was no answer to hello") }
          return welcome
        default:
          throw JSRError.misunderstood("another answer came than the one to hello")
        }
      }
    }
  }

  private func receiveOne() throws -> EngineMessage {
    let message = try socket.receive(waiting: true)
    return try EngineMessage(reading: message.bytes)
  }

  private func setReceiveTimeout(seconds: Int) {
    var timeout = timeval(tv_sec: seconds, tv_usec: 0)
    let result = setsockopt(
      socket.descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
    precondition(result == 0, "a Unix socket takes a receive timeout")
  }

  // MARK: - Calls

  /// Sends a request and waits for its answer.
  ///
  /// - Parameter descriptor: goes with the request; must stay open until the answer is there.
  func call(_ body: ControlRequest.Body, lending descriptor: Int32? = nil) async throws(JSRError)
    -> EngineAnswer
  {
    let answer: Answer = await withCheckedContinuation { continuation in
      begin(body, lending: descriptor) { continuation.resume(returning: $0) }
    }
    return try answer.get()
  }

  /// Does the same for a thread, which waits. An engine that does not answer in time hangs: the connection is
  /// ended then, so that it is certain for every call who owns its socket.
  func callAndWait(
    _ body: ControlRequest.Body, lending descriptor: Int32? = nil, within time: Duration
  ) throws(CallFailure) -> EngineAnswer {
    let awaited = AwaitedAnswer()
    begin(body, lending: descriptor) { awaited.put($0) }
    let inTime = awaited.wait(for: time)
    if !inTime {
      close()
      awaited.wait()
    }
    switch awaited.answer {
    // It came at the last moment.
    case .success(let answer): return answer
    case .failure(let error): throw inTime ? .failed(error) : .timedOut
    }
  }

  /// Sends a request.
  ///
  /// - Parameters:
  ///   - descriptor: goes with the request; must stay open until the answer is there.
  ///   - answered: called once, on the reading thread, or before this returns.
  private func begin(
    _ body: ControlRequest.Body, lending descriptor: Int32?, _ answered: @escaping @Sendable (Answer) -> Void
  ) {
    let failure = state.withLock { state -> JSRError? in
      guard !state.ended else { return .engineGone }
      let id = state.nextID
      state.nextID += 1
      let outgoing: Outgoing
      do throws(ControlError) {
        outgoing = Outgoing(
          id: id, message: try ControlRequest(id: id, body: body).message(), descriptor: descriptor)
      } catch {
        return .misunderstood(error.message)
      }
      if state.queue.isEmpty {
        do throws(ControlSocketError) {
          try send(outgoing)
        } catch .wouldBlock {
          state.queue.append(outgoing)
          eventfd_write(wake.rawValue, 1)
        } catch .ended {
          return .engineGone
        } catch {
          return .refused(.system, message: "the request could not be sent: \(error)")
        }
      } else {
        state.queue.append(outgoing)
      }
      state.pending[id] = Pending(answered: answered)
      return nil
    }
    if let failure { answered(.failure(failure)) }
  }

  /// Ends the connection; the reading thread does the rest.
  func close() { socket.shutdown() }

  private func send(_ outgoing: Outgoing) throws(ControlSocketError) {
    try socket.send(outgoing.message, descriptors: outgoing.descriptor.map { [$0] } ?? [], waiting: false)
  }

  // MARK: - The reading thread

  private func run() {
    while true {
      let hasQueue = state.withLock { !$0.queue.isEmpty }
      var descriptors = [
        pollfd(fd: socket.descriptor, events: Int16(POLLIN | (hasQueue ? POLLOUT : 0)), revents: 0),
        pollfd(fd: wake.rawValue, events: Int16(POLLIN), revents: 0),
      ]
      guard poll(&descriptors, nfds_t(descriptors.count), -1) >= 0 || errno == EINTR else { break }
      if descriptors[1].revents != 0 {
        var count = eventfd_t()
        eventfd_read(wake.rawValue, &count)
      }
      if descriptors[0].revents & Int16(POLLOUT) != 0 { flush() }
      if descriptors[0].revents & Int16(POLLIN | POLLHUP | POLLERR) != 0, !receiveAll() { break }
    }
    end()
  }

  private func flush() {
    while true {
      let failed = state.withLock { state -> (Pending?, JSRError)? in
        guard let outgoing = state.queue.first else { return nil }
        do throws(ControlSocketError) {
          try send(outgoing)
          state.queue.removeFirst()
          return (nil, .engineGone)
        } catch .wouldBlock, .ended {
          return nil
        } catch {
          state.queue.removeFirst()
          return (
            state.pending.removeValue(forKey: outgoing.id),
            .refused(.system, message: "the request could not be sent: \(error)")
          )
        }
      }
      guard let (pending, error) = failed else { return }
      pending?.answered(.failure(error))
    }
  }

  /// - Returns: whether the connection goes on.
  private func receiveAll() -> Bool {
    while true {
      do throws(ControlSocketError) {
        let message = try socket.receive(waiting: false)
        guard deliver(message) else { return false }
      } catch .wouldBlock {
        return true
      } catch {
        return false
      }
    }
  }

  /// - Returns: `false` if the message breaks the protocol.
  private func deliver(_ message: consuming ControlMessage) -> Bool {
    var message = message
    do throws(ControlError) {
      switch try EngineMessage(reading: message.bytes) {
      case .event(let event):
        events.append(Event(event))
      case .reply(let reply):
        let complete = try state.withLock { state throws(ControlError) -> (Pending, ControlReply)? in
          guard var pending = state.pending[reply.id] else {
            throw ControlError(.malformed, "a reply to no request")
          }
          var whole = reply
          if var partial = pending.partial {
            try partial.append(reply)
            whole = partial
          }
          guard !reply.more else {
            pending.partial = whole
            state.pending[reply.id] = pending
            return nil
          }
          state.pending[reply.id] = nil
          return (pending, whole)
        }
        guard let (pending, whole) = complete else { return true }
        switch whole.outcome {
        case .success(let body):
          let descriptors = message.takeDescriptors()
          pending.answered(.success(EngineAnswer(body, descriptors: descriptors)))
        case .failure(let error):
          pending.answered(.failure(.refused(error.code, message: error.message)))
        }
      }
      return true
    } catch {
      return false
    }
  }

  private func end() {
    let pending = state.withLock { state in
      state.ended = true
      // The descriptors lent with these go back to their callers below.
      state.queue = []
      defer { state.pending = [:] }
      return state.pending.values.map(\.answered)
    }
    socket.shutdown()
    for answered in pending { answered(.failure(.engineGone)) }
    events.end()
  }
}

import Control
import Descriptors
import Glibc
import Replication

/// A session for threads that wait: what `Session` is for tasks, over the same connection. The C library is
/// made of it.
///
/// Calls are safe from several threads at once, except that nobody may be in one when `close()` is called.
package final class BlockingSession: Sendable {
  /// Why there is no session.
  package struct ConnectFailure: Error {
    package let error: JSRError
    /// The errno value that says the same, as far as a system call failed; 0 if the engine refused.
    package let code: Int32
  }

  package let node: String
  package let slot: UInt8
  package let engineVersion: String

  private let connection: EngineConnection
  private let reader: pthread_t

  /// Connects to the engine that listens at `path`; waits 5 seconds at most for each of its answers.
  package init(path: String, application: String) throws(ConnectFailure) {
    do throws(EngineConnection.OpenFailure) {
      let (connection, welcome, reader) = try EngineConnection.openAndWait(
        path: path, application: application)
      self.connection = connection
      self.reader = reader
      node = welcome.node
      slot = welcome.slot
      engineVersion = welcome.engineVersion
    } catch {
      throw ConnectFailure(error: error.error, code: error.code)
    }
  }

  /// Ends the session, and returns when its thread is gone. To be called once, as the last call.
  package func close() {
    connection.close()
    pthread_join(reader, nil)
  }

  /// Descriptors by which the engine knows that the application lives. A child process that goes on without
  /// `exec` has to close them.
  package var descriptors: [Int32] { connection.descriptors }

  // MARK: - Events

  /// A descriptor that is readable as long as `nextEvent()` has something to give, and for ever after the last
  /// event. The session owns it.
  package func eventDescriptor() throws(SystemError) -> Int32 { try connection.events.descriptor() }

  /// The next event, if there is one now.
  package func nextEvent() -> EventBuffer.Taken { connection.events.take() }

  // MARK: - Calls, as in `Session`

  package func allocate(within time: Duration) throws(CallFailure) -> Handle {
    try call(.allocate, within: time) { answer throws(JSRError) in try answer.requireHandle() }
  }

  package func free(_ handle: Handle, within time: Duration) throws(CallFailure) {
    try done(.free(handle), within: time)
  }

  /// - Parameter descriptor: stays the caller's, who must leave it alone until this returns.
  package func replicate(
    _ descriptor: Int32, primary: Handle, secondary: Handle, within time: Duration
  ) throws(CallFailure) {
    try done(.replicate(primary: primary, secondary: secondary), lending: descriptor, within: time)
  }

  package func unreplicate(_ handle: Handle, within time: Duration) throws(CallFailure) {
    try done(.unreplicate(handle), within: time)
  }

  /// Closes `socket` in any case.
  package func close(
    _ socket: consuming Socket, handle: Handle, within time: Duration
  ) throws(CallFailure) {
    _ = consume socket
    try done(.close(handle), within: time)
  }

  package func attach(
    primary: Handle, transport: TransportProtocol = .tcp, within time: Duration
  ) throws(CallFailure) -> SnoopPair {
    try call(.attach(primary: primary, transport: transport), within: time) { answer throws(JSRError) in
      try answer.takePair()
    }
  }

  package func register(service: String, within time: Duration) throws(CallFailure) {
    try done(.registerService(service), within: time)
  }

  package func unregister(service: String, within time: Duration) throws(CallFailure) {
    try done(.unregisterService(service), within: time)
  }

  /// - Parameter descriptor: stays the caller's, who must leave it alone until this returns.
  package func replicate(
    _ descriptor: Int32, primary: Handle, service: String, note: [UInt8], within time: Duration
  ) throws(CallFailure) {
    try done(
      .requestReplication(primary: primary, service: service, note: note), lending: descriptor, within: time)
  }

  /// - Parameter primary: of the request.
  package func accept(primary: Handle, within time: Duration) throws(CallFailure) -> SnoopPair {
    try call(.acceptReplication(primary: primary), within: time) { answer throws(JSRError) in
      try answer.takePair()
    }
  }

  package func decline(primary: Handle, reason: String, within time: Duration) throws(CallFailure) {
    try done(.declineReplication(primary: primary, reason: reason), within: time)
  }

  package func merge(
    _ handle: Handle, signingKey: [UInt8]? = nil, within time: Duration
  ) throws(CallFailure) -> Socket {
    try call(.merge(handle, signingKey: signingKey), within: time) { answer throws(JSRError) in
      try answer.requireDone()
      return try answer.takeSocket()
    }
  }

  package func beginRecords(
    _ handle: Handle, within time: Duration
  ) throws(CallFailure) -> BlockingRecords {
    try call(.beginRecords(handle), within: time) { answer throws(JSRError) in
      BlockingRecords(try answer.requireRecordSender(handle))
    }
  }

  package func status(of handle: Handle, within time: Duration) throws(CallFailure) -> SocketStatus {
    try call(.status(handle), within: time) { answer throws(JSRError) in
      guard case .socket(let report) = answer.body else { throw EngineAnswer.unexpected }
      return SocketStatus(report)
    }
  }

  package func role(within time: Duration) throws(CallFailure) -> Role {
    try call(.show(.status), within: time) { answer throws(JSRError) in
      guard case .status(let report) = answer.body else { throw EngineAnswer.unexpected }
      return report.role
    }
  }

  private func done(
    _ request: ControlRequest.Body, lending descriptor: Int32? = nil, within time: Duration
  ) throws(CallFailure) {
    try call(request, lending: descriptor, within: time) { answer throws(JSRError) in
      try answer.requireDone()
    }
  }

  private func call<Value: ~Copyable>(
    _ request: ControlRequest.Body, lending descriptor: Int32? = nil, within time: Duration,
    reading read: (EngineAnswer) throws(JSRError) -> Value
  ) throws(CallFailure) -> Value {
    let answer = try connection.callAndWait(request, lending: descriptor, within: time)
    do throws(JSRError) {
      return try read(answer)
    } catch {
      throw .failed(error)
    }
  }
}

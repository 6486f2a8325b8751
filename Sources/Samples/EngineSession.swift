import JSR

/// What the echo server asks of an engine: the part of `JSR.Session` that it uses, so that its tests can run
/// two instances against an engine of their own.
protocol EngineSession: AnyObject, Sendable {
  var node: String { get }
  var slot: UInt8 { get }
  var engineVersion: String { get }
  var events: AsyncStream<Event> { get }

  func close()
  func role() async throws(JSRError) -> Role
  func allocate() async throws(JSRError) -> Handle
  func free(_ handle: Handle) async throws(JSRError)
  func replicate(
    _ socket: consuming Socket, primary: Handle, secondary: Handle
  ) async -> ReplicationOutcome
  func unreplicate(_ handle: Handle) async throws(JSRError)
  func close(_ socket: consuming Socket, handle: Handle) async throws(JSRError)
  func beginRecords(_ handle: Handle) async throws(JSRError) -> RecordChannel
  func register(service: String) async throws(JSRError)
  func replicate(
    _ socket: consuming Socket, primary: Handle, service: String, note: [UInt8]
  ) async -> ReplicationOutcome
  func accept(_ request: RequestedReplication) async throws(JSRError) -> SnoopPair
  func decline(_ request: RequestedReplication, reason: String) async throws(JSRError)
  func attach(primary: Handle, transport: TransportProtocol) async throws(JSRError) -> SnoopPair
  func merge(_ handle: Handle, signingKey: [UInt8]?) async throws(JSRError) -> Socket
}

extension Session: EngineSession {}

import JSR

/// What the engine's answers and events look like when they reach the loop of the echo server.
enum EngineNotice: Sendable {
  /// A session is there; with the part that its routing engine plays.
  case ready(any EngineSession, Role)
  /// No session can be had at the moment; tried again.
  case unreachable(JSRError)
  case event(Event)
  case allocated(connection: UInt64, Result<Handle, JSRError>)
  /// The handshake is over and the descriptor is back, replicated unless there is a refusal.
  case handshakeOver(connection: UInt64, refusal: JSRError?)
  case recordsBegan(connection: UInt64, Result<EchoRecords, JSRError>)
  case unreplicationRefused(connection: UInt64, JSRError)
  case attached(primary: Handle, ResumePoint, Result<AnswerMessage.Pair, JSRError>)
  case merged(Handle, Result<Int32, JSRError>)
  case closed(Handle, refusal: JSRError?)
  /// End as on SIGTERM.
  case stop
}

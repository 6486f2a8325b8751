import Control

/// The record interface of one replicated socket: what is given here reaches the peer whole or not at all, whoever is
/// primary in the end.
///
/// Records are numbered from 1. A record is *accepted* when the engine has all of it, and *safe* when the other routing
/// engine has it too; it leaves for the peer only then. Records may be given without waiting for those before. If the
/// application dies, what it has given whole is still sent.
///
/// Letting the channel go ends record mode, behind all that was given.
public struct RecordChannel: ~Copyable, Sendable {
  /// Where a channel stands.
  public enum State: Sendable, Hashable {
    case open
    /// No more records are taken; so many were accepted, and all of these are written to the socket, which is the
    /// application's to write to again.
    case ended(accepted: UInt64)
    /// The connection is the other routing engine's, or gone; so many records are known to be safe.
    case moved(safe: UInt64)
    /// The engine ended in the middle of it.
    case engineGone
  }

  private let sender: RecordSender

  init(_ sender: RecordSender) { self.sender = sender }

  deinit { sender.end() }

  /// The socket.
  public var handle: Handle { sender.handle }
  /// Bytes of one record, at most (`limits.record` of the engine's configuration).
  public var recordLimit: Int { sender.limit }
  /// Where the channel stands, as far as the engine has said.
  public var state: State { sender.state }
  /// How many records are known to be safe.
  public var safeCount: UInt64 { sender.safeCount }

  /// For `poll` and `epoll` only: writable when ``trySend(_:)`` may take a record again, and readable for good at the
  /// end of the channel. Open as long as the channel.
  public var descriptor: Int32 { sender.descriptor }

  /// Gives a record if that is possible without waiting.
  ///
  /// - Returns: its number; `nil` if it was not taken, because the one before is still on its way to the engine.
  /// - Throws: `.recordSize`; `.recordsEnded`, `.connectionMoved` or `.engineGone` if the channel has ended.
  public func trySend(_ record: [UInt8]) throws(JSRError) -> UInt64? { try sender.trySend(record) }

  /// Gives a record, and waits until the channel has room for all of it: that is how a slow peer slows the application.
  ///
  /// - Returns: its number.
  /// - Throws: as ``trySend(_:)``. After `.recordsEnded` the number of accepted records tells whether this one is among
  ///   them: it is not, unless an earlier call has returned its number.
  @discardableResult
  public func send(_ record: [UInt8]) async throws(JSRError) -> UInt64 { try await sender.send(record) }

  /// Waits until the other routing engine has the record, or it is written to a socket that is not replicated any more.
  public func waitUntilSafe(_ number: UInt64) async throws(JSRError) {
    try await sender.waitUntilSafe(number)
  }

  /// Ends record mode: waits until all that was given is written to the socket, which the application may then write to
  /// itself.
  ///
  /// - Returns: how many records were accepted.
  /// - Throws: `.connectionMoved` or `.engineGone`.
  @discardableResult
  public consuming func end() async throws(JSRError) -> UInt64 {
    sender.end()
    return try await sender.waitForEnd()
  }
}

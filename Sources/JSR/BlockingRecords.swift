import Descriptors

/// The record interface of one replicated socket for threads that wait: what `RecordChannel` is for tasks.
///
/// Calls are safe from several threads at once, except that nobody may be in one when `letGo()` is called.
package final class BlockingRecords: Sendable {
  private let sender: RecordSender

  init(_ sender: RecordSender) { self.sender = sender }

  /// Bytes of one record, at most.
  package var recordLimit: Int { sender.limit }

  /// How many records were given.
  package var givenCount: UInt64 { sender.givenCount }

  /// By which the engine knows that the application lives. A child process that goes on without `exec` has to close it.
  package var descriptor: Int32 { sender.descriptor }

  /// Gives a record, and waits for room as long as `time` allows; for ever if it is `nil`.
  ///
  /// - Returns: its number; `nil` if there was no room in time.
  package func send(_ record: UnsafeRawBufferPointer, within time: Duration?) throws(JSRError) -> UInt64? {
    try sender.send(record, within: time)
  }

  /// Waits until the other routing engine has the record, or it is written to a socket that is not replicated any more.
  ///
  /// - Returns: whether that was in time.
  package func waitUntilSafe(_ number: UInt64, within time: Duration?) throws(JSRError) -> Bool {
    try sender.waitUntilSafe(number, within: time)
  }

  /// Where the channel stands, as far as the engine has said; no news any more from then on.
  package func takeNews() -> (state: RecordChannel.State, givenCount: UInt64, safeCount: UInt64) {
    sender.takeNews()
  }

  /// A descriptor that is readable while there is news: something that `takeNews` has not told, or room again after
  /// `send` found none; and for ever after the end.
  package func newsDescriptor() throws(SystemError) -> Int32 { try sender.signal() }

  /// Ends record mode, and waits until all that was given is written to the socket.
  ///
  /// - Returns: how many records were accepted; `nil` if it takes longer.
  package func end(within time: Duration?) throws(JSRError) -> UInt64? {
    sender.end()
    return try sender.waitForEnd(within: time)
  }

  /// Ends record mode without waiting for it. To be called once, as the last call.
  package func letGo() {
    sender.end()
    sender.closeSignal()
  }
}

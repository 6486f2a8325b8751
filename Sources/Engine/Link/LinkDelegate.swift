import Replication

/// Whom ``Link`` tells what it hears. Called on the link's event loop only, and never from within a call to
/// the link: what the connection says while it is being written to is told in a later turn of the loop.
protocol LinkDelegate: AnyObject {
  /// The connection is there; nothing has been sent or heard.
  func linkOpened()

  /// Bytes came in, behind those of the call before.
  ///
  /// - Parameter moreFollows: more are there already, and come with the next call.
  /// - Returns: how many were used; the others come again, with what follows them.
  func linkReceived(_ bytes: UnsafeRawBufferPointer, moreFollows: Bool) -> Int

  /// There are no more bytes for now.
  func linkBatchEnded()

  /// The connection is gone, and all that came over it has been told.
  func linkEnded(_ ending: LinkEnding)

  /// There will never be a connection.
  func linkFailed(because reason: String)
}

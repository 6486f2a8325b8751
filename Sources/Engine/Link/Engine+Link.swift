import Logging
import NIOCore
import Packet
import Replication

// What comes in from the other RE.
extension Engine {
  func linkOpened() {
    node.linkOpened(now: Self.now())
    settle()
  }

  func linkEnded(byPeer: Bool, carrierLost: Bool) {
    node.linkClosed(byPeer: byPeer, carrierLost: carrierLost, now: Self.now())
    settle()
  }

  func closeLink(because reason: String) {
    logger.warning("KKCM link closed: \(reason)")
    link.flush()
    link.drop()
    node.linkClosed(byPeer: false, carrierLost: false, now: Self.now())
  }

  /// - Returns: how many of the bytes were used.
  func linkReceived(_ bytes: UnsafeRawBufferPointer) -> Int {
    let now = Self.now()
    let used = node.linkReceived(bytes, now: now)
    // Acknowledge first: the other RE's packets wait for it, while the snooper is in no hurry. What is
    // acknowledged has its room in the snoop buffers set aside.
    var deferred: [Action] = []
    while !node.actions.isEmpty {
      var batch = takeBatch()
      for action in batch {
        switch action {
        case .snoop(let handle, let stream, let range):
          if reserveSnoop(range.count, handle, stream) { deferred.append(action) }
        case .snoopOwned(let handle, let stream, let piece):
          if reserveSnoop(piece.count, handle, stream) { deferred.append(action) }
        case .endSnoop: deferred.append(action)
        default: perform(action, .link(bytes))
        }
      }
      giveBack(&batch)
    }
    flushSteering()
    node.linkBatchEnded(now: now)
    settle()
    for action in deferred { perform(action, .link(bytes)) }
    settle()
    return used
  }
}

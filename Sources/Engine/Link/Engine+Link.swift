import Control
import Glibc
import Logging
import NIOCore
import Packet
import Replication

// What comes in from the other RE.
extension Engine: LinkDelegate {
  func linkOpened() {
    node.linkOpened(now: Self.now())
    settle()
  }

  func linkEnded(_ ending: LinkEnding) {
    node.linkClosed(ending, now: Self.now())
    settle()
  }

  /// Warns of what an operator should change about the protection of the link.
  func warnOfLinkSecurity() {
    guard let linkCredentials else {
      return logger.warning(
        "link.insecure: the inter-RE link is plain text, and whoever reaches its port can speak for the other RE"
      )
    }
    for warning in linkCredentials.warnings + linkCredentials.expiryWarnings(now: time(nil)) {
      logger.warning("\(warning)")
    }
  }

  func linkBatchEnded() {
    settle()
    stayAwake()
  }

  func linkFailed(because reason: String) { fail(because: reason) }

  func closeLink(because reason: String) {
    // Engines that cannot speak with each other find that out again and again.
    let isKnown =
      node.linkVersion == nil && refusal?.reason == reason
      && Self.now() - refusal!.saidAt < Self.refusalInterval
    logger.log(level: isKnown ? .debug : .warning, "KKCM link closed: \(reason)")
    if node.linkVersion != nil {
      refusal = nil
    } else if !isKnown {
      refusal = (reason, Self.now())
    }
    link.flush()
    link.drop()
    node.linkClosed(.closedHere, now: Self.now())
  }

  func linkReceived(_ bytes: UnsafeRawBufferPointer, moreFollows: Bool) -> Int {
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
        case .snoopDatagram(let handle, let stream, _, _, let range):
          if reserveSnoop(SnoopedDatagram.headerByteCount + range.count, handle, stream) {
            deferred.append(action)
          }
        case .snoopOwnedDatagram(let handle, let stream, let datagram):
          if reserveSnoop(SnoopedDatagram.headerByteCount + datagram.payload.count, handle, stream) {
            deferred.append(action)
          }
        case .endSnoop: deferred.append(action)
        case .unreplicated:
          // What was said before it is shown first: behind it there is no pair any more.
          for action in deferred { perform(action, .link(bytes)) }
          deferred = []
          perform(action, .link(bytes))
        default: perform(action, .link(bytes))
        }
      }
      giveBack(&batch)
    }
    if !steeringAdditions.isEmpty {
      // A handshake is complete, which may end streams: what comes before the end is shown before it.
      for action in deferred { perform(action, .link(bytes)) }
      deferred = []
    }
    flushSteering()
    if !moreFollows {
      node.linkBatchEnded(now: now)
      settle()
    }
    for action in deferred { perform(action, .link(bytes)) }
    settle()
    return used
  }
}

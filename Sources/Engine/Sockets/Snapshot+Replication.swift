import LinuxNetworking
import Packet
import Replication

// What the kernel says of a socket, in the words of the protocol, and back.

extension SocketSnapshot {
  init(_ snapshot: TCPSnapshot) {
    // The kernel counts a FIN in its sequence numbers, and so does the control block.
    let finReceived = snapshot.finReceived ? 1 : 0
    let block = ControlBlock(
      sendUnacknowledged: snapshot.finAcknowledged
        ? snapshot.sendUnacknowledged + 1 : snapshot.sendUnacknowledged,
      sendNext: snapshot.finSent ? snapshot.sendNext + 1 : snapshot.sendNext,
      sendWindow: snapshot.sendWindow, sendWindowUpdate: snapshot.sendWindowUpdate,
      maximumSendWindow: snapshot.maximumSendWindow, receiveAcknowledged: snapshot.receiveAcknowledged,
      receiveNext: snapshot.receiveNext + finReceived, receiveWindow: snapshot.receiveWindow,
      timestampRecent: 0, timestampSent: snapshot.timestamp,
      negotiated: NegotiatedOptions(
        maximumSegmentSize: snapshot.maximumSegmentSize, sendWindowScale: snapshot.sendWindowScale,
        receiveWindowScale: snapshot.receiveWindowScale, sackPermitted: snapshot.sackPermitted,
        timestamps: snapshot.timestampsEnabled))
    self.init(
      block: block, sendQueue: snapshot.sendQueue, receiveQueue: snapshot.receiveQueue,
      finSent: snapshot.finSent, finAcknowledged: snapshot.finAcknowledged,
      finReceived: snapshot.finReceived,
      options: snapshot.options.encoded(isIPv6Socket: snapshot.isIPv6Socket))
  }
}

extension SocketOptions {
  /// In the form in which a snapshot has them: behind the family of the socket.
  func encoded(isIPv6Socket: Bool) -> [UInt8] { [isIPv6Socket ? 1 : 0] + encode() }

  /// Reads them in the form in which a ``SocketSnapshot`` has them, behind the family of the socket.
  init(_ encoded: [UInt8]) throws(SnapshotDecodingError) { try self.init(decoding: encoded.dropFirst()) }
}

extension TCPSnapshot {
  init(_ plan: StreamMergePlan, receiveQueue: [UInt8]) throws(MergeError) {
    let block = plan.block
    let options: SocketOptions
    do throws(SnapshotDecodingError) {
      options = try SocketOptions(plan.options)
    } catch { throw .options(error) }
    let end = plan.sendUnacknowledged + plan.sendQueue.count
    self.init(
      local: plan.flow.local, remote: plan.flow.remote, isIPv6Socket: plan.options.first == 1,
      sendUnacknowledged: plan.sendUnacknowledged, sendNext: plan.sendUnacknowledged + plan.sentCount,
      writeSequence: end,
      receiveNext: plan.receiveNext, sendQueue: plan.sendQueue, receiveQueue: receiveQueue,
      sendWindow: block.sendWindow,
      // The kernel refuses a window update from beyond the receive window.
      sendWindowUpdate: .earlier(block.sendWindowUpdate, plan.receiveNext),
      maximumSendWindow: max(block.maximumSendWindow, block.sendWindow),
      receiveAcknowledged: plan.receiveNext, receiveWindow: plan.receiveWindow,
      sendWindowScale: block.negotiated.sendWindowScale,
      receiveWindowScale: block.negotiated.receiveWindowScale,
      maximumSegmentSize: block.negotiated.maximumSegmentSize,
      sackPermitted: block.negotiated.sackPermitted, timestampsEnabled: block.negotiated.timestamps,
      // The lowest bit says that the clock ticks in microseconds, which a restored socket's does not.
      timestamp: (plan.timestamp &+ 1) & ~1, options: options)
  }
}

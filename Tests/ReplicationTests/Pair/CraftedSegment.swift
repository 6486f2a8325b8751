import Packet
import Simulation

/// A frame of a conversation with whatever header fields a test wants.
struct CraftedSegment {
  var sequence: SequenceNumber
  var acknowledgment: SequenceNumber
  var flags: TCPFlags = .ack
  var window: UInt16 = 250
  var timestamp: UInt32
  var payload: [UInt8] = []

  /// What the peer would send next, if it had nothing to say.
  init(from conversation: Conversation, now: UInt32) {
    sequence = conversation.peer.sendNext
    acknowledgment = conversation.peer.acknowledgment
    timestamp = now
  }

  func fromPeer(_ conversation: Conversation) -> [UInt8] {
    ModelTCP.Output(
      sequence: sequence, acknowledgment: acknowledgment, flags: flags, window: window,
      timestamps: TCPTimestamps(value: timestamp, echo: 0), payload: payload
    ).frame(from: conversation.flow.remote, to: conversation.flow.local)
  }
}

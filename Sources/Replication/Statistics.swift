/// What the protocol has counted since it started.
public struct Statistics: Sendable, Hashable {
  public var inboundPackets: UInt64 = 0
  public var outboundPackets: UInt64 = 0
  /// Packets of flows that are not replicated: they were on their way when steering changed.
  public var strayPackets: UInt64 = 0
  public var passedAtOnce: UInt64 = 0
  public var held: UInt64 = 0
  public var releasedAfterAcknowledgement: UInt64 = 0
  public var releasedAfterUnreplication: UInt64 = 0
  public var discardedAfterHandover: UInt64 = 0
  public var droppedForGap: UInt64 = 0
  /// Outgoing segments that acknowledged what was not in the log.
  public var droppedForUnknownAcknowledgment: UInt64 = 0
  public var droppedForLimit: UInt64 = 0
  public var droppedForChecksum: UInt64 = 0
  public var droppedAsSecondary: UInt64 = 0
  public var forwardedLate: UInt64 = 0
  public var oldDuplicates: UInt64 = 0
  public var sdrlRecordsSent: UInt64 = 0
  public var sdrlBytesSent: UInt64 = 0
  public var prlRecordsSent: UInt64 = 0
  public var prlBytesSent: UInt64 = 0
  public var psrmRecordsSent: UInt64 = 0
  public var recordsReceived: UInt64 = 0
  public var staleRecords: UInt64 = 0
  public var acknowledgementsSent: UInt64 = 0
  public var acknowledgementsReceived: UInt64 = 0
  /// Times that a secondary's slow application made a socket wait.
  public var pauses: UInt64 = 0
  public var socketsReplicated: UInt64 = 0
  public var socketsUnreplicated: UInt64 = 0
  public var socketsMerged: UInt64 = 0
  public var linkSessions: UInt64 = 0

  public init() {}
}

/// What the protocol holds at this moment. All zero when nothing is replicated and no application is
/// connected.
public struct Occupancy: Sendable, Hashable {
  /// Handles in use.
  public var sockets = 0
  /// Flows that are steered to the engine.
  public var flows = 0
  public var heldPackets = 0
  /// Bytes of held packets.
  public var heldBytes = 0
  /// Records that the other RE has not acknowledged.
  public var unacknowledgedRecords = 0
  public var unacknowledgedRecordBytes = 0
  /// Bytes that wait in the secondary for earlier ones, or for the peer's acknowledgement.
  public var bufferedBytes = 0

  public init() {}
}

/// What the protocol has counted since it started.
public struct Statistics: Sendable, Hashable {
  public var inboundPackets: UInt64 = 0
  public var outboundPackets: UInt64 = 0
  /// Packets of flows that are not replicated: they were on their way when steering changed.
  public var strayPackets: UInt64 = 0
  public var passedAtOnce: UInt64 = 0
  public var held: UInt64 = 0
  /// Outgoing packets that were held.
  public var sdrlReinjection = Reinjection()
  /// Incoming packets that were held.
  public var prlReinjection = Reinjection()
  public var droppedForGap: UInt64 = 0
  /// Outgoing copies of what the peer had acknowledged, when both directions were closed.
  public var droppedAsAcknowledged: UInt64 = 0
  /// Outgoing segments that acknowledged what was not in the log.
  public var droppedForUnknownAcknowledgment: UInt64 = 0
  public var droppedForLimit: UInt64 = 0
  /// Datagrams, of either direction, that found a buffer full: unlike a segment, nobody sends them again.
  public var datagramsDropped: UInt64 = 0
  public var droppedForChecksum: UInt64 = 0
  public var droppedAsSecondary: UInt64 = 0
  public var forwardedLate: UInt64 = 0
  public var oldDuplicates: UInt64 = 0
  public var sdrlRecordsSent: UInt64 = 0
  public var sdrlBytesSent: UInt64 = 0
  /// Records of applications, which are among those of SDRL.
  public var applicationRecords: UInt64 = 0
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

/// How the packets of one direction went on that had been held, or had waited for their socket. Each time that a
/// packet is held ends in exactly one of these ways.
public struct Reinjection: Sendable, Hashable {
  public enum Path: Sendable, Hashable, CaseIterable {
    /// The secondary has what the packet waited for.
    case acknowledged
    /// The secondary would not, or no longer, keep the socket.
    case rejected
    /// The secondary was silent for longer than a layer's timeout.
    case timedOut
    /// Replication of the socket ended for another reason.
    case unreplicated
    /// A handshake, a pause or a merge was over: it was judged again, as if it had just arrived.
    case replayed
    /// Its socket is another RE's now: it did not go on.
    case discarded
  }

  public var acknowledged: UInt64 = 0
  public var rejected: UInt64 = 0
  public var timedOut: UInt64 = 0
  public var unreplicated: UInt64 = 0
  public var replayed: UInt64 = 0
  public var discarded: UInt64 = 0

  public init() {}

  /// Packets whose socket was no longer replicated, and that went on all the same.
  public var afterUnreplication: UInt64 { rejected + timedOut + unreplicated }

  mutating func count(_ path: Path) {
    switch path {
    case .acknowledged: acknowledged += 1
    case .rejected: rejected += 1
    case .timedOut: timedOut += 1
    case .unreplicated: unreplicated += 1
    case .replayed: replayed += 1
    case .discarded: discarded += 1
    }
  }
}

/// The most that the protocol has held at any moment since it started.
public struct Peaks: Sendable, Hashable {
  public var heldPackets = 0
  /// Bytes of held packets.
  public var heldBytes = 0
  public var unacknowledgedRecords = 0
  public var unacknowledgedRecordBytes = 0

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
  /// Those of the held packets that wait for no acknowledgement, but for a handshake, a pause or a merge to be over.
  public var waitingPackets = 0
  public var waitingBytes = 0
  /// Records that the other RE has not acknowledged.
  public var unacknowledgedRecords = 0
  public var unacknowledgedRecordBytes = 0
  /// Bytes that wait in the secondary for earlier ones, or for the peer's acknowledgement.
  public var bufferedBytes = 0
  /// Those of them that wait for the peer's acknowledgement: the send queues of merges to come.
  public var replicationBufferBytes = 0

  public init() {}
}

import Packet

/// Where one handle stands.
public enum SocketPhase: Sendable, Hashable, CustomStringConvertible {
  /// A name, and nothing else yet.
  case allocated
  /// Secondary: a snoop pair waits for the handshake.
  case attached
  /// Primary: the handshake is under way; packets of the flow are held, both ways.
  case starting
  case replicating
  /// Primary: replication ends; nothing leaves until the secondary has let go of its pair.
  case ending(UnreplicateReason)
  /// The socket is an ordinary one again, or gone.
  case unreplicated(UnreplicateReason)
  /// Secondary: the handshake is under way.
  case receiving
  /// Secondary: the pair follows the primary. After a takeover: it waits to be merged.
  case snooping
  /// New primary: the kernel's socket is being made.
  case merging

  public var description: String {
    switch self {
    case .allocated: "allocated"
    case .attached: "attached"
    case .starting: "starting"
    case .replicating: "replicating"
    case .ending: "ending"
    case .unreplicated: "unreplicated"
    case .receiving: "receiving"
    case .snooping: "snooping"
    case .merging: "merging"
    }
  }
}

/// Everything the protocol knows of one handle.
struct SocketEntry {
  /// A frame that waits for its socket rather than for the log.
  struct WaitingFrame {
    var reference: FrameReference
    var byteCount: Int
    var isOutbound: Bool
    /// Of a datagram: the other end.
    var remote: Endpoint?
    /// The kernel has had it.
    var isCopy = false
  }

  /// What the kernel said last of bytes that are not in the log.
  struct RefusedAcknowledgment {
    var acknowledgment: SequenceNumber
    /// The window field.
    var window: UInt16
    var timestamps: TCPTimestamps?
    /// How far the log was, and since when.
    var logged: SequenceNumber
    var since: Instant
  }

  /// Bytes of frames that may wait for one socket while a handshake or a merge is under way.
  static let maximumWaitingBytes = 8 << 20

  let handle: Handle
  var phase = SocketPhase.allocated
  /// `nil` as long as nothing is known of the socket.
  var transport: TransportProtocol?
  /// The other RE's name for the socket.
  var peer: Handle?
  var flow: Flow?
  /// Primary: the link that the secondary's pair belongs to, by this RE's name for it.
  var session: UInt64 = 0
  /// Primary: of the last record of the handshake, once all of it is in the log.
  var handshakePosition: LogPosition?
  /// Primary: the secondary has the socket; the acknowledgement of what the handshake said may be yet to come.
  var isAccepted = false
  /// Primary: since when the secondary wants nothing new.
  var pausedSince: Instant?
  /// Primary: the kernel has what the peer sends already; what comes in here are copies.
  var isMirrored = false
  /// Primary: it was the secondary that ended replication.
  var wasRejected = false
  /// Secondary: the pair was attached for a request of the primary's instance.
  var answersRequest = false
  /// Secondary: whether it told the primary so.
  var hasPausedPrimary = false
  /// Secondary: how the socket's options were set, in the engine's encoding.
  var options: [UInt8] = []
  /// Of the last record about the socket; for the primary of a TCP socket only PSRM, the streams know their own.
  var positions = LayerPositions()
  private(set) var waiting: [WaitingFrame] = []
  private(set) var waitingBytes = 0

  // MARK: UDP

  /// Primary: datagrams that stand in the queue of held packets.
  var heldDatagrams = 0
  /// Primary: the handshake begins when what is held up to this position has gone.
  var steersBehind: LogPosition?

  // MARK: TCP

  /// Valid from the snapshot on.
  var block: ControlBlock!
  /// Primary: what of the two streams is in the log.
  var outbound: OutboundStream!
  var inbound: InboundStream!
  /// Primary: how far the secondary thinks that the kernel may have sent.
  var sendLimit: SendLimit!
  /// Primary: what the kernel has yet to take; `nil` unless the socket is in record mode.
  var records: RecordQueue?
  /// Primary: bytes of records on their way to the secondary.
  var unsafeRecordBytes = 0
  /// Primary: the size of the record that had to wait, in bytes.
  var waitingRecord: Int?
  /// Primary: the right edge that we may advertise, as the record at `announcedPosition` tells the
  /// secondary.
  private(set) var announcedEdge = SequenceNumber(0)
  private(set) var announcedPosition: LogPosition = 0
  /// Primary: how far the secondary is known to have been told.
  private var confirmedEdge = SequenceNumber(0)
  /// Primary: the control block has changed in a way that no segment record told the secondary.
  var blockIsDirty = false
  var peerClosedReported = false
  /// Primary: the kernel acknowledges what is not in the log.
  var refused: RefusedAcknowledgment?
  /// Secondary.
  var snoop: SnoopState?

  init(handle: Handle) { self.handle = handle }

  /// Primary: the handshake tells of a right edge at `edge`, and replication begins when it is over.
  mutating func beginAnnouncing(_ edge: SequenceNumber) {
    announcedEdge = edge
    confirmedEdge = edge
  }

  /// Primary: the record at `position` tells of a right edge at `edge`.
  mutating func announce(_ edge: SequenceNumber, at position: LogPosition, acknowledged: LogPosition) {
    guard edge > announcedEdge else { return }
    if announcedPosition <= acknowledged { confirmedEdge = announcedEdge }
    announcedEdge = edge
    announcedPosition = position
  }

  /// Primary: what must be acknowledged before a segment may leave that advertises a window up to `edge`,
  /// which has been announced; 0 if nothing need be.
  mutating func requirement(ofEdge edge: SequenceNumber, acknowledged: LogPosition) -> LogPosition {
    if announcedPosition <= acknowledged { confirmedEdge = announcedEdge }
    return edge > confirmedEdge ? announcedPosition : 0
  }

  /// Primary: how far the kernel may have sent once everything up to `end` is in the log: no further than that and the peer's
  /// window, nor back behind what was announced or seen. (A bare acknowledgement may have been seen that is numbered behind
  /// bytes which never came by.)
  func mayHaveSent(upTo end: SequenceNumber) -> SequenceNumber {
    let block: ControlBlock = self.block
    let window = block.sendUnacknowledged + Int(block.sendWindow)
    return .later(sendLimit.announced, .earlier(end, .later(block.sendNext, window)))
  }

  /// Keeps a frame until the handshake or merge is over; false if there are too many.
  mutating func wait(_ frame: WaitingFrame) -> Bool {
    guard waitingBytes + frame.byteCount <= Self.maximumWaitingBytes else { return false }
    waiting.append(frame)
    waitingBytes += frame.byteCount
    return true
  }

  /// Takes out the datagrams that go to or come from `remote`.
  mutating func takeWaiting(of remote: Endpoint) -> [WaitingFrame] {
    let taken = waiting.filter { $0.remote == remote }
    waiting.removeAll { $0.remote == remote }
    waitingBytes -= taken.reduce(0) { $0 + $1.byteCount }
    return taken
  }

  mutating func takeWaiting() -> [WaitingFrame] {
    defer {
      waiting = []
      waitingBytes = 0
    }
    return waiting
  }

  /// The layers that keep something of the socket. A datagram has no state beyond itself.
  var layers: [Layer] { transport == .udp ? [.prl, .sdrl] : [.prl, .psrm, .sdrl] }

  /// How held packets go on once replication has ended.
  var pathAfterEnd: Reinjection.Path {
    switch phase {
    // After a handover nothing may leave, nor be delivered to a socket that is about to die.
    case .unreplicated(.mastershipLost): .discarded
    case .unreplicated where wasRejected: .rejected
    case .unreplicated(.prlTimeout), .unreplicated(.sdrlTimeout), .unreplicated(.psrmTimeout): .timedOut
    default: .unreplicated
    }
  }
}

/// For each layer the log position of its last record about a socket; 0 before the first.
public struct LayerPositions: Sendable, Hashable {
  public var sdrl: LogPosition = 0
  public var prl: LogPosition = 0
  public var psrm: LogPosition = 0
}

/// What the secondary keeps of a TCP socket, beyond the control block.
struct SnoopState {
  var reassembly: Reassembly
  var unacknowledged: UnacknowledgedBytes
  /// Where the primary's FIN stands, once it is in the log.
  var finSent: SequenceNumber?
  /// When the control block's `timestampSent` was heard of.
  var timestampHeard: Instant
  var rcvEnded = false
  var sndEnded = false
}

/// What the handshake of a TCP socket has to bring to the secondary, as read from the kernel.
public struct SocketSnapshot: Sendable {
  public var block: ControlBlock
  /// From SND.UNA on, also what was not sent yet; without FIN.
  public var sendQueue: [UInt8]
  /// What the application has not read, up to RCV.NXT; without FIN.
  public var receiveQueue: [UInt8]
  public var finSent: Bool
  /// The peer has acknowledged our FIN: SND.UNA counts it.
  public var finAcknowledged: Bool
  public var finReceived: Bool
  /// Socket options, in the engine's own encoding.
  public var options: [UInt8]

  public init(
    block: ControlBlock, sendQueue: [UInt8], receiveQueue: [UInt8], finSent: Bool, finAcknowledged: Bool,
    finReceived: Bool, options: [UInt8]
  ) {
    self.block = block
    self.sendQueue = sendQueue
    self.receiveQueue = receiveQueue
    self.finSent = finSent
    self.finAcknowledged = finAcknowledged
    self.finReceived = finReceived
    self.options = options
  }
}

extension SocketSnapshot {
  /// Sequence number of the first byte of the send queue: SND.UNA, not counting a FIN.
  var sendStart: SequenceNumber { block.sendUnacknowledged - (finAcknowledged ? 1 : 0) }
}

/// One datagram of a UDP socket.
public struct Datagram: Sendable, Hashable {
  public var remote: Endpoint
  /// Of the same address family.
  public var local: Endpoint
  public var payload: [UInt8]

  public init(remote: Endpoint, local: Endpoint, payload: [UInt8]) {
    self.remote = remote
    self.local = local
    self.payload = payload
  }
}

/// What the handshake of a UDP socket has to bring to the secondary, as read from the kernel.
public struct DatagramSnapshot: Sendable {
  /// What the application has not read, the oldest first. Whatever else the peer sent, this RE has yet to take in.
  public var receiveQueue: [Datagram]
  /// Socket options, in the engine's own encoding.
  public var options: [UInt8]

  public init(receiveQueue: [Datagram], options: [UInt8]) {
    self.receiveQueue = receiveQueue
    self.options = options
  }
}

/// What a merge has to bring into the kernel.
public enum MergePlan: Sendable {
  case stream(StreamMergePlan)
  case datagrams(DatagramMergePlan)
}

/// What the merge of a UDP socket has to bring into the kernel, beside the datagrams that the application has not read.
///
/// There is no send queue: a datagram that is in the log may have left, and is not sent again.
public struct DatagramMergePlan: Sendable {
  public var flow: Flow
  public var options: [UInt8]
}

/// What the merge of a TCP socket has to bring into the kernel. Sequence numbers in it count no FIN.
public struct StreamMergePlan: Sendable {
  public var flow: Flow
  public var block: ControlBlock
  /// Sequence number of the first byte of `sendQueue`.
  public var sendUnacknowledged: SequenceNumber
  /// What the peer has not acknowledged.
  public var sendQueue: [UInt8]
  /// How much of `sendQueue`, from its front, may have been sent, in bytes: the kernel must believe an acknowledgement
  /// of it. The rest was certainly not.
  public var sentCount: Int
  /// Sequence number behind the last byte received in order. What the application has not read of them
  /// goes into the receive queue.
  public var receiveNext: SequenceNumber
  /// The receive window to restore, in bytes from `receiveNext`: from behind the peer's FIN, if that was
  /// received, a whole number of units of the window field.
  public var receiveWindow: UInt32
  /// The timestamp clock must start here or later.
  public var timestamp: UInt32
  public var finSent: Bool
  public var finReceived: Bool
  public var options: [UInt8]
}

public import Replication

/// One line of `show connections`: the TCP control block of a replicated socket, or what there is of a UDP one. A field without a value is
/// missing in JSON. Sequence numbers are the 32 bits of the wire (RFC 9293); windows are in bytes, scaling
/// applied.
public struct ConnectionReport: Sendable, Hashable, Codable {
  /// The routing instance, if it is not the main one.
  public var instance: String?
  /// `tcp` or `udp`.
  public var proto: String
  /// Bytes received and not yet read by the application.
  public var receiveQueue: Int
  /// Bytes written and not yet acknowledged by the peer.
  public var sendQueue: Int
  /// Address and port of this end.
  public var local: String
  /// Address and port of the peer; for a UDP socket that is not connected the unspecified address, and port 0.
  public var foreign: String
  /// The TCP state, such as `ESTABLISHED`; for UDP `CONNECTED` or `UNCONNECTED`.
  public var state: String
  /// The part that this routing engine plays for the connection.
  public var role: MastershipRole
  public var handle: Handle
  /// The oldest byte not acknowledged by the peer.
  public var sendUnacknowledged: UInt32?
  /// The next byte to be sent.
  public var sendNext: UInt32?
  /// The next byte expected from the peer.
  public var receiveNext: UInt32?
  /// The window that the peer offers.
  public var sendWindow: UInt32?
  /// The window that is offered to the peer.
  public var receiveWindow: UInt32?
  /// The end of the window that was last offered to the peer: it never moves back.
  public var receiveRightEdge: UInt32?
  /// The largest segment sent, in bytes of payload.
  public var maximumSegmentSize: Int?
  /// The shift of the windows that the peer announces, 0 to 14; missing without window scaling.
  public var sendWindowScale: UInt8?
  /// The shift of the windows announced to the peer.
  public var receiveWindowScale: UInt8?
  /// Selective acknowledgement was agreed on.
  public var sack: Bool?
  /// Timestamps were agreed on (RFC 7323).
  public var timestamps: Bool?
  /// The last timestamp of the peer that is echoed.
  public var timestampRecent: UInt32?
  /// The last timestamp sent.
  public var timestampLast: UInt32?

  public init(
    instance: String? = nil, proto: String, receiveQueue: Int, sendQueue: Int, local: String, foreign: String,
    state: String,
    role: MastershipRole, handle: Handle, sendUnacknowledged: UInt32? = nil, sendNext: UInt32? = nil,
    receiveNext: UInt32? = nil, sendWindow: UInt32? = nil, receiveWindow: UInt32? = nil,
    receiveRightEdge: UInt32? = nil, maximumSegmentSize: Int? = nil, sendWindowScale: UInt8? = nil,
    receiveWindowScale: UInt8? = nil, sack: Bool? = nil, timestamps: Bool? = nil,
    timestampRecent: UInt32? = nil, timestampLast: UInt32? = nil
  ) {
    self.instance = instance
    self.proto = proto
    self.receiveQueue = receiveQueue
    self.sendQueue = sendQueue
    self.local = local
    self.foreign = foreign
    self.state = state
    self.role = role
    self.handle = handle
    self.sendUnacknowledged = sendUnacknowledged
    self.sendNext = sendNext
    self.receiveNext = receiveNext
    self.sendWindow = sendWindow
    self.receiveWindow = receiveWindow
    self.receiveRightEdge = receiveRightEdge
    self.maximumSegmentSize = maximumSegmentSize
    self.sendWindowScale = sendWindowScale
    self.receiveWindowScale = receiveWindowScale
    self.sack = sack
    self.timestamps = timestamps
    self.timestampRecent = timestampRecent
    self.timestampLast = timestampLast
  }

  private enum CodingKeys: String, CodingKey {
    case instance, proto, local, foreign, state, role, handle, sack, timestamps
    case receiveQueue = "recv_q"
    case sendQueue = "send_q"
    case sendUnacknowledged = "snd_una"
    case sendNext = "snd_nxt"
    case receiveNext = "rcv_nxt"
    case sendWindow = "snd_wnd"
    case receiveWindow = "rcv_wnd"
    case receiveRightEdge = "rcv_right_edge"
    case maximumSegmentSize = "mss"
    case sendWindowScale = "snd_wscale"
    case receiveWindowScale = "rcv_wscale"
    case timestampRecent = "ts_recent"
    case timestampLast = "ts_last"
  }
}

import DequeModule

/// A place in the replication log: how many records have been appended up to and including this one,
/// since the link came up.
public typealias LogPosition = UInt64

/// The primary's side of the replication log: what has been appended and not yet acknowledged.
///
/// Positions are acknowledged cumulatively, once per batch that the secondary reads. The log keeps no
/// bytes, since the link is reliable and ordered: only what it needs to know whom a silent secondary
/// keeps waiting, and how much is on its way.
struct ReplicationLog {
  private struct Entry {
    var appended: Instant
    var byteCount: UInt32
    var socket: Handle
    var layer: Layer
  }

  /// Of the last record appended; 0 if none was.
  private(set) var position: LogPosition = 0
  /// Of the last record that the secondary has.
  private(set) var acknowledged: LogPosition = 0
  /// What the secondary said last: more than `acknowledged` only while a fault is injected.
  private var heard: LogPosition = 0
  private var hold = AcknowledgementHold()
  /// Bytes of records appended and not acknowledged.
  private(set) var unacknowledgedBytes = 0
  private var entries = Deque<Entry>()

  /// Records appended and not acknowledged.
  var unacknowledgedCount: Int { entries.count }

  /// Takes the next position for a record about `socket`.
  mutating func append(byteCount: Int, layer: Layer, socket: Handle, now: Instant) -> LogPosition {
    position += 1
    unacknowledgedBytes += byteCount
    hold.note(layer, at: position)
    entries.append(Entry(appended: now, byteCount: UInt32(byteCount), socket: socket, layer: layer))
    return position
  }

  /// The secondary has everything up to `position`. Returns false if it cannot have: that position was
  /// never appended, or the acknowledgement goes back.
  mutating func acknowledge(_ position: LogPosition) -> Bool {
    guard position <= self.position, position >= heard else { return false }
    heard = position
    advance(to: hold.permitted(position))
    return true
  }

  private mutating func advance(to position: LogPosition) {
    for _ in acknowledged..<position {
      unacknowledgedBytes -= Int(entries.removeFirst().byteCount)
    }
    acknowledged = position
    // None are left of a link that is lost.
    assert(entries.isEmpty || entries.count == Int(self.position - acknowledged))
  }

  /// Fault injection: acts as if the secondary had acknowledged no record of `layer`, or no longer so.
  mutating func holdAcknowledgements(of layer: Layer, _ isOn: Bool) {
    guard isOn else {
      hold.end(layer)
      return advance(to: hold.permitted(heard))
    }
    let first = entries.firstIndex { $0.layer == layer }
    hold.begin(layer, from: first.map { acknowledged + LogPosition($0) + 1 })
  }

  /// The link is gone: whatever is not acknowledged never will be. Positions stay what they are, since packets are held
  /// for them.
  mutating func linkLost() {
    entries.removeAll()
    unacknowledgedBytes = 0
    heard = acknowledged
  }

  /// Forgets everything but which layers are held: there is a new link.
  mutating func restart() {
    var hold = hold
    hold.restart()
    self = ReplicationLog()
    self.hold = hold
  }

  /// Calls `visit` with the socket and layer of each record that has waited longer than its layer's
  /// timeout, oldest first.
  func overdue(at now: Instant, timeouts: LayerTimeouts, visit: (Handle, Layer) -> Void) {
    let shortest = min(timeouts.prl, timeouts.sdrl, timeouts.psrm)
    for entry in entries {
      let age = now - entry.appended
      if age < shortest { return }
      if age >= timeouts[entry.layer] { visit(entry.socket, entry.layer) }
    }
  }
}

/// How long a record of each layer may stay unacknowledged before the sockets that wait on it are
/// unreplicated.
public struct LayerTimeouts: Hashable, Sendable {
  public var prl = Nanoseconds.seconds(1)
  public var sdrl = Nanoseconds.seconds(1)
  public var psrm = Nanoseconds.seconds(1)

  public init() {}

  /// Records of the handshake wait as long as those of PSRM.
  subscript(layer: Layer) -> Nanoseconds {
    switch layer {
    case .prl: prl
    case .sdrl: sdrl
    case .psrm, .iha, .kkcm, .mastership: psrm
    }
  }
}

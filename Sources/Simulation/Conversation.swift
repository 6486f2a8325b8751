import Packet
import Replication

/// One connection between a peer and the replicated address, or one UDP socket there and all of its peers: what its two
/// streams must be, and what of it has been seen on the wire.
final class Conversation {
  /// Why nothing is expected of a connection any more.
  enum Fate: Equatable, CustomStringConvertible {
    /// Its RE was lost before the connection was replicated, or with the other RE.
    case lost(String)
    /// The peer reset it.
    case resetByPeer

    var description: String {
      switch self {
      case .lost(let why): "lost: \(why)"
      case .resetByPeer: "reset by the peer"
      }
    }
  }

  let number: Int
  let plan: Scenario.Plan
  let flow: Flow
  let peerStart: SequenceNumber
  let localStart: SequenceNumber
  /// `nil` unless it goes over UDP.
  let datagrams: DatagramExchange?
  /// `nil` once the peer has forgotten the connection, and for UDP.
  var peer: ModelTCP?
  var peerTimer: TrueTime?
  var peerWritten = 0
  var peerRead = 0
  var peerIsDone = false
  /// When the peer last heard anything.
  var peerHeardAt: TrueTime
  /// `nil` while everything is expected of it.
  var fate: Fate?

  /// Which records were taken by a record interface, by the position of their first byte, and not given up with all that
  /// was in a log.
  var recordsTaken: Set<Int> = []

  /// A control block of the secondary's that differs from the primary's, though nothing is on its way, and since when.
  var behind: (block: ControlBlock, since: TrueTime)?

  /// What has left the REs, at its furthest.
  var acknowledgmentLeft: SequenceNumber
  var endLeft: SequenceNumber
  var edgeLeft: SequenceNumber
  var timestampLeft: UInt32?
  /// The RE that sent last.
  var lastSpeaker: Int?
  /// What the peer sent, for old duplicates: at most a few frames.
  var oldFrames: [[UInt8]] = []

  /// - Parameters:
  ///   - now: on the peers' clock.
  ///   - openedAt: the same moment in true time.
  init(number: Int, plan: Scenario.Plan, now: Instant, openedAt: TrueTime) {
    self.number = number
    peerHeardAt = openedAt
    self.plan = plan
    peerStart = SequenceNumber(plan.peerStart)
    localStart = SequenceNumber(plan.localStart)
    let address = IPAddress(v4: 0x0505_0505)
    datagrams = plan.datagrams.map(DatagramExchange.init)
    if let plan = plan.datagrams {
      let local = Endpoint(address, plan.localPort)
      let peer = Endpoint(Self.peerAddress, DatagramPeers.port(of: number, peer: 0))
      flow = plan.isConnected ? Flow(.udp, local: local, remote: peer) : Flow(unconnected: local)
    } else {
      flow = Flow(
        .tcp, local: Endpoint(address, 16_000), remote: Endpoint(Self.peerAddress, 40_000 + UInt16(number)))
      peer = ModelTCP(
        sendFrom: peerStart, receiveFrom: localStart, options: plan.peer, timestampOffset: 0xffff_f000,
        now: now)
    }
    acknowledgmentLeft = peerStart
    endLeft = localStart
    edgeLeft = peerStart + plan.local.capacity
  }

  static let peerAddress = IPAddress(v4: 0x0505_0504)

  var name: String { datagrams == nil ? "connection \(number)" : "conversation \(number)" }
  /// What stands for the options of a UDP socket.
  var datagramOptions: [UInt8] { [UInt8(truncatingIfNeeded: number), 1, 2, 3] }
  /// No peer will say anything on it any more.
  var isForgotten: Bool { datagrams.map { $0.isGivenUp || peerIsDone } ?? (peer == nil) }

  /// Remembers what a peer sends, for the network to deliver it again much later.
  func keepOld(_ frame: [UInt8], in world: World) {
    guard oldFrames.count < 8 || world.random.peers.chance(0.02) else { return }
    if oldFrames.count >= 8 { oldFrames.removeFirst() }
    oldFrames.append(frame)
  }

  /// Whether it must come to a good end, and has not yet.
  var mustLive: Bool { fate == nil && !peerIsDone }

  /// Where the record ends that the byte at `position` belongs to.
  func recordEnd(at position: Int) -> Int {
    let size = plan.recordSize ?? 1
    return min(plan.localTotal, (position / size + 1) * size)
  }

  /// Whether a record may begin at `position`.
  func isBetweenRecords(_ position: Int) -> Bool {
    position == plan.localTotal || position.isMultiple(of: plan.recordSize ?? 1)
  }

  /// Whether the record was taken that `position` is inside of.
  func isInsideTakenRecord(_ position: Int) -> Bool {
    guard let size = plan.recordSize, !isBetweenRecords(position) else { return false }
    return recordsTaken.contains(position / size * size)
  }

  /// The application writes to its socket from `position` on, so that nothing is promised of the record there.
  func noteWrittenPlainly(_ position: Int) {
    if let size = plan.recordSize { recordsTaken.remove(position / size * size) }
  }

  /// The byte that the peer sends at `position`.
  func peerByte(_ position: Int) -> UInt8 {
    UInt8(truncatingIfNeeded: (position &+ number &* 77) &* 0x9e37_79b1 >> 13)
  }

  /// The byte that the RE's application sends at `position`, whichever RE it is.
  func localByte(_ position: Int) -> UInt8 {
    UInt8(truncatingIfNeeded: (position &+ number &* 91 &+ 1_000_003) &* 0x85eb_ca6b >> 15)
  }

  func peerBytes(_ range: Range<Int>) -> [UInt8] { range.map(peerByte) }
  func localBytes(_ range: Range<Int>) -> [UInt8] { range.map(localByte) }

  func frame(_ output: ModelTCP.Output, fromPeer: Bool) -> [UInt8] {
    output.frame(from: fromPeer ? flow.remote : flow.local, to: fromPeer ? flow.local : flow.remote)
  }
}

extension ModelTCP.Output {
  /// What an engine says in place of its kernel.
  public init(_ acknowledgment: Acknowledgment) {
    self.init(
      sequence: acknowledgment.sequence, acknowledgment: acknowledgment.acknowledgment, flags: .ack,
      window: acknowledgment.window, timestamps: acknowledgment.timestamps, payload: [])
  }

  /// The Ethernet frame of the segment, with complete checksums and no hardware addresses.
  public func frame(from source: Endpoint, to destination: Endpoint) -> [UInt8] {
    let builder = TCPFrameBuilder(
      sourceMAC: .zero, destinationMAC: .zero, source: source, destination: destination)
    return payload.withUnsafeBytes {
      builder.frame(
        sequence: sequence, acknowledgment: acknowledgment, flags: flags, window: window,
        timestamps: timestamps, payload: $0)
    }
  }
}

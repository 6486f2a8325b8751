import Packet
import Replication
import Simulation

/// One connection between the peer and the replicated address: what its two streams must be, how far the
/// applications are, and what of it has been seen on the wire.
final class Conversation {
  let number: Int
  let flow: Flow
  let peerStart: SequenceNumber
  let localStart: SequenceNumber
  /// Of the TCPs at both ends.
  let options: ModelTCP.Options
  var peer: ModelTCP
  /// Bytes each application has written.
  var peerWritten = 0
  var localWritten = 0
  /// Where in the stream the records end that were taken.
  var recordEnds: [Int] = []
  /// Bytes each application has read; all were right.
  var peerRead = 0
  var localRead = 0

  /// The primary's name and the secondary's.
  var primaryHandle: Handle?
  var secondaryHandle: Handle?
  /// Where in the streams the snoop pair began, and how far it got.
  var snoopStart: (rcv: Int, snd: Int) = (0, 0)
  var snooped: (rcv: Int, snd: Int) = (0, 0)
  var snoopEnded: Set<SnoopStream> = []

  /// What has left the REs, at its furthest.
  var acknowledgmentLeft: SequenceNumber
  var endLeft: SequenceNumber
  var edgeLeft: SequenceNumber
  var timestampLeft: UInt32?

  init(
    number: Int, startAt sequence: UInt32, capacity: Int, windowScale: UInt8 = 2, sendCapacity: Int = .max,
    now: Instant
  ) {
    self.number = number
    peerStart = SequenceNumber(sequence)
    localStart = SequenceNumber(sequence &+ 70_000)
    let port = UInt16(number)
    flow = Flow(
      .tcp, local: Endpoint(IPAddress(v4: 0x0505_0505), 16_000 + port),
      remote: Endpoint(IPAddress(v4: 0x0505_0504), 40_000 + port))
    var options = ModelTCP.Options()
    options.capacity = capacity
    options.windowScale = windowScale
    options.sendCapacity = sendCapacity
    self.options = options
    peer = ModelTCP(
      sendFrom: peerStart, receiveFrom: localStart, options: options, timestampOffset: 0xffff_ff00, now: now)
    acknowledgmentLeft = peerStart
    endLeft = localStart
    edgeLeft = peerStart + capacity
  }

  /// The byte that the peer sends at `position`.
  func peerByte(_ position: Int) -> UInt8 {
    UInt8(truncatingIfNeeded: position &* 7 &+ position >> 8 &+ number)
  }

  /// The byte that the RE's application sends at `position`, whichever RE it is.
  func localByte(_ position: Int) -> UInt8 {
    UInt8(truncatingIfNeeded: position &* 13 &+ position >> 7 &+ 99 &+ number)
  }

  func nextPeerBytes(_ count: Int) -> [UInt8] {
    defer { peerWritten += count }
    return (peerWritten..<peerWritten + count).map(peerByte)
  }

  func nextLocalBytes(_ count: Int) -> [UInt8] {
    defer { localWritten += count }
    return (localWritten..<localWritten + count).map(localByte)
  }
}

import AllocationCounter
import Packet
import Simulation
import Testing

@testable import Replication

/// The path of a packet that need not be held makes no heap objects: at the rates of a router they would be
/// most of its cost.
@Suite(.enabled(if: allocation_counter_is_available(), "a sanitizer owns the allocator"))
struct AllocationTests {
  private func allocations(_ body: () -> Void) -> Int64 {
    allocation_counter_start()
    body()
    return allocation_counter_stop()
  }

  @Test func theCounterCounts() {
    var array: [Int] = []
    #expect(allocations { array = [Int](repeating: 1, count: 100) } > 0)
    #expect(array.count == 100)
    #expect(allocations { array[3] = 4 } == 0)
  }

  @Test func readingAFrameAllocatesNothing() {
    let conversation = Conversation(number: 0, startAt: 1, capacity: 1_000, now: Instant(nanoseconds: 0))
    var segment = CraftedSegment(from: conversation, now: 5)
    segment.payload = [UInt8](repeating: 1, count: 1_400)
    let frame = segment.fromPeer(conversation)
    var valid = 0
    func readAHundredTimes() -> Int64 {
      frame.withUnsafeBytes { bytes in
        allocations {
          for _ in 0..<100 {
            guard let packet = TCPPacket(bytes), packet.checksumIsValid(bytes) else { return }
            valid += packet.inboundFlow().local.port == 16_000 ? 1 : 0
          }
        }
      }
    }
    // The first use of a generic type in a process makes its metadata.
    _ = readAHundredTimes()
    let count = readAHundredTimes()
    #expect(valid == 200)
    #expect(count == 0)
  }

  @Test("Known segments, both ways, allocate nothing", arguments: [ReplicationNode.Mode.overlap, .strict])
  func knownSegments(mode: ReplicationNode.Mode) throws {
    let pair = SimulatedPair(mode: mode)
    pair.start()
    let conversation = pair.converse()
    try pair.replicate(conversation)
    pair.settle()
    pair.peerWrites(conversation, 100)
    pair.localWrites(conversation, 100)
    pair.settle()
    // The peer has 100 bytes more on their way to it; acknowledgements and copies may go at once.
    pair.localWrites(conversation, 100)
    pair.settleLink()
    var socket = try #require(pair.engines[0].sockets[conversation.flow])
    let copy = try #require(socket.retransmission(now: pair.now).first)
      .frame(from: conversation.flow.local, to: conversation.flow.remote)
    var plain = try #require(socket.retransmission(now: pair.now).first)
    plain.payload = []
    let acknowledgement = plain.frame(from: conversation.flow.local, to: conversation.flow.remote)
    let block = try #require(try pair.engines[0].node.socket(conversation.primaryHandle!).block)
    var segment = CraftedSegment(from: conversation, now: block.timestampRecent)
    let peerAcknowledgement = segment.fromPeer(conversation)
    segment.sequence = segment.sequence - 50
    segment.payload = (50..<100).map(conversation.peerByte)
    let peerCopy = segment.fromPeer(conversation)

    var node = pair.engines[0].node
    pair.engines[0].node = ReplicationNode(node.configuration, now: pair.now)
    func round() -> [Verdict] {
      var verdicts: (Verdict, Verdict, Verdict, Verdict) = (.drop, .drop, .drop, .drop)
      func out(_ frame: [UInt8]) -> Verdict {
        frame.withUnsafeBytes { bytes in
          node.outbound(
            TCPPacket(bytes)!, reference: FrameReference(1), byteCount: bytes.count, now: pair.now)
        }
      }
      func take(_ frame: [UInt8]) -> Verdict {
        frame.withUnsafeBytes { bytes in
          let packet = TCPPacket(bytes)!
          return node.inbound(packet, reference: FrameReference(1), byteCount: bytes.count, now: pair.now) {
            packet.checksumIsValid(bytes)
          }
        }
      }
      let count = allocations {
        for _ in 0..<20 {
          verdicts = (out(copy), out(acknowledgement), take(peerAcknowledgement), take(peerCopy))
        }
      }
      lastCount = count
      return [verdicts.0, verdicts.1, verdicts.2, verdicts.3]
    }
    var lastCount: Int64 = -1
    // The first time the changed control block finds its way to the secondary.
    _ = round()
    node.flushBlocks(now: pair.now)
    node.actions.removeAll(keepingCapacity: true)
    // In overlap mode the kernel has had what comes in.
    let inbound: Verdict = mode == .overlap ? .drop : .pass
    #expect(round() == [.pass, .pass, inbound, inbound])
    #expect(lastCount == 0)
    #expect(node.actions.isEmpty)
  }

  @Test("Datagrams that are logged, both ways, allocate nothing") func datagrams() throws {
    let pair = SimulatedPair()
    pair.start()
    pair.engines[0].datagramSockets[DatagramTests.unconnected] = []
    _ = try pair.replicate(DatagramTests.unconnected)
    pair.settle()
    let datagram = DatagramTests.datagram([UInt8](repeating: 1, count: 1_400))
    let (inbound, outbound) = (datagram.frame(fromPeer: true), datagram.frame(fromPeer: false))
    var node = pair.engines[0].node
    pair.engines[0].node = ReplicationNode(node.configuration, now: pair.now)
    // What queues grow by is paid for once.
    node.actions.reserveCapacity(1_000)
    func round(_ times: Int) -> Int64 {
      allocations {
        for _ in 0..<times {
          outbound.withUnsafeBytes { bytes in
            let packet = UDPPacket(bytes)!
            let verdict = node.outbound(
              packet, reference: FrameReference(1), byteCount: bytes.count, now: pair.now)
            precondition(verdict == .hold)
          }
          inbound.withUnsafeBytes { bytes in
            let packet = UDPPacket(bytes)!
            let verdict = node.inbound(
              packet, reference: FrameReference(1), byteCount: bytes.count, now: pair.now
            ) { packet.checksumIsValid(bytes) }
            precondition(verdict == .pass)
          }
        }
      }
    }
    _ = round(40)
    // The queues have room for twice as many by now.
    var acknowledgement = ByteWriter(.kkcmAcknowledge)
    acknowledgement.integer(node.log.position)
    acknowledgement.record().withUnsafeBytes { _ = node.linkReceived($0, now: pair.now) }
    node.actions.removeAll(keepingCapacity: true)
    #expect(round(30) == 0)
    #expect(node.occupancy.heldPackets == 30)
  }
}

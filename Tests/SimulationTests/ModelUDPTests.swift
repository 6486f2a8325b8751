import Packet
import Testing

@testable import Simulation

@Suite struct ModelUDPTests {
  private static let local = Endpoint(IPAddress(v4: 0x0505_0505), 17_000)
  private static let peer = Endpoint(IPAddress(v4: 0x0505_0504), 50_001)

  private func datagram(_ number: Int, request: Int? = nil, size: Int = 1) -> ModelDatagram {
    ModelDatagram(
      ModelDatagram.Text(conversation: 3, isFromPeer: true, number: number, request: request),
      peerPort: Self.peer.port, byteCount: size)
  }

  @Test("A datagram is read as what it was made as, and as nothing else", arguments: [1, 20, 1_000])
  func readsAgain(size: Int) {
    for request in [nil, 0, 7] {
      let datagram = datagram(5, request: request, size: size)
      let payload = datagram.payload
      #expect(payload.count == datagram.byteCount && payload.count >= size)
      #expect(ModelDatagram(payload, peerPort: Self.peer.port) == datagram)
      #expect(ModelDatagram(payload.dropLast(), peerPort: Self.peer.port) == nil)
      #expect(ModelDatagram(payload + [0], peerPort: Self.peer.port) == nil)
      for place in payload.indices {
        var broken = payload
        broken[place] ^= 0x10
        #expect(ModelDatagram(broken, peerPort: Self.peer.port) != datagram, "byte \(place)")
      }
    }
    let empty = ModelDatagram(nil, peerPort: 9, byteCount: 0)
    #expect(empty.payload.isEmpty && ModelDatagram([], peerPort: 9) == empty)
  }

  @Test func aStampChangesNothingThatAnybodyReads() throws {
    var frame = datagram(1).frame(from: Self.peer, to: Self.local)
    FrameStamp.put(.max, on: &frame)
    #expect(FrameStamp.read(frame) == .max)
    guard case .udp(let packet) = ModelPacket(frame) else {
      Issue.record("no datagram")
      return
    }
    #expect(packet.source == Self.peer && packet.destination == Self.local)
    #expect(ModelPacket(frame)?.checksumIsValid(frame) == true)
    #expect(ModelDatagram(frame[packet.payload], peerPort: packet.source.port) == datagram(1))
  }

  @Test func aFullQueueLosesWhatComesLast() {
    var socket = ModelUDP(limit: 2)
    for number in 0..<4 { socket.receive(datagram(number)) }
    #expect(socket.read() == datagram(0))
    socket.receive(datagram(4))
    #expect([socket.read(), socket.read(), socket.read()] == [datagram(1), datagram(4), nil])
  }

  @Test("What an application has not read to its end is taken back whole") func takingBack() {
    var buffer = SnoopBuffer(start: 0, socketCapacity: 120, limit: 1_000)
    let datagrams = (0..<5).map { datagram($0, size: 20) }
    for datagram in datagrams { buffer.write(datagram) }
    #expect(SnoopBuffer.byteCount(ofDatagramOf: 20) == 60)
    #expect(buffer.readable == 120 && buffer.queued == 180)
    buffer.take(100)
    #expect(buffer.takeBackDatagrams() == Array(datagrams[1...]))
    #expect(buffer.hasEnded && buffer.takeBackDatagrams().isEmpty)
  }

  @Test func portsTellConversationsApart() {
    for number in [0, 1, 199] {
      for peer in 0..<DatagramPeers.portsPerConversation {
        #expect(DatagramPeers.conversation(ofPort: DatagramPeers.port(of: number, peer: peer)) == number)
      }
    }
    #expect(DatagramPeers.conversation(ofPort: 40_000) == nil)
  }
}

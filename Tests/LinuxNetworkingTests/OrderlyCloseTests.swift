import Descriptors
import Glibc
import LinuxNetworking
import Packet
import Testing

@Suite("A connection that nobody serves any more", .serialized)
struct OrderlyCloseTests {
  @Test("ends with a FIN behind all that was written, though its peer goes on sending")
  func inOrder() throws {
    let network = try TestNetwork()
    try network.giveReplicatedAddress(.v4, to: 0)
    let (server, client) = try StreamSocket.pair(on: network)
    let capture = try Capture(on: "port0", in: network.peer)
    // Unread bytes, with which a plain close would reset the connection.
    try client.write(pattern(1, 10_000))
    #expect(server.isReadable(within: 1000))
    let written = server.writeWhatFits(pattern(2, 8_000_000))
    #expect(written > 100_000)

    let ending = OrderlyClose(OwnedDescriptor(owning: dup(server.descriptor)))
    let isOverAtOnce = ending.discardInput()
    #expect(!isOverAtOnce)
    #expect(same(try client.read(written), pattern(2, written)))
    #expect(try client.isAtEnd())
    // More than all buffers hold: it is read.
    let rest = Background {
      try client.write(pattern(3, 16 << 20))
      client.shutdownWrite()
    }
    let isOver = eventually { ending.discardInput() }
    #expect(isOver)
    try rest.join()
    #expect(capture.segments().allSatisfy { !$0.segment.flags.contains(.rst) })
  }

  @Test("is over at once when the connection is no more")
  func alreadyGone() throws {
    let network = try TestNetwork()
    try network.giveReplicatedAddress(.v4, to: 0)
    let (server, _) = try StreamSocket.pair(on: network)
    try TCPRepair.disconnectSilently(server.descriptor)
    let ending = OrderlyClose(OwnedDescriptor(owning: dup(server.descriptor)))
    let isOver = ending.discardInput()
    #expect(isOver)
  }
}

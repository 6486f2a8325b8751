// Theory of operation
//
// A packet whose next hop has no known hardware address waits in the neighbour table, for up to three
// questions that are a second apart (neigh_timer_handler, net/core/neighbour.c), and has not come by the packet
// filter yet: that sees it when it is sent at last. Behind a shut fence nobody answers the questions. When the
// fence opens in time, the next one is answered, and what a connection of former times had to say, its end most of
// all, goes out under a lease that was granted for another. Seen with IPv6: a FIN and a reset that were 800 ms old.
//
// Deleting an entry that is being asked for throws away what waits (neigh_invalidate). For IPv4 the kernel does
// so itself when the last address of an interface is removed (fib_disable_ip), but only then.

import CLinux
import Descriptors
import Glibc
import Packet

/// What the kernel knows of the machines on the segment of an interface.
public enum NeighborTable {
  /// Throws away what waits for hardware addresses that are not known yet, of both families. Whoever still wants to
  /// send there asks again.
  public static func forgetUnresolved(on interface: NetworkInterface) throws(SystemError) {
    let listing = try NetlinkSocket(NETLINK_ROUTE)
    let index = withUnsafeBytes(of: UInt32(interface.index)) { Array($0) }
    try listing.send(
      UInt16(RTM_GETNEIGH), UInt16(NLM_F_REQUEST | NLM_F_DUMP), ndmsg(), [(UInt16(NDA_IFINDEX), index)])
    var found: [(ndmsg, [UInt8])] = []
    while try listing.receive({ type, body in
      guard type == RTM_NEWNEIGH, body.count >= MemoryLayout<ndmsg>.size else { return }
      let message = body.loadUnaligned(as: ndmsg.self)
      guard message.ndm_ifindex == interface.index, Int32(message.ndm_state) & NUD_INCOMPLETE != 0 else {
        return
      }
      UnsafeRawBufferPointer(rebasing: body[MemoryLayout<ndmsg>.size...]).forEachAttribute { kind, value in
        if kind == UInt16(NDA_DST) { found.append((message, Array(value))) }
      }
    }) {}

    for (message, address) in found {
      let socket = try NetlinkSocket(NETLINK_ROUTE)
      try socket.send(
        UInt16(RTM_DELNEIGH), UInt16(NLM_F_REQUEST | NLM_F_ACK), message, [(UInt16(NDA_DST), address)])
      do throws(SystemError) {
        try socket.awaitAcknowledgement()
      } catch  where error.code == ENOENT {
        // It was given up meanwhile, with what waited.
      }
    }
  }
}

import Descriptors
import Glibc
import Packet

/// The numbers of a connection in repair mode, read one after the other: two readings that agree, around a
/// reading of the queues, are one consistent picture. Numbers count a FIN, as the kernel's do.
struct TCPReading {
  var info: TCPInfo
  var writeSequence: SequenceNumber
  var receiveNext: SequenceNumber
  var window: tcp_repair_window
  var maximumSegmentSize: Int32

  init(_ descriptor: Int32) throws(SystemError) {
    receiveNext = try TCPQueue.receive.sequence(of: descriptor)
    writeSequence = try TCPQueue.send.sequence(of: descriptor)
    window = try socketOption(
      descriptor, Int32(IPPROTO_TCP), TCP_REPAIR_WINDOW, into: tcp_repair_window(),
      "getsockopt(TCP_REPAIR_WINDOW)")
    maximumSegmentSize = try socketOption(
      descriptor, Int32(IPPROTO_TCP), TCP_MAXSEG, into: Int32(0), "getsockopt(TCP_MAXSEG)")
    info = try TCPInfo(of: descriptor)
  }

  func agrees(with other: TCPReading) -> Bool {
    writeSequence == other.writeSequence && receiveNext == other.receiveNext
      && info.state == other.info.state && info.unacknowledged == other.info.unacknowledged
      && info.notSent == other.info.notSent && info.unread == other.info.unread
      && info.bytesAcknowledged == other.info.bytesAcknowledged
      && info.bytesReceived == other.info.bytesReceived
      && window.snd_wl1 == other.window.snd_wl1 && window.snd_wnd == other.window.snd_wnd
      && window.max_window == other.window.max_window && window.rcv_wnd == other.window.rcv_wnd
      && window.rcv_wup == other.window.rcv_wup
  }

  /// The sending side without its FIN.
  func sendSide(
    _ state: TCPSnapshot.State
  ) -> (unacknowledged: SequenceNumber, next: SequenceNumber, write: SequenceNumber, fin: Bool) {
    let fin: Bool
    switch state {
    case .established, .closeWait: fin = false
    case .finWait1, .finWait2, .lastAck, .closing: fin = true
    }
    let write = fin ? writeSequence - 1 : writeSequence
    return (
      .earlier(writeSequence - Int(info.unacknowledged), write),
      .earlier(writeSequence - Int(info.notSent), write), write, fin
    )
  }

  /// The receiving side without its FIN. The right edge of the window stays where it is.
  func receiveSide(
    _ state: TCPSnapshot.State
  ) -> (next: SequenceNumber, acknowledged: SequenceNumber, window: UInt32, fin: Bool) {
    let acknowledged = SequenceNumber(window.rcv_wup)
    switch state {
    case .established, .finWait1, .finWait2: return (receiveNext, acknowledged, window.rcv_wnd, false)
    case .closeWait, .lastAck, .closing:
      let next = receiveNext - 1
      return acknowledged > next
        ? (next, next, window.rcv_wnd + 1, true) : (next, acknowledged, window.rcv_wnd, true)
    }
  }
}

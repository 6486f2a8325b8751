/// What the secondary reads of one connection: both directions, byte-exact, each a readable stream socket. Of a UDP
/// socket: the same datagrams, one message each (`SnoopedDatagram`).
///
/// Both descriptors are in blocking mode. They can be taken apart by consuming the fields, or as numbers by `release()`.
@frozen
public struct SnoopPair: ~Copyable, Sendable {
  /// The name of the pair on this routing engine, to be given to the primary's `replicate` and later to
  /// `merge`.
  public let handle: Handle
  /// What the peer sent, from the first byte that the primary's application had not read when replication
  /// started. End of stream: the peer's FIN, or the end of replication (an event gives the reason).
  public let rcv: Socket
  /// What the primary sent, from the first byte that the peer had not acknowledged when replication
  /// started. End of stream: the primary's FIN, or the end of replication.
  public let snd: Socket

  public init(handle: Handle, rcv: consuming Socket, snd: consuming Socket) {
    self.handle = handle
    self.rcv = rcv
    self.snd = snd
  }

  /// Gives up ownership of both descriptors: the caller must close the numbers returned.
  public consuming func release() -> (handle: Handle, rcv: Int32, snd: Int32) {
    let handle = handle
    let rcv = self.rcv.release()
    let snd = self.snd.release()
    return (handle, rcv, snd)
  }
}

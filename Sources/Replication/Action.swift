import Packet

/// Which of the two streams of a connection, as the secondary's application sees them.
public enum SnoopStream: UInt8, Sendable, Hashable, CaseIterable, CustomStringConvertible {
  /// What the peer sent.
  case rcv
  /// What the primary sent.
  case snd

  public var description: String {
    switch self {
    case .rcv: "rcv"
    case .snd: "snd"
    }
  }
}

/// What is to become of a packet right away.
public enum Verdict: Sendable, Hashable {
  /// Put it back on its way now.
  case pass
  /// Keep the frame under the reference given; an action will say when it may go.
  case hold
  /// Forget it. Either it is lost: TCP will send it again, or must not, and whoever uses UDP lives with losses. Or it is
  /// a copy of what the kernel has had.
  case drop
}

/// A segment without bytes that the protocol sends in place of the kernel.
public struct Acknowledgment: Sendable, Hashable {
  public var flow: Flow
  public var sequence: SequenceNumber
  public var acknowledgment: SequenceNumber
  /// The window field as it stands on the wire, shifted.
  public var window: UInt16
  public var timestamps: TCPTimestamps?
}

/// How much a log line matters.
public enum LogLevel: Sendable, Hashable { case debug, info, warning, error }

/// What the protocol asks the engine to do. Actions are carried out in order.
public enum Action: Sendable {
  // MARK: Frames the engine keeps

  /// Put a held frame back on its way.
  case release(FrameReference)
  /// Present a held frame again, as if it had just arrived.
  case replay(FrameReference)
  /// Forget a held frame.
  case discard(FrameReference)
  /// Inbound, a frame that reached the other RE, in this routing instance: its bytes, virtio-net header first, lie at
  /// this range of the link's input.
  case injectLate(Range<Int>, RoutingInstanceID)

  /// Put a segment on the wire that carries nothing but this.
  case acknowledge(Acknowledgment)

  // MARK: Link

  /// Append the record to the link's output; its payload lies in the packet at hand.
  case appendSegment(SegmentRecord)
  /// The same of a datagram.
  case appendDatagram(DatagramRecord)
  /// Append the record whose body is the frame at hand, virtio-net header first.
  case appendLateFrame(RecordHeader)
  /// Append these bytes to the link's output.
  case send([UInt8])
  case closeLink(String)
  /// Broadcast the keepalive on every uplink.
  case sendOnUplink(Keepalive)

  // MARK: Snoop pairs

  /// Give the application the bytes at this range of the link's input.
  case snoop(Handle, SnoopStream, Range<Int>)
  /// Give the application these bytes.
  case snoopOwned(Handle, SnoopStream, [UInt8])
  /// Give the application a datagram, whose payload, perhaps an empty one, lies at this range of the link's input.
  case snoopDatagram(Handle, SnoopStream, remote: Endpoint, local: Endpoint, Range<Int>)
  /// Give the application this datagram.
  case snoopOwnedDatagram(Handle, SnoopStream, Datagram)
  /// The stream has come to its end.
  case endSnoop(Handle, SnoopStream)

  // MARK: Sockets

  /// Divert the packets of this flow to the engine, and say `steered` when that is in force.
  case steer(Handle, Flow)
  /// Leave the packets of this flow to the kernel again.
  case unsteer(Flow)
  /// Let the kernel have what the peer of this steered flow sends as it comes, and the engine a copy of it, and say
  /// `mirrored` when all that comes is a copy. It ends when the flow is steered anew, or unsteered: then say
  /// `mirroringEnded` when no more copies can come.
  case mirror(Flow)
  /// Copy no flow any more: what peers send is the engine's alone.
  case endMirroring
  /// The handshake is over.
  case replicated(Handle)
  /// The handshake failed; the socket is as it was.
  case refused(Handle, UnreplicateReason)
  /// The socket is no longer replicated. On the primary it goes on as an ordinary one.
  case unreplicated(Handle, UnreplicateReason)
  /// The peer has sent its FIN.
  case peerClosed(Handle)
  /// A reset went by: see whether the kernel still has the connection.
  case inspect(Handle)
  /// End the kernel's socket with neither FIN nor RST.
  case silence(Handle)

  /// Something about services.
  case service(ServiceAction)

  // MARK: Records

  /// The kernel's socket is to be given what `unwrittenRecord` says.
  case writeRecords(Handle)
  /// A record that had to wait may be offered again.
  case recordsHaveRoom(Handle)
  /// So many records, counted from the beginning of record mode, are safe: the secondary has them.
  case recordsSafe(Handle, UInt64)
  /// Record mode has ended with replication: what is left is the engine's to write. `nil`: the other RE has the
  /// socket, and nothing more is to be written here.
  case recordsEnded(Handle, RecordQueue?)

  // MARK: Mastership

  /// Put the lease in force, if it is not later than the moment given, and say `leaseGranted`.
  case grantLease(Nanoseconds, notAfter: Instant)
  /// `nil` is without end. Only if the lease is still in force; it must not be put in force again.
  case renewLease(Nanoseconds?)
  case revokeLease
  case takeAddresses
  case dropAddresses
  /// All sockets that were lost with mastership are silent: end what else is connected from the replicated addresses.
  case endConnections
  case probe
  case phaseChanged(MastershipPhase)
  /// Whether a secondary stands by that could take over.
  case standbyChanged(Bool)

  case log(LogLevel, String)
}

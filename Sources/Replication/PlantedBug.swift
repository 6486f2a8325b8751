/// Faults that a test-only build can plant in the protocol, one at a time: whoever claims that the simulator
/// finds whatever is wrong has to show that it finds these.
///
/// All are of the kind that passes a review. Each case says what is wrong, which check has to find it, and
/// under which circumstances it shows: a simulation that never makes them cannot find it. Where a promise is
/// named, it is one of the ten of the design; "nothing is left behind" is the check that all counters, and the
/// frames that an engine keeps, come back to zero.
///
/// Compiled with `-D PLANTED_BUGS`, `Planting` chooses. In an ordinary build `planted` is `false` wherever it
/// stands, and the compiler leaves nothing of it, nor of this type, since it is not public.
enum PlantedBug: String, CaseIterable, Sendable {
  // MARK: KKCM

  /// A held packet goes when the record before the one that it waits for is acknowledged.
  ///
  /// Promises 1 and 2, as the packet leaves; also 3, if the primary is lost then. Shows when one
  /// acknowledgement covers a record and not the next, which a packet waits for: the inter-RE stream arrives
  /// in pieces.
  case releasedOnePositionEarly

  /// Snoop pairs stay when a new link comes up, although its log does not go on where the old one ended.
  ///
  /// Promise 3 at a merge; and liveness, since the connection cannot be replicated again. Shows when the link is
  /// cut and back again before a keepalive on the uplink says so, the sockets move data, and the primary is
  /// lost.
  case pairsOutliveTheirLink

  /// Where the kernel has what the peer sends at once, an acknowledgement is believed to be of what the log has.
  ///
  /// Promise 1. Shows in overlap mode when a copy of a packet is lost on its way to the engine: the queue of the TAP
  /// device is full, since the engine sleeps, or the kernel is short of memory.
  case mirroredAcknowledgementBelieved

  /// A packet of a socket that is no longer replicated stays at the head of the queue until its record is
  /// acknowledged.
  ///
  /// Promise 7, and nothing is left behind. Shows when the link is lost while packets of at least one
  /// socket are held: their records are never acknowledged.
  case endedSocketBlocksTheQueue

  /// Neither a record that is not acknowledged nor a snooper that does not read ever ends a replication.
  ///
  /// Promise 7 and liveness. Shows when a snooper is stuck for longer than `timeouts.prl`, or a secondary
  /// keeps the link alive and acknowledges nothing.
  case timeoutsNeverFire

  /// Packets are held, and records appended for them, without regard to `limits.hold-buffer`.
  ///
  /// Promise 10, as `Occupancy.heldBytes` and `unacknowledgedRecordBytes`. Shows when the limit is below what the
  /// windows of all connections allow, and the secondary is slow to acknowledge.
  case holdingIsUnbounded

  // MARK: IHA

  /// A place that is used again gets its handle from the last generation rather than from a new one.
  ///
  /// No handle is ever given twice. Shows when one application frees and allocates in turn.
  case generationReused

  /// A handle is accepted if any socket stands at its place.
  ///
  /// Promises 5 and 7, and the check that calls with a stale handle are refused. Shows when a place is used
  /// again while records for the former socket are on their way, or an application uses the name of a
  /// socket that is gone.
  case staleHandleAccepted

  /// Of a queue that needs several records, the handshake sends the first.
  ///
  /// Promise 3 at a merge, and 5: the pair lacks bytes. Shows when a socket is replicated with more in a
  /// buffer than a record takes: a record limit of a few hundred bytes.
  case onlyFirstPieceCopied

  /// Held packets are released as soon as the link is lost, while the secondary may still merge.
  ///
  /// Promises 1 to 3. Shows when the link is cut with records on their way, and the primary is lost within
  /// the pairs' license: an RE that dies piece by piece.
  case releasedAtLinkLoss

  /// A replication that the primary ends is over at once, and not when the secondary has let go.
  ///
  /// Promise 3 at a merge. Shows when the primary ends a replication (a timeout, the application's wish), the
  /// socket moves data, and the primary is lost with the word still on its way.
  case finishedBeforeTheSecondary

  /// The frames that waited while a replication came to its end are forgotten, and not put back on their way.
  ///
  /// Nothing is left behind: frames in the engine's store. Shows when the kernel sends while the secondary has
  /// yet to let go, or with a snooper that is slow just before.
  case waitingFramesLeak

  // MARK: SDRL

  /// A retransmission counts as known to the secondary since it was logged, not since it was acknowledged.
  ///
  /// Promise 2. Shows when the kernel retransmits bytes whose first copy is still held: an inter-RE link that
  /// is slower than the retransmission timeout, or duplicate acknowledgements.
  case retransmissionPassesUnheld

  /// Outgoing sequence numbers are compared as numbers.
  ///
  /// Promises 2 and 3. Shows when the outgoing stream passes 2³².
  case outgoingWrapForgotten

  /// Of a record the log gets the two halves, one after the other.
  ///
  /// Promise 9. Shows when the primary is lost with the second half on its way: the inter-RE stream arrives in
  /// pieces.
  case recordLoggedInPieces

  /// What the kernel has not taken of the records when replication ends is forgotten.
  ///
  /// Promise 9, and the streams. Shows when a socket is unreplicated for whatever reason with its send buffer full.
  case recordsForgottenAtEnd

  /// A segment leaves though the secondary does not know that so much may have been sent.
  ///
  /// Promise 3 at a merge. Shows when records fill the peer's window, and the primary is lost when it has just opened.
  case sendLimitNotAwaited

  /// A merge takes all that is in the log for sent.
  ///
  /// The streams: the merged socket's window is larger than the peer's. Shows when the primary is lost with more
  /// records in the log than the peer's window lets leave.
  case unsentCountsAsSent

  // MARK: PRL

  /// In overlap mode an acknowledgement without new data does not wait for what it acknowledges.
  ///
  /// Promise 1. Shows in overlap mode with any incoming data.
  case acknowledgementPassesUnheld

  /// In strict mode a copy of a packet is delivered at once, though the first one is held.
  ///
  /// Promise 1: the kernel acknowledges what it got. Shows in strict mode when the peer's packet is doubled, or
  /// sent again, before the secondary has it.
  case copyDeliveredUnheld

  /// The secondary keeps no bytes that arrive ahead of others.
  ///
  /// Promises 1 and 3. Shows when the peer's packets change places, or one is lost and sent again.
  case earlyBytesLost

  /// Of bytes that waited for others on the secondary, those that were shown meanwhile are shown again.
  ///
  /// Promise 5, `rcv`. Shows when a packet is ahead of others, and what fills the gap covers part of it: the
  /// peer cuts a retransmission otherwise than at first.
  case overlapShownTwice

  /// Bytes are logged before their checksum is looked at.
  ///
  /// Promise 5, `rcv`, and 3: the kernel discards the packet, and its retransmission counts as known. Shows
  /// when the network damages packets of the peer.
  case damageIsLogged

  /// A new primary lets packets through to its kernel for a socket that it has not begun to merge.
  ///
  /// The peer gets a reset. Shows when the peer sends between a takeover and the merge.
  case packetOvertakesTheMerge

  /// The secondary's word to go on stops the clock of the pause and not the pause.
  ///
  /// Liveness: the socket carries nothing new any more. Shows when a snooper is slow for less than
  /// `timeouts.prl`.
  case pauseNeverEnds

  /// A pause for one socket holds up the incoming data of all.
  ///
  /// Promise 7, and liveness, since nobody tells the others to go on. Shows with two sockets, one of which has a
  /// slow snooper.
  case onePausesAll

  // MARK: PSRM

  /// A segment that advertises more window does not wait until the secondary knows of it.
  ///
  /// Promise 4: at the moment itself, if the secondary's edge is compared; else at a merge. Shows when the
  /// application reads, the inter-RE link is slow, and the primary is lost.
  case windowEdgeNotAwaited

  /// A merge restores the window that was last heard of, and not the furthest that may have been advertised.
  ///
  /// Promise 4 at a merge. Shows when window was advertised by bare acknowledgements, of which no record
  /// tells, before the primary is lost.
  case windowEdgeBackAtMerge

  /// A merge takes what was sent for acknowledged.
  ///
  /// Promise 3 at a merge. Shows when bytes are on their way to the peer, or the peer's acknowledgement is, as
  /// the primary is lost.
  case unacknowledgedSkippedAtMerge

  /// A merge forgets that the primary has sent its FIN.
  ///
  /// Promise 3 at a merge; the peer sees bytes behind the end. Shows when the primary is lost after its
  /// application has closed and before the peer has.
  case finForgottenAtMerge

  /// A merged socket's timestamps go on from the last value that the secondary heard of.
  ///
  /// The clock of a connection never goes back (RFC 7323, section 5); liveness, with peers that discard old
  /// duplicates. Shows with timestamps, and bare acknowledgements that left since the last record.
  case clockNotAdvancedAtMerge

  /// What no segment record tells of the control block stays on the primary.
  ///
  /// The pair is in step again, within a bounded time: on the secondary, SND.UNA and `Occupancy.bufferedBytes`.
  /// Shows when the peer acknowledges and sends nothing; with a tiny hold limit also as replication that ends
  /// with `limitReached`.
  case controlBlockNeverFlushed

  // MARK: Datagrams

  /// An outgoing datagram leaves at once, and not when the secondary has it.
  ///
  /// Promise 2. Shows with any outgoing datagram.
  case datagramPassesUnheld

  /// A datagram between two ends belongs to the unconnected socket of the local end, even if a connected one is there.
  ///
  /// Promise 5: one pair lacks what the other shows. Shows when two sockets share their local end.
  case unconnectedFlowComesFirst

  /// The secondary forgets the datagrams of a handshake, which the primary's application had not read.
  ///
  /// Promise 5, `rcv`. Shows when a socket is replicated with something in its receive buffer.
  case unreadDatagramsForgotten

  /// An incoming datagram that finds the log full is delivered all the same.
  ///
  /// Promise 1: what leaves afterwards may answer what the secondary lacks. Shows with a small hold limit, and a
  /// secondary that is slow to acknowledge.
  case fullLogIsPassedBy

  /// What waited when the replication of a UDP socket ends goes on before what had been held until then.
  ///
  /// Datagrams keep their order. Shows when an application sends while the end is on its way to the secondary.
  case waitingOvertakesHeld

  // MARK: Mastership

  /// A primary whose lease ran out asks for a new one, instead of asking whether anybody took over.
  ///
  /// Two masters. Shows when a primary sleeps until the other has taken over, and its first step is a tick.
  case leaseRevivedAfterSleep

  /// A secondary takes over as soon as a probe has no answer, even if it has just heard the primary.
  ///
  /// Two masters. Shows when the uplink loses or delays probes or answers by 20 ms, or is cut between the REs,
  /// while the link works.
  case silenceNotAwaited

  /// Somebody who answers for the replicated addresses does not stop a takeover.
  ///
  /// Two masters. Shows when the link is lost for good, so that the lease has no end, and the primary's engine
  /// then sleeps for more than ten detection times; or when both paths lose keepalives and the uplink
  /// carries the probe.
  case probeAnswerIgnored

  /// The lease is prolonged before the keepalive that others count it from.
  ///
  /// Two masters, for less than one interval. Shows when the engine dies between the two (so between two actions
  /// of one tick), its kernel ends the link, and probes get no answer.
  case keepaliveAfterRenewal

  /// A planned switchover leaves the old primary's lease to run out by itself.
  ///
  /// Two masters. Shows with every planned switchover.
  case leaseOutlivesHandover

  /// Sockets that were lost with mastership, and are not silenced yet when it is gained again, stay that way.
  ///
  /// Promise 3: a socket is silenced that was merged meanwhile. Shows when mastership comes back soon, with more sockets
  /// than are silenced in one turn.
  case lostSocketsOutliveFence
}

#if PLANTED_BUGS
  extension PlantedBug {
    nonisolated(unsafe) fileprivate static var active: PlantedBug?
  }

  /// Chooses the fault of a test-only build.
  public enum Planting {
    /// What `plant` accepts: the names of the cases of `PlantedBug`.
    public static var names: [String] { PlantedBug.allCases.map(\.rawValue) }

    /// Puts one fault in force, or with `nil` none. To be called while no node works.
    ///
    /// - Returns: false if there is no fault of that name.
    public static func plant(_ name: String?) -> Bool {
      guard let name else {
        PlantedBug.active = nil
        return true
      }
      guard let bug = PlantedBug(rawValue: name) else { return false }
      PlantedBug.active = bug
      return true
    }
  }

  func planted(_ bug: PlantedBug) -> Bool { bug == PlantedBug.active }
#else
  @inline(__always) func planted(_: PlantedBug) -> Bool { false }
#endif

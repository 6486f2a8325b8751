import Control
import Descriptors
import EngineConfiguration
import Glibc
import LinuxNetworking
import Logging
import NIOCore
import Packet
import Replication

// What a change of mastership means for this machine: the lease, the addresses, and who is told.
extension Engine {
  // MARK: Lease

  func grantLease(_ duration: Nanoseconds, notAfter limit: Instant) {
    var succeeded = true
    do throws(PacketFilterError) {
      for instance in instances where succeeded {
        succeeded = Self.now() <= limit
        if succeeded { try instance.filter.grantLease(instance.addresses, for: duration.duration) }
      }
    } catch {
      logger.error("lease: \(error)")
      succeeded = false
    }
    if !succeeded { revokeLease() }
    node.leaseGranted(succeeded, now: Self.now())
  }

  func renewLease(_ duration: Nanoseconds?) {
    var succeeded = true
    for instance in instances {
      do throws(PacketFilterError) {
        if try !instance.filter.renewLease(instance.addresses, for: duration?.duration) { succeeded = false }
      } catch {
        logger.error("lease\(instance.mention): \(error)")
        succeeded = false
      }
    }
    if !succeeded {
      counters.leasesLost += 1
      logger.warning("mastership: the lease ran out before it was renewed")
    }
    node.leaseRenewed(succeeded, now: Self.now())
  }

  func revokeLease() {
    for instance in instances {
      do throws(PacketFilterError) {
        try instance.filter.revokeLease(instance.addresses)
      } catch {
        logger.error("lease\(instance.mention): \(error)")
      }
    }
  }

  // MARK: Addresses

  /// When a new primary announces its addresses, counted from the takeover: an announcement can be lost,
  /// and some switches learn slowly.
  static let announcementTimes: [TimeAmount] = [
    .zero, .milliseconds(10), .milliseconds(50), .milliseconds(200), .seconds(1), .seconds(3),
  ]

  func takeAddresses() {
    placeAddresses()
    cancelAnnouncements()
    announce()
    announcements = Self.announcementTimes.dropFirst().map { time in
      eventLoop.scheduleTask(in: time) { self.announce() }
    }
  }

  private func placeAddresses() {
    for instance in instances { placeAddresses(of: instance) }
  }

  private func placeAddresses(of instance: RoutingInstance) {
    instance.placeAddresses { replicated, error in
      logger.error("address \(replicated)\(instance.mention) cannot be placed: \(error)")
    }
  }

  private func announce() {
    for instance in instances { announce(instance) }
  }

  private func announce(_ instance: RoutingInstance) {
    guard node.arbiter.phase == .primary else { return }
    for address in instance.addresses {
      switch address.family {
      case .v4:
        for operation in [AddressResolution.Operation.request, .reply] {
          send(onUplinksOf: instance) { AddressResolution.announcement(of: address, at: $0, as: operation) }
        }
      case .v6: send(onUplinksOf: instance) { NeighborDiscovery.announcement(of: address, at: $0) }
      }
    }
  }

  private func cancelAnnouncements() {
    for announcement in announcements { announcement.cancel() }
    announcements = []
  }

  func dropAddresses() {
    cancelAnnouncements()
    for instance in instances { dropAddresses(of: instance) }
  }

  private func dropAddresses(of instance: RoutingInstance) {
    instance.removeAddresses { replicated, error in
      logger.error("address \(replicated)\(instance.mention) cannot be removed: \(error)")
    }
  }

  func endConnections() {
    for instance in instances { endConnections(of: instance) }
    tellOfLostMastership()
  }

  private func endConnections(of instance: RoutingInstance) {
    for address in instance.addresses {
      do throws(SystemError) {
        let count = try instance.endConnections(of: address)
        if count > 0 { logger.info("ended \(count) stale connections of \(address)\(instance.mention)") }
      } catch {
        logger.warning("stale connections of \(address)\(instance.mention) are left: \(error)")
      }
    }
    forgetUnsent(of: instance)
  }

  // MARK: Uplinks

  /// Takes up what has become of the uplinks. The addresses are on the first one that is there, and not lost on one that
  /// was down for a while, which takes those of IPv6 away (addrconf_ifdown, net/ipv6/addrconf.c).
  func lookAtUplinks(now: Instant) {
    for instance in instances { lookAtUplinks(of: instance, now: now) }
  }

  private func lookAtUplinks(of instance: RoutingInstance, now: Instant) {
    var isChanged = false
    instance.lookAtUplinks(now: now) { uplink, news in
      isChanged = true
      let name = uplink.name + instance.mention
      switch news {
      case .came: logger.notice("uplink \(name) is there")
      case .gone: logger.warning("uplink \(name) is gone")
      case .changed: logger.info("uplink \(name) has another MTU or hardware address")
      case .stirred: logger.debug("uplink \(name) has been touched")
      case .unusable(let reason): logger.error("uplink \(name) cannot be used: \(reason)")
      case .running: logger.info("uplink \(name) is running")
      case .down: logger.warning("uplink \(name) is down")
      }
    }
    guard isChanged, instance.holdsAddresses else { return }
    placeAddresses(of: instance)
    announce(instance)
  }

  /// What is listened to on every uplink: answers about addresses of families that are replicated, and keepalives.
  func uplinkReceivers(of instance: RoutingInstance) -> [Uplink.Receiver] {
    var receivers: [Uplink.Receiver] = [
      (.keepalives, { [unowned self] in uplinkKeepaliveArrived($0) })
    ]
    if instance.addresses.contains(where: { $0.family == .v4 }) {
      receivers.append((.addressResolution, { [unowned self] in addressResolutionArrived($0, in: instance) }))
    }
    if instance.addresses.contains(where: { $0.family == .v6 }) {
      receivers.append((.neighborDiscovery, { [unowned self] in neighborDiscoveryArrived($0, in: instance) }))
    }
    return receivers
  }

  func probeAddresses() {
    counters.probesSent += 1
    for instance in instances {
      for address in instance.addresses {
        send(onUplinksOf: instance) {
          switch address.family {
          case .v4: AddressResolution.probe(for: address, from: $0)
          case .v6: NeighborDiscovery.probe(for: address, from: $0)
          }
        }
      }
    }
  }

  private func addressResolutionArrived(_ buffer: ByteBuffer, in instance: RoutingInstance) {
    let message = buffer.withUnsafeReadableBytes { AddressResolution.Message($0) }
    guard let message, message.operation == .reply, !instance.owns(message.senderMAC),
      instance.has(message.sender)
    else { return }
    node.probeAnswered(now: Self.now())
  }

  /// The answer to a probe goes to all nodes, since the probe came from nobody. Its Ethernet source says who gave it;
  /// the address it names may be another one's, for whom it speaks.
  private func neighborDiscoveryArrived(_ buffer: ByteBuffer, in instance: RoutingInstance) {
    let answer = buffer.withUnsafeReadableBytes { frame in
      NeighborDiscovery.Message(frame).map { (message: $0, sender: Ethernet.source(frame)) }
    }
    guard let answer, answer.message.kind == .advertisement, !instance.owns(answer.sender),
      instance.has(answer.message.target)
    else { return }
    node.probeAnswered(now: Self.now())
  }

  func sendOnUplinks(_ keepalive: Keepalive) {
    let payload = keepalive.uplinkPayload()
    for instance in instances {
      send(onUplinksOf: instance) { hardwareAddress in
        // The least frame of Ethernet, without its checksum.
        var frame = [UInt8](repeating: 0, count: max(60, Ethernet.headerByteCount + payload.count))
        frame.withUnsafeMutableBytes { bytes in
          Ethernet.store(
            destination: .broadcast, source: hardwareAddress, type: Ethernet.typeLocalExperimental, in: bytes)
          bytes[Ethernet.headerByteCount...].copyBytes(from: payload)
        }
        return frame
      }
    }
  }

  private func uplinkKeepaliveArrived(_ buffer: ByteBuffer) {
    let keepalive = buffer.withUnsafeReadableBytes { frame -> Keepalive? in
      guard frame.count > Ethernet.headerByteCount else { return nil }
      return Keepalive(uplinkPayload: UnsafeRawBufferPointer(rebasing: frame[Ethernet.headerByteCount...]))
    }
    guard let keepalive else { return }
    node.uplinkReceived(keepalive, now: Self.now())
    settle()
  }

  private func send(onUplinksOf instance: RoutingInstance, _ frame: (MACAddress) -> [UInt8]) {
    counters.framesRefused += instance.sendOnUplinks(frame)
  }

  // MARK: Who is told

  func phaseChanged(_ phase: MastershipPhase) {
    switch phase {
    case .primary where becamePrimary == nil:
      tellOfLostMastership()
      becamePrimary = Self.now()
      publish(.mastershipGained)
    case .secondary where becamePrimary != nil:
      becamePrimary = nil
      owesMastershipLost = true
    default: break
    }
  }

  /// Behind what is told of each socket that was lost with it.
  private func tellOfLostMastership() {
    guard owesMastershipLost else { return }
    owesMastershipLost = false
    publish(.mastershipLost(reason: "the other RE is primary"))
  }

  func publish(_ kind: ControlEvent.Kind) {
    control?.publish(kind, to: .all)
  }

  /// Tells the owner of a handle, and whoever watches everything.
  func publish(_ kind: ControlEvent.Kind, to owner: ClientID?) {
    control?.publish(kind, to: .client(owner ?? ClientID(rawValue: 0)))
  }
}

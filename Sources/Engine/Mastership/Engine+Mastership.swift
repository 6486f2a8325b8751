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
  private var addresses: [IPAddress] { configuration.addresses.map(\.address) }

  // MARK: Lease

  func grantLease(_ duration: Nanoseconds, notAfter limit: Instant) {
    var succeeded = Self.now() <= limit
    if succeeded {
      do throws(PacketFilterError) {
        try filter.grantLease(addresses, for: duration.duration)
      } catch {
        logger.error("lease: \(error)")
        succeeded = false
      }
    }
    node.leaseGranted(succeeded, now: Self.now())
  }

  func renewLease(_ duration: Nanoseconds?) {
    var succeeded = false
    do throws(PacketFilterError) {
      succeeded = try filter.renewLease(addresses, for: duration?.duration)
    } catch {
      logger.error("lease: \(error)")
    }
    if !succeeded {
      counters.leasesLost += 1
      logger.warning("mastership: the lease ran out before it was renewed")
    }
    node.leaseRenewed(succeeded, now: Self.now())
  }

  func revokeLease() {
    do throws(PacketFilterError) {
      try filter.revokeLease(addresses)
    } catch {
      logger.error("lease: \(error)")
    }
  }

  // MARK: Addresses

  /// When a new primary announces its addresses, counted from the takeover: an announcement can be lost,
  /// and some switches learn slowly.
  static let announcementTimes: [TimeAmount] = [
    .zero, .milliseconds(10), .milliseconds(50), .milliseconds(200), .seconds(1), .seconds(3),
  ]

  func takeAddresses() {
    for replicated in configuration.addresses {
      do throws(SystemError) {
        try AddressConfiguration.add(
          replicated.address, prefixLength: UInt8(replicated.prefixLength), to: uplink)
      } catch {
        logger.error("address \(replicated) cannot be added: \(error)")
      }
    }
    cancelAnnouncements()
    announce()
    announcements = Self.announcementTimes.dropFirst().map { time in
      eventLoop.scheduleTask(in: time) { self.announce() }
    }
  }

  private func announce() {
    guard node.arbiter.phase == .primary else { return }
    for address in addresses {
      for operation in [AddressResolution.Operation.request, .reply] {
        sendPlain(
          AddressResolution.announcement(of: address, at: uplink.hardwareAddress, as: operation))
      }
    }
  }

  private func cancelAnnouncements() {
    for announcement in announcements { announcement.cancel() }
    announcements = []
  }

  func dropAddresses() {
    cancelAnnouncements()
    for replicated in configuration.addresses {
      do throws(SystemError) {
        try AddressConfiguration.remove(
          replicated.address, prefixLength: UInt8(replicated.prefixLength), from: uplink)
      } catch {
        logger.error("address \(replicated) cannot be removed: \(error)")
      }
      do throws(SystemError) {
        let count = try StaleConnections.destroy(local: replicated.address)
        if count > 0 { logger.info("ended \(count) stale connections of \(replicated.address)") }
      } catch {
        logger.warning("stale connections of \(replicated.address) are left: \(error)")
      }
    }
  }

  // MARK: Uplink

  func probeAddresses() {
    counters.probesSent += 1
    for address in addresses {
      sendPlain(AddressResolution.probe(for: address, from: uplink.hardwareAddress))
    }
  }

  func addressResolutionArrived(_ buffer: ByteBuffer) {
    let message = buffer.withUnsafeReadableBytes { AddressResolution.Message($0) }
    guard let message, message.operation == .reply, message.senderMAC != uplink.hardwareAddress,
      addresses.contains(message.sender)
    else { return }
    node.probeAnswered(now: Self.now())
  }

  func sendOnUplink(_ keepalive: Keepalive) {
    let payload = keepalive.uplinkPayload()
    // The least frame of Ethernet, without its checksum.
    var frame = [UInt8](repeating: 0, count: max(60, Ethernet.headerByteCount + payload.count))
    frame.withUnsafeMutableBytes { bytes in
      Ethernet.store(
        destination: .broadcast, source: uplink.hardwareAddress, type: Ethernet.typeLocalExperimental,
        in: bytes)
      bytes[Ethernet.headerByteCount...].copyBytes(from: payload)
    }
    sendPlain(frame)
  }

  func uplinkKeepaliveArrived(_ buffer: ByteBuffer) {
    let keepalive = buffer.withUnsafeReadableBytes { frame -> Keepalive? in
      guard frame.count > Ethernet.headerByteCount else { return nil }
      return Keepalive(uplinkPayload: UnsafeRawBufferPointer(rebasing: frame[Ethernet.headerByteCount...]))
    }
    guard let keepalive else { return }
    node.uplinkReceived(keepalive, now: Self.now())
    settle()
  }

  /// Sends a frame that needs no virtio-net header.
  private func sendPlain(_ frame: [UInt8]) {
    let bytes = [UInt8](repeating: 0, count: VirtioNetHeader.byteCount) + frame
    let error = bytes.withUnsafeBytes { packetSocket.send($0) }
    if error != 0 { counters.framesRefused += 1 }
  }

  // MARK: Who is told

  func phaseChanged(_ phase: MastershipPhase) {
    switch phase {
    case .primary where !announcedPrimary:
      announcedPrimary = true
      publish(.mastershipGained)
    case .secondary where announcedPrimary:
      announcedPrimary = false
      publish(.mastershipLost(reason: "the other RE is primary"))
    default: break
    }
  }

  func publish(_ kind: ControlEvent.Kind) {
    control?.publish(kind, to: .all)
  }

  /// Tells the owner of a handle, and whoever watches everything.
  func publish(_ kind: ControlEvent.Kind, to owner: ClientID?) {
    control?.publish(kind, to: .client(owner ?? ClientID(rawValue: 0)))
  }
}

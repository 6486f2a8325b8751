import EngineConfiguration
import Glibc
import LinuxNetworking
import NIOCore
import Packet
import Replication

// The way of a packet: from the TAP device to a verdict, and out again.
extension Engine {
  /// One frame from the TAP device of an uplink, behind its virtio-net header.
  func frameArrived(_ buffer: ByteBuffer, on uplink: Uplink) {
    uplink.counters.framesRead += 1
    judge(buffer, on: uplink)
    batchIsFresh = false
  }

  /// Judges what waits in the queue of a TAP device.
  func readFrames(of uplink: Uplink, atMost limit: Int) {
    for _ in 0..<limit {
      guard let frame = uplink.readFrame() else { break }
      frameArrived(frame, on: uplink)
    }
  }

  /// Judges all that was in the queues of the TAP devices when this was called.
  func readWaitingFrames() {
    for uplink in instances.lazy.flatMap(\.uplinks) {
      readFrames(of: uplink, atMost: Int(TapDevice.queueLength))
    }
    batchIsFresh = true
  }

  /// The routing instance of this name; `nil` if only the other RE has it.
  func instance(_ id: RoutingInstanceID) -> RoutingInstance? { instances.first { $0.id == id } }

  func instance(of flow: Flow) -> RoutingInstance? { instance(flow.instance) }

  /// There are no more frames for now.
  ///
  /// What a peer sends waits for company, in overlap mode: nothing waits for its record until the kernel has something to
  /// say, mostly in a moment; then both go in one piece, and are acknowledged in one. So does what has changed of a control
  /// block. The next tick takes the rest.
  func frameBatchEnded() {
    batchIsFresh = true
    stayAwake()
    if linkIsUrgent || link.unflushedByteCount >= Self.lazyByteCount || hasDueRecords {
      node.flushBlocks(now: Self.now())
      settle()
    } else {
      flushSteering()
      flushMirroring()
    }
  }

  /// Bytes of records that nobody waits for are written when there are so many.
  static let lazyByteCount = 32 << 10

  /// - Parameter fragments: the frames that the packet came in, if these are several.
  private func judge(_ buffer: ByteBuffer, fragments: [ByteBuffer] = [], on uplink: Uplink) {
    buffer.withUnsafeReadableBytes { bytes in
      guard bytes.count > VirtioNetHeader.byteCount + Ethernet.headerByteCount else {
        counters.framesIgnored += 1
        return
      }
      let frame = UnsafeRawBufferPointer(rebasing: bytes[VirtioNetHeader.byteCount...])
      // The TAP device has the address of the uplink, so frames need no rewriting on their way, and the
      // source tells where a frame came from.
      let isOutbound = Ethernet.source(frame) == uplink.hardwareAddress
      let now = Self.now()
      let verdict: Verdict
      var isDatagram = false
      if let packet = TCPPacket(frame) {
        verdict =
          isOutbound
          ? node.outbound(
            packet, reference: store.nextReference, byteCount: bytes.count, instance: uplink.instance,
            now: now)
          : node.inbound(
            packet, reference: store.nextReference, byteCount: bytes.count, instance: uplink.instance,
            now: now
          ) {
            (VirtioNetHeader(bytes).checksumIsTrusted || packet.checksumIsValid(frame))
              && (signedFlows.isEmpty || signatureIsValid(packet, frame, in: uplink.instance, now: now))
          }
      } else if let packet = UDPPacket(frame) {
        isDatagram = true
        verdict =
          isOutbound
          ? node.outbound(
            packet, reference: store.nextReference, byteCount: bytes.count, instance: uplink.instance,
            now: now)
          : node.inbound(
            packet, reference: store.nextReference, byteCount: bytes.count, instance: uplink.instance,
            now: now
          ) {
            VirtioNetHeader(bytes).checksumIsTrusted || packet.checksumIsValid(frame)
          }
      } else if let fragment = IPFragment(frame) {
        return collect(fragment, buffer, isOutbound: isOutbound, on: uplink, now: now)
      } else if let number = QueueMark.number(of: frame) {
        return markArrived(number, on: uplink)
      } else if fragments.isEmpty {
        counters.framesIgnored += 1
        return
      } else {
        // Not one of ours: its fragments were steered since their addresses are.
        verdict = .pass
      }
      if verdict == .hold { store.put(buffer, fragments: fragments, isOutbound: isOutbound, on: uplink) }
      if verdict == .hold || isDatagram { linkIsUrgent = true }
      if !node.actions.isEmpty { drain(.packet(buffer)) }
      // Most packets come alone: the round trip to the other RE begins before anything else is done, where the packet
      // itself has to wait for it.
      if batchIsFresh, verdict == .hold {
        node.flushBlocks(now: now)
        drain(.nothing)
        flushLink()
      }
      if verdict == .pass { emit(buffer, fragments, isOutbound: isOutbound, on: uplink) }
    }
  }

  /// Keeps a fragment until its packet is whole, which is judged then.
  private func collect(
    _ fragment: IPFragment, _ buffer: ByteBuffer, isOutbound: Bool, on uplink: Uplink, now: Instant
  ) {
    switch fragments.add(fragment, buffer, isOutbound: isOutbound, instance: uplink.instance, now: now) {
    case .kept: break
    case .dropped(let count): counters.fragmentsDropped += UInt64(count)
    case .complete(let packet, let frames): judge(packet, fragments: frames, on: uplink)
    }
  }

  func expireFragments(now: Instant) { counters.fragmentsDropped += UInt64(fragments.expire(now: now)) }

  /// Puts a packet back on its way, as it came.
  private func emit(_ packet: ByteBuffer, _ fragments: [ByteBuffer], isOutbound: Bool, on uplink: Uplink) {
    if fragments.isEmpty {
      packet.withUnsafeReadableBytes { emit($0, isOutbound: isOutbound, on: uplink) }
    } else {
      for fragment in fragments {
        fragment.withUnsafeReadableBytes { emit($0, isOutbound: isOutbound, on: uplink) }
      }
    }
  }

  private func emit(_ bytes: UnsafeRawBufferPointer, isOutbound: Bool, on uplink: Uplink) {
    let error: Int32
    if isOutbound {
      error = uplink.send(bytes)
      uplink.counters.framesSent += 1
    } else {
      error = uplink.deliver(bytes)
      uplink.counters.framesDelivered += 1
    }
    if error != 0 { counters.framesRefused += 1 }
  }

  /// A segment that the protocol sends itself.
  func send(_ acknowledgment: Acknowledgment) {
    let flow = acknowledgment.flow
    let builder = TCPFrameBuilder(
      sourceMAC: .zero, destinationMAC: .zero, source: flow.local, destination: flow.remote,
      signingKey: signedFlows[flow]?.key)
    sendBuilt(
      builder.frame(
        sequence: acknowledgment.sequence, acknowledgment: acknowledgment.acknowledgment, flags: .ack,
        window: acknowledgment.window, timestamps: acknowledgment.timestamps,
        payload: UnsafeRawBufferPointer(start: nil, count: 0)), along: flow)
  }

  /// Sends a frame that the engine has built. The kernel finds the way and the peer's hardware address.
  func sendBuilt(_ frame: [UInt8], along flow: Flow) {
    let error = frame.withUnsafeBytes {
      instance(of: flow)?.send(
        UnsafeRawBufferPointer(rebasing: $0[Ethernet.headerByteCount...]), to: flow.remote.address) ?? ENODEV
    }
    if error != 0 { counters.framesRefused += 1 }
  }

  func release(_ reference: FrameReference) {
    let frame = store.take(reference)
    emit(frame.bytes, frame.fragments, isOutbound: frame.isOutbound, on: frame.uplink)
  }

  func replay(_ reference: FrameReference) {
    let frame = store.take(reference)
    judge(frame.bytes, fragments: frame.fragments, on: frame.uplink)
  }

  /// A frame that reached the other RE: as if it had arrived here.
  func inject(_ bytes: UnsafeRawBufferPointer, _ id: RoutingInstanceID) {
    guard bytes.count > VirtioNetHeader.byteCount + Ethernet.headerByteCount else { return }
    guard let uplink = instance(id)?.defaultUplink else { return }
    var buffer = ByteBuffer(bytes: bytes)
    buffer.withUnsafeMutableReadableBytes { bytes in
      uplink.hardwareAddress.store(in: bytes, at: VirtioNetHeader.byteCount)
    }
    judge(buffer, on: uplink)
  }
}

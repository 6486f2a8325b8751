import EngineConfiguration
import LinuxNetworking
import NIOCore
import Packet
import Replication

// The way of a packet: from the TAP device to a verdict, and out again.
extension Engine {
  /// One frame from the TAP device of an uplink, behind its virtio-net header.
  func frameArrived(_ buffer: ByteBuffer, on uplink: Uplink) {
    counters.framesRead += 1
    judge(buffer, on: uplink)
    batchIsFresh = false
  }

  /// There are no more frames for now.
  func frameBatchEnded() {
    batchIsFresh = true
    node.flushBlocks(now: Self.now())
    settle()
  }

  private func judge(_ buffer: ByteBuffer, on uplink: Uplink) {
    buffer.withUnsafeReadableBytes { bytes in
      guard bytes.count > VirtioNetHeader.byteCount + Ethernet.headerByteCount else {
        counters.framesIgnored += 1
        return
      }
      let frame = UnsafeRawBufferPointer(rebasing: bytes[VirtioNetHeader.byteCount...])
      // The TAP device has the address of the uplink, so frames need no rewriting on their way, and the
      // source tells where a frame came from.
      let isOutbound = Ethernet.source(frame) == uplink.interface.hardwareAddress
      guard let packet = TCPPacket(frame) else {
        counters.framesIgnored += 1
        return
      }
      let now = Self.now()
      let verdict =
        isOutbound
        ? node.outbound(packet, reference: store.nextReference, byteCount: bytes.count, now: now)
        : node.inbound(packet, reference: store.nextReference, byteCount: bytes.count, now: now) {
          (VirtioNetHeader(bytes).checksumIsTrusted || packet.checksumIsValid(frame))
            && (signedFlows.isEmpty || signatureIsValid(packet, frame, now: now))
        }
      if verdict == .hold { store.put(buffer, isOutbound: isOutbound, on: uplink) }
      if !node.actions.isEmpty {
        drain(.packet(buffer))
        // Most packets come alone: the round trip to the other RE begins before anything else is done, where
        // the packet itself has to wait for it. In overlap mode an inbound one does not; it is delivered
        // first, and its record goes out at the end of the batch.
        if batchIsFresh, isOutbound || configuration.mode == .strict { link.flush() }
      }
      if verdict == .pass { emit(bytes, isOutbound: isOutbound, on: uplink) }
    }
  }

  /// Puts a frame back on its way.
  private func emit(_ bytes: UnsafeRawBufferPointer, isOutbound: Bool, on uplink: Uplink) {
    let error: Int32
    if isOutbound {
      error = uplink.send(bytes)
      counters.framesSent += 1
    } else {
      error = uplink.deliver(bytes)
      counters.framesDelivered += 1
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
        payload: UnsafeRawBufferPointer(start: nil, count: 0)), to: flow.remote.address)
  }

  /// Sends a frame that the engine has built. The kernel finds the way and the peer's hardware address.
  func sendBuilt(_ frame: [UInt8], to address: IPAddress) {
    let error = frame.withUnsafeBytes {
      instance.send(UnsafeRawBufferPointer(rebasing: $0[Ethernet.headerByteCount...]), to: address)
    }
    if error != 0 { counters.framesRefused += 1 }
  }

  func release(_ reference: FrameReference) {
    let frame = store.take(reference)
    frame.bytes.withUnsafeReadableBytes { emit($0, isOutbound: frame.isOutbound, on: frame.uplink) }
  }

  func replay(_ reference: FrameReference) {
    let frame = store.take(reference)
    judge(frame.bytes, on: frame.uplink)
  }

  /// A frame that reached the other RE: as if it had arrived here.
  func inject(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count > VirtioNetHeader.byteCount + Ethernet.headerByteCount else { return }
    let uplink = instance.defaultUplink
    var buffer = ByteBuffer(bytes: bytes)
    buffer.withUnsafeMutableReadableBytes { bytes in
      uplink.interface.hardwareAddress.store(in: bytes, at: VirtioNetHeader.byteCount)
    }
    judge(buffer, on: uplink)
  }
}

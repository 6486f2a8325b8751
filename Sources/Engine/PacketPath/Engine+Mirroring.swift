import DequeModule
import LinuxNetworking
import Logging
import Packet
import Replication

/// A frame that the engine sends itself through the queue of a TAP device: what is read before it was in the queue when
/// the packet filter was changed.
enum QueueMark {
  /// For local experiments (IEEE Std 802, table 3): nobody else sends it, and the packet filter forwards nothing of it.
  private static let etherType: UInt16 = 0x88B5
  private static let byteCount = Ethernet.headerByteCount + 8

  /// Behind its virtio-net header.
  static func frame(_ number: UInt64) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: VirtioNetHeader.byteCount + byteCount)
    bytes.withUnsafeMutableBytes { bytes in
      let frame = UnsafeMutableRawBufferPointer(rebasing: bytes[VirtioNetHeader.byteCount...])
      frame.storeBigEndian(etherType, at: Ethernet.headerByteCount - 2)
      frame.storeBigEndian(number, at: Ethernet.headerByteCount)
    }
    return bytes
  }

  /// Of a frame without virtio-net header; `nil` if it is no mark.
  static func number(of frame: UnsafeRawBufferPointer) -> UInt64? {
    guard frame.count == byteCount,
      frame.bigEndian(at: Ethernet.headerByteCount - 2, as: UInt16.self) == etherType
    else { return nil }
    return frame.bigEndian(at: Ethernet.headerByteCount, as: UInt64.self)
  }
}

/// Marks that are on their way through the queues of TAP devices.
struct QueueMarks {
  /// What is true of frames that are read behind the mark.
  enum Meaning {
    case mirrored([Flow])
    case mirroringEnded([Flow])
  }

  private struct Entry {
    var number: UInt64
    var meaning: Meaning
    /// The uplinks by whose TAP devices it has not come yet.
    var missing: [ObjectIdentifier]
    var sentAt: Instant
  }

  /// How long the fullest queue takes at most to be read.
  private static let patience = Nanoseconds.seconds(1)

  private var entries = Deque<Entry>()
  private var lastNumber: UInt64 = 0

  /// - Returns: the number of a mark that is about to be sent.
  mutating func add(_ meaning: Meaning, through uplinks: [Uplink], now: Instant) -> UInt64 {
    lastNumber += 1
    entries.append(
      Entry(number: lastNumber, meaning: meaning, missing: uplinks.map { ObjectIdentifier($0) }, sentAt: now))
    return lastNumber
  }

  /// - Returns: what is true from now on.
  mutating func arrived(_ number: UInt64, on uplink: Uplink) -> Meaning? {
    guard let place = entries.firstIndex(where: { $0.number == number }) else { return nil }
    entries[place].missing.removeAll { $0 == ObjectIdentifier(uplink) }
    return entries[place].missing.isEmpty ? entries.remove(at: place).meaning : nil
  }

  /// Marks that will not come any more: they found a queue full.
  mutating func takeOverdue(now: Instant) -> [Meaning] {
    var result: [Meaning] = []
    while let first = entries.first, now - first.sentAt >= Self.patience {
      result.append(first.meaning)
      entries.removeFirst()
    }
    return result
  }
}

// What the kernel may have at once, while the engine takes note of it: in overlap mode, what peers send.
extension Engine {
  /// Mirrors the flows that have been collected, in one transaction.
  func flushMirroring() {
    guard !mirrorAdditions.isEmpty else { return }
    let additions = mirrorAdditions
    mirrorAdditions.removeAll(keepingCapacity: true)
    for (id, flows) in Dictionary(grouping: additions, by: \.instance) {
      guard let instance = instance(id) else { continue }
      do throws(PacketFilterError) {
        try instance.filter.mirror(flows)
      } catch {
        // Steered as they are, they come by the engine as before.
        logger.warning("\(flows.count) flows\(instance.mention) are not mirrored: \(error)")
        continue
      }
      pendingMirrors.formUnion(flows)
      mark(.mirrored(flows), in: instance)
    }
  }

  func endMirroring() {
    mirrorAdditions = []
    pendingMirrors = []
    for instance in instances {
      do throws(PacketFilterError) {
        try instance.filter.endMirroring()
      } catch {
        logger.error("flows\(instance.mention) are still mirrored: \(error)")
      }
    }
  }

  /// Behind a change of the packet filter.
  func mark(_ meaning: QueueMarks.Meaning, in instance: RoutingInstance) {
    let frame = QueueMark.frame(queueMarks.add(meaning, through: instance.uplinks, now: Self.now()))
    for uplink in instance.uplinks where uplink.enqueue(frame) != 0 { counters.framesRefused += 1 }
  }

  func markArrived(_ number: UInt64, on uplink: Uplink) {
    switch queueMarks.arrived(number, on: uplink) {
    case nil: break
    case .mirrored(let flows):
      // Some may have been steered anew meanwhile.
      for flow in flows where pendingMirrors.remove(flow) != nil { node.mirrored(flow) }
    case .mirroringEnded(let flows): for flow in flows { node.mirroringEnded(flow) }
    }
  }

  func expireMarks(now: Instant) {
    for meaning in queueMarks.takeOverdue(now: now) {
      switch meaning {
      case .mirrored(let flows): stopMirroring(flows.filter { pendingMirrors.remove($0) != nil })
      case .mirroringEnded(let flows): for flow in flows { node.mirroringEnded(flow) }
      }
    }
  }

  /// It is not known which frames of these flows are copies: none is to be.
  private func stopMirroring(_ flows: [Flow]) {
    for (id, flows) in Dictionary(grouping: flows, by: \.instance) {
      guard let instance = instance(id) else { continue }
      logger.warning(
        "\(flows.count) flows\(instance.mention) are not mirrored: the TAP device's queue was full")
      do throws(PacketFilterError) {
        try instance.filter.steer(adding: flows.filter(instance.filter.isMirrored))
      } catch {
        logger.error("\(flows.count) flows\(instance.mention) are still mirrored: \(error)")
      }
    }
  }
}

import NIOCore
import Packet
import Replication

/// The fragments of datagrams, until all of one have come: only then is it known what is in the datagram, and whose it
/// is. A whole one goes on as the fragments that it came as.
///
/// The limits are the kernel's (ipfrag_time, ipfrag_high_thresh, ip-sysctl): what is lost here would have been lost
/// there.
struct FragmentBuffer {
  enum Outcome {
    /// It is kept.
    case kept
    /// So many frames are of no use, this one among them.
    case dropped(Int)
    /// The packet, behind a virtio-net header that vouches for nothing, and the frames it came in.
    case complete(ByteBuffer, fragments: [ByteBuffer])
  }

  private struct Key: Hashable {
    var identity: IPFragment.Identity
    var isOutbound: Bool
    var instance: RoutingInstanceID
  }

  private struct Entry {
    var assembly = FragmentAssembly()
    var frames: [ByteBuffer] = []
    var byteCount = 0
    var since: Instant
  }

  private var entries: [Key: Entry] = [:]
  /// Bytes of all frames kept.
  private(set) var byteCount = 0
  private let allocator = ByteBufferAllocator()

  static let lifetime = Nanoseconds.seconds(30)
  static let byteLimit = 4 << 20

  /// Frames kept.
  var count: Int { entries.values.reduce(0) { $0 + $1.frames.count } }

  /// Takes in a frame, virtio-net header first, of which `fragment` was read.
  mutating func add(
    _ fragment: IPFragment, _ buffer: ByteBuffer, isOutbound: Bool, instance: RoutingInstanceID, now: Instant
  ) -> Outcome {
    let key = Key(identity: fragment.identity, isOutbound: isOutbound, instance: instance)
    guard byteCount + buffer.readableBytes <= Self.byteLimit else { return .dropped(1 + forget(key)) }
    var entry = entries.removeValue(forKey: key) ?? Entry(since: now)
    let outcome = buffer.withUnsafeReadableBytes {
      entry.assembly.add(fragment, UnsafeRawBufferPointer(rebasing: $0[VirtioNetHeader.byteCount...]))
    }
    switch outcome {
    case .spoilt:
      byteCount -= entry.byteCount
      return .dropped(entry.frames.count + 1)
    case .duplicate:
      entries[key] = entry
      return .dropped(1)
    case .incomplete:
      entry.frames.append(copy(buffer))
      entry.byteCount += buffer.readableBytes
      byteCount += buffer.readableBytes
      entries[key] = entry
      return .kept
    case .complete(let packet):
      byteCount -= entry.byteCount
      var whole = allocator.buffer(capacity: VirtioNetHeader.byteCount + packet.count)
      whole.writeRepeatingByte(0, count: VirtioNetHeader.byteCount)
      whole.writeBytes(packet)
      return .complete(whole, fragments: entry.frames + [copy(buffer)])
    }
  }

  /// Gives up what has waited too long.
  ///
  /// - Returns: how many frames that were.
  mutating func expire(now: Instant) -> Int {
    let late = entries.filter { now - $0.value.since >= Self.lifetime }.keys
    return late.reduce(0) { $0 + forget($1) }
  }

  private mutating func forget(_ key: Key) -> Int {
    guard let entry = entries.removeValue(forKey: key) else { return 0 }
    byteCount -= entry.byteCount
    return entry.frames.count
  }

  /// Out of the large buffer that it was read into.
  private func copy(_ buffer: ByteBuffer) -> ByteBuffer {
    var kept = allocator.buffer(capacity: buffer.readableBytes)
    kept.writeImmutableBuffer(buffer)
    return kept
  }
}

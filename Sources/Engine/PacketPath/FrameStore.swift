import NIOCore
import Replication

/// The frames that are held, each under the number by which the protocol knows it.
///
/// Places are used again, so that holding a frame costs no growth once the store has seen its busiest
/// moment. The protocol bounds how much is held.
struct FrameStore {
  /// A frame and the way it was going.
  struct Frame {
    /// The virtio-net header, then the frame.
    var bytes: ByteBuffer
    /// The frames that it came in, if these are several: what goes on its way then.
    var fragments: [ByteBuffer]
    var isOutbound: Bool
    /// Where it came from, and is to go on.
    var uplink: Uplink
  }

  private var frames: [Frame?] = []
  private var freePlaces: [Int32] = []
  private let allocator = ByteBufferAllocator()

  /// Frames held.
  var count: Int { frames.count - freePlaces.count }

  /// What the next frame that is put in will be called.
  var nextReference: FrameReference { FrameReference(freePlaces.last ?? Int32(frames.count)) }

  /// Above this size a frame keeps the large buffer it was read into; below, it is copied out of it, since
  /// a small frame would keep 64 KiB alive.
  static let copyThreshold = 32 << 10

  mutating func put(
    _ bytes: ByteBuffer, fragments: [ByteBuffer] = [], isOutbound: Bool, on uplink: Uplink
  ) {
    var kept = bytes
    if bytes.readableBytes < Self.copyThreshold {
      kept = allocator.buffer(capacity: bytes.readableBytes)
      kept.writeImmutableBuffer(bytes)
    }
    let frame = Frame(bytes: kept, fragments: fragments, isOutbound: isOutbound, uplink: uplink)
    if let place = freePlaces.popLast() {
      frames[Int(place)] = frame
    } else {
      frames.append(frame)
    }
  }

  mutating func take(_ reference: FrameReference) -> Frame {
    let place = Int(reference.rawValue)
    guard let frame = frames[place] else { preconditionFailure("a held frame is taken once") }
    frames[place] = nil
    freePlaces.append(reference.rawValue)
    return frame
  }
}

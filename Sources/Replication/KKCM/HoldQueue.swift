import DequeModule

/// A frame that the engine keeps in its store; the protocol knows it by this number only.
public struct FrameReference: Hashable, Sendable {
  public var rawValue: Int32
  @inlinable public init(_ rawValue: Int32) { self.rawValue = rawValue }
}

/// Packets that wait for the secondary, in the order in which they may go.
///
/// Each carries the log position that must be acknowledged first. Positions only rise along the queue, so
/// release is one comparison at its head.
struct HoldQueue {
  struct Entry {
    var required: LogPosition
    var frame: FrameReference
    var byteCount: Int32
    var socket: Int32
    var generation: UInt32
    var isOutbound: Bool
    /// It has to be judged again before it goes.
    var isUnjudged = false
  }

  private var entries = Deque<Entry>()
  /// Bytes of all frames held.
  private(set) var byteCount = 0

  var count: Int { entries.count }
  var first: Entry? { entries.first }

  mutating func append(_ entry: Entry) {
    assert(entry.required >= lastRequired, "release is one comparison at the head")
    entries.append(entry)
    lastRequired = entry.required
    byteCount += Int(entry.byteCount)
  }

  /// The position an entry appended now must at least require, to keep the order.
  private(set) var lastRequired: LogPosition = 0

  mutating func removeFirst() -> Entry {
    let entry = entries.removeFirst()
    byteCount -= Int(entry.byteCount)
    if entries.isEmpty { lastRequired = 0 }
    return entry
  }

  /// Takes the entries of one socket out of the queue, wherever they stand in it.
  mutating func removeAll(ofSocket socket: Int32, generation: UInt32) -> [Entry] {
    var taken: [Entry] = []
    entries.removeAll { entry in
      guard entry.socket == socket, entry.generation == generation else { return false }
      taken.append(entry)
      byteCount -= Int(entry.byteCount)
      return true
    }
    lastRequired = entries.last?.required ?? 0
    return taken
  }
}

import Replication

/// The channel over which an application gives records of one socket to the engine of its RE: a bounded buffer of the
/// kernel's, with a process at either end.
final class RecordPipe {
  let conversation: Conversation
  /// Position in the stream of the next record that the engine takes.
  private(set) var takenUpTo: Int
  /// Position of the next record that the application gives.
  private(set) var givenUpTo: Int
  /// What is in the kernel's buffer, with the counts that stand before records.
  private var buffer: [UInt8] = []
  /// What the buffer had no room for: the rest of a record.
  private var rest: ArraySlice<UInt8> = []
  let capacity: Int
  /// The application will give no more, or is gone.
  var hasEnded = false
  /// The engine takes no more: it has said so, or is gone.
  var isShut = false
  /// Where the stream stands, now that all that was taken is written.
  var endedAt: Int?

  // The engine's side.
  private var framing: RecordFraming
  /// A record that has to wait.
  private(set) var waiting: [UInt8]?

  init(_ conversation: Conversation, at position: Int, capacity: Int, limit: Int) {
    self.conversation = conversation
    takenUpTo = position
    givenUpTo = position
    self.capacity = capacity
    framing = RecordFraming(limit: limit)
  }

  // MARK: The application

  var mustWait: Bool { !rest.isEmpty }

  func give(upTo end: Int) {
    let count = UInt32(end - givenUpTo)
    let prefix = withUnsafeBytes(of: count.bigEndian) { Array($0) }
    rest = (prefix + conversation.localBytes(givenUpTo..<end))[...]
    givenUpTo = end
    push()
  }

  func push() {
    let count = min(rest.count, capacity - buffer.count)
    buffer += rest.prefix(count)
    rest = rest.dropFirst(count)
  }

  // MARK: The engine

  /// Everything that was given is taken, or was never whole.
  var isDry: Bool { buffer.isEmpty && waiting == nil }

  /// The next whole record, with headroom; `nil` if there is none yet.
  func next() -> [UInt8]? {
    if let record = waiting {
      waiting = nil
      return record
    }
    while !buffer.isEmpty {
      guard let (used, record) = try? buffer.withUnsafeBytes({ try framing.take($0) }) else { return nil }
      buffer.removeFirst(used)
      if let record { return record }
    }
    return nil
  }

  func putBack(_ record: [UInt8]) { waiting = record }

  func noteTaken(_ count: Int) -> Range<Int> {
    defer { takenUpTo += count }
    return takenUpTo..<takenUpTo + count
  }
}

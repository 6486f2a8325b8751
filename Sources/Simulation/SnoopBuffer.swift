/// One stream of a snoop pair, as the engine fills it and the application reads it: only counted, since every
/// byte is checked when it is written.
struct SnoopBuffer {
  /// Position in the stream of the first byte.
  let start: Int
  /// Bytes written so far.
  private(set) var written = 0
  /// Bytes that the application has read.
  private(set) var read = 0
  /// Bytes that wait in the engine, outside the socket.
  private(set) var queued = 0
  /// Bytes promised and not yet written.
  private(set) var reserved = 0
  /// Bytes that have come to this RE, whether written or promised.
  private(set) var received = 0
  private(set) var hasEnded = false
  /// Something found no room: what comes behind it must not be shown.
  private var hasOverflowed = false
  /// Of a UDP socket: what was written, each with the position behind it.
  private var datagrams: [(datagram: ModelDatagram, end: Int)] = []
  let socketCapacity: Int
  let limit: Int

  init(start: Int, socketCapacity: Int, limit: Int) {
    self.start = start
    self.socketCapacity = socketCapacity
    self.limit = limit
  }

  /// Bytes that the application could read now.
  var readable: Int { written - read - queued }
  /// Position of the next byte that will be written.
  var end: Int { start + written }

  mutating func reserve(_ count: Int) -> Bool {
    guard !hasOverflowed, queued + reserved + count <= limit else {
      hasOverflowed = true
      return false
    }
    reserved += count
    received += count
    return true
  }

  mutating func write(_ count: Int) {
    reserved = max(0, reserved - count)
    written += count
    queued += count
    refill()
  }

  mutating func write(_ datagram: ModelDatagram) {
    write(Self.byteCount(ofDatagramOf: datagram.byteCount))
    datagrams.append((datagram, end))
  }

  /// What a datagram with so many bytes of payload takes of the buffers.
  static func byteCount(ofDatagramOf count: Int) -> Int { count + 40 }

  mutating func take(_ count: Int) {
    read += count
    refill()
  }

  private mutating func refill() { queued -= min(queued, max(0, socketCapacity - readable)) }

  mutating func finish() { hasEnded = true }

  /// The datagrams that the application has not read to their ends; it will not see them here any more.
  mutating func takeBackDatagrams() -> [ModelDatagram] {
    let unread = takeBack()
    return datagrams.filter { $0.end > unread.lowerBound }.map(\.datagram)
  }

  /// What the application has not read; it will not see it here any more.
  mutating func takeBack() -> Range<Int> {
    let range = (start + read)..<(start + written)
    read = written
    queued = 0
    hasEnded = true
    return range
  }
}

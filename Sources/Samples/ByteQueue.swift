/// Bytes in the order in which they came, taken from the front.
///
/// One piece of contiguous memory, so that its whole content can be given to one system call. Storage
/// that was needed once for a burst is given back when the queue runs empty.
struct ByteQueue: Sendable {
  /// What an empty queue keeps, in bytes.
  private static let retainedCapacity = 256 * 1024

  private var storage: [UInt8] = []
  private var head = 0

  var count: Int { storage.count - head }
  var isEmpty: Bool { head == storage.count }

  mutating func append(_ bytes: UnsafeRawBufferPointer) {
    makeRoom(for: bytes.count)
    storage.append(contentsOf: bytes)
  }

  /// Appends `count` bytes that `fill` writes.
  mutating func append(count: Int, _ fill: (UnsafeMutableRawBufferPointer) -> Void) {
    makeRoom(for: count)
    storage.append(contentsOf: repeatElement(0, count: count))
    storage.withUnsafeMutableBytes { fill(UnsafeMutableRawBufferPointer(rebasing: $0.suffix(count))) }
  }

  /// Calls `body` with everything that is in the queue.
  func withBytes<Result, Failure: Error>(
    _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let result = storage.withUnsafeBytes { bytes -> Swift.Result<Result, Failure> in
      do throws(Failure) {
        return .success(try body(UnsafeRawBufferPointer(rebasing: bytes[head...])))
      } catch {
        return .failure(error)
      }
    }
    return try result.get()
  }

  mutating func removeFirst(_ count: Int) {
    precondition(count <= self.count, "more bytes taken than there are")
    head += count
    if head == storage.count {
      head = 0
      storage.removeAll(keepingCapacity: storage.capacity <= Self.retainedCapacity)
    }
  }

  private mutating func makeRoom(for count: Int) {
    // Moving costs at most what was appended since the last move, as long as half of it was taken.
    if storage.count + count > storage.capacity, head >= storage.count - head {
      storage.removeSubrange(..<head)
      head = 0
    }
  }
}

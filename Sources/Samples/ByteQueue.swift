/// Bytes in the order in which they came, taken from the front.
///
/// One piece of contiguous memory, so that its whole content can be given to one system call. Storage
/// that was needed once for a burst is given back when the queue runs empty.
struct ByteQueue: Sendable {
  /// What an empty queue keeps, in bytes.
  private static let retainedCapacity = 256 * 1024

  private var storage: [UInt8] = []
  private var head = 0
  private var tail = 0

  var count: Int { tail - head }
  var isEmpty: Bool { head == tail }

  mutating func append(_ bytes: UnsafeRawBufferPointer) {
    append(count: bytes.count) { $0.copyMemory(from: bytes) }
  }

  /// Appends `count` bytes that `fill` writes.
  mutating func append(count: Int, _ fill: (UnsafeMutableRawBufferPointer) -> Void) {
    guard count > 0 else { return }
    makeRoom(for: count)
    storage.withUnsafeMutableBytes { fill(UnsafeMutableRawBufferPointer(rebasing: $0[tail..<tail + count])) }
    tail += count
  }

  /// Calls `body` with everything that is in the queue.
  func withBytes<Result, Failure: Error>(
    _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let result = storage.withUnsafeBytes { bytes -> Swift.Result<Result, Failure> in
      do throws(Failure) {
        return .success(try body(UnsafeRawBufferPointer(rebasing: bytes[head..<tail])))
      } catch {
        return .failure(error)
      }
    }
    return try result.get()
  }

  mutating func removeFirst(_ count: Int) {
    precondition(count <= self.count, "more bytes taken than there are")
    head += count
    if head == tail {
      head = 0
      tail = 0
      if storage.count > Self.retainedCapacity { storage = [] }
    }
  }

  private mutating func makeRoom(for added: Int) {
    guard tail + added > storage.count else { return }
    let count = count
    if count + added <= storage.count, head >= count {
      // Costs at most what was taken since the last move.
      storage.withUnsafeMutableBytes { bytes in
        UnsafeMutableRawBufferPointer(rebasing: bytes[..<count])
          .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[head..<tail]))
      }
    } else {
      let capacity = max(count + added, 2 * storage.count, 4096)
      var grown = [UInt8](repeating: 0, count: capacity)
      grown.withUnsafeMutableBytes { grown in withBytes { grown.copyMemory(from: $0) } }
      storage = grown
    }
    head = 0
    tail = count
  }
}

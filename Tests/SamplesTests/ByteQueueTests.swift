import Testing

@testable import Samples

@Suite("The byte queue")
struct ByteQueueTests {
  @Test("gives back what came, in order, however it is put in and taken out")
  func order() {
    var queue = ByteQueue()
    var generator = SystemRandomNumberGenerator()
    var next: UInt8 = 0
    var expected: UInt8 = 0
    for _ in 0..<2000 {
      let count = Int.random(in: 0...300, using: &generator)
      if Bool.random(using: &generator) {
        let bytes = (0..<count).map { next &+ UInt8(truncatingIfNeeded: $0) }
        bytes.withUnsafeBytes { queue.append($0) }
        next &+= UInt8(truncatingIfNeeded: count)
      } else {
        let start = next
        queue.append(count: count) { buffer in
          for index in buffer.indices { buffer[index] = start &+ UInt8(truncatingIfNeeded: index) }
        }
        next &+= UInt8(truncatingIfNeeded: count)
      }
      let taken = Int.random(in: 0...queue.count, using: &generator)
      let front = queue.withBytes { Array($0.prefix(taken)) }
      #expect(front == (0..<taken).map { expected &+ UInt8(truncatingIfNeeded: $0) })
      expected &+= UInt8(truncatingIfNeeded: taken)
      queue.removeFirst(taken)
    }
  }

  @Test("passes on the error of what it is lent to")
  func errors() {
    struct Refusal: Error {}
    #expect(throws: Refusal.self) {
      try ByteQueue().withBytes { (_) throws(Refusal) in throw Refusal() }
    }
  }
}

import Packet
import Simulation
import Testing

@testable import Replication

@Suite struct ReassemblyTests {
  private let start = SequenceNumber(0xffff_fff0)

  /// What the snooper gets for one piece.
  private func give(_ bytes: [UInt8], at sequence: SequenceNumber, to reassembly: inout Reassembly) -> [UInt8]
  {
    bytes.withUnsafeBytes { pointer in
      let ready = reassembly.receive(pointer, at: sequence)
      guard !ready.isEmpty else { return [] }
      var result = Array(bytes[ready])
      while let piece = reassembly.takeReady() { result += piece }
      return result
    }
  }

  @Test func bytesInOrderAreNotKept() {
    var reassembly = Reassembly(next: start, finReceived: false)
    #expect(give([1, 2, 3], at: start, to: &reassembly) == [1, 2, 3])
    #expect(reassembly.byteCount == 0 && reassembly.next == start + 3)
    #expect(give([2, 3, 4], at: start + 1, to: &reassembly) == [4])
    #expect(give([1, 2], at: start, to: &reassembly) == [])
  }

  @Test func bytesThatCameEarlyFollowWhenTheGapIsFilled() {
    var reassembly = Reassembly(next: start, finReceived: false)
    #expect(give([30, 31], at: start + 30, to: &reassembly) == [])
    #expect(give([20, 21], at: start + 20, to: &reassembly) == [])
    #expect(reassembly.byteCount == 4)
    #expect(give(Array(0..<20), at: start, to: &reassembly) == Array(0..<22))
    #expect(reassembly.byteCount == 2)
    #expect(give(Array(22..<30), at: start + 22, to: &reassembly) == Array(22..<32))
    #expect(reassembly.byteCount == 0 && reassembly.next == start + 32)
  }

  @Test func aFINCountsWhenAllBeforeItIsThere() {
    var reassembly = Reassembly(next: start, finReceived: false)
    reassembly.noteFIN(at: start + 2)
    #expect(!reassembly.isComplete && reassembly.acknowledgeable == start)
    _ = give([0, 1], at: start, to: &reassembly)
    #expect(reassembly.isComplete && reassembly.acknowledgeable == start + 3)
    #expect(Reassembly(next: start, finReceived: true).acknowledgeable == start + 1)
  }

  @Test(
    "Any order of any pieces gives the stream, and keeps no byte twice",
    arguments: 1...8 as ClosedRange<UInt64>)
  func model(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    for _ in 0..<60 {
      let stream = (0..<Int.random(in: 1...400, using: &generator)).map {
        UInt8(truncatingIfNeeded: $0 &* 31)
      }
      var reassembly = Reassembly(next: start, finReceived: false)
      var present = [Bool](repeating: false, count: stream.count)
      var shown: [UInt8] = []
      while shown.count < stream.count {
        let low = Int.random(in: 0..<stream.count, using: &generator)
        let high = min(stream.count, low + Int.random(in: 1...80, using: &generator))
        shown += give(Array(stream[low..<high]), at: start + low, to: &reassembly)
        for place in low..<high { present[place] = true }
        let contiguous = present.firstIndex(of: false) ?? stream.count
        #expect(shown == Array(stream[..<contiguous]))
        #expect(reassembly.byteCount == present[contiguous...].count { $0 })
      }
    }
  }
}

@Suite struct UnacknowledgedBytesTests {
  @Test(
    "What is kept is exactly what was appended and not acknowledged", arguments: 1...4 as ClosedRange<UInt64>)
  func model(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    let start = SequenceNumber(0xffff_f000)
    var bytes = UnacknowledgedBytes(start: start)
    var model: [UInt8] = []
    var first = start
    for step in 0..<400 {
      if Bool.random(using: &generator) {
        let new = (0..<Int.random(in: 0...3_000, using: &generator)).map {
          UInt8(truncatingIfNeeded: $0 ^ step)
        }
        new.withUnsafeBytes { bytes.append($0) }
        model += new
      } else {
        let distance = Int.random(in: -50...4_000, using: &generator)
        bytes.acknowledge(upTo: first + distance)
        let dropped = max(0, min(distance, model.count))
        model.removeFirst(dropped)
        first += dropped
      }
      #expect(bytes.start == first && bytes.count == model.count && bytes.end == first + model.count)
      if step % 20 == 0 { #expect(bytes.bytes == model) }
    }
    bytes.acknowledge(upTo: bytes.end + 1)
    #expect(bytes.bytes.isEmpty && bytes.start == bytes.end)
  }
}

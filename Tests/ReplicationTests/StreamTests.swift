import Packet
import Simulation
import Testing

@testable import Replication

private func segment(_ start: SequenceNumber, _ count: Int, fin: Bool = false) -> TCPSegment {
  TCPSegment(
    sequence: start, acknowledgment: SequenceNumber(0), flags: fin ? [.ack, .fin] : .ack, window: 0,
    timestamps: nil, payload: 54..<(54 + count))
}

@Suite struct OutboundStreamTests {
  // Just below the wrap.
  private let start = SequenceNumber(0xffff_ffc0)

  @Test func newBytesAreNewOnce() {
    var stream = OutboundStream(next: start, position: 5, finSent: false)
    guard case .new(start) = stream.judge(segment(start, 100)) else { Issue.record("not new"); return }
    stream.append(segment(start, 100), at: 6)
    #expect(stream.next == start + 100 && stream.position == 6)
    guard case .known = stream.judge(segment(start, 100)) else { Issue.record("not known"); return }
    guard case .known = stream.judge(segment(start + 40, 60)) else { Issue.record("not known"); return }
    // Cut elsewhere, and with a new tail: only the tail is new.
    guard case .new(start + 100) = stream.judge(segment(start + 40, 61)) else {
      Issue.record("no tail"); return
    }
  }

  @Test func theLogHasNoGaps() {
    let stream = OutboundStream(next: start, position: 0, finSent: false)
    guard case .gap = stream.judge(segment(start + 1, 10)) else { Issue.record("gap not seen"); return }
    guard case .gap = stream.judge(segment(start + 1, 0, fin: true)) else {
      Issue.record("gap not seen"); return
    }
  }

  @Test func acknowledgementsAndProbesAreKnown() {
    let stream = OutboundStream(next: start, position: 0, finSent: false)
    for place in [start, start - 1, start - 1_000, start + 1_000] {
      guard case .known = stream.judge(segment(place, 0)) else { Issue.record("not known"); return }
    }
  }

  @Test func aFINIsNewOnceAndCountsNoByte() {
    var stream = OutboundStream(next: start, position: 0, finSent: false)
    guard case .new = stream.judge(segment(start, 10, fin: true)) else { Issue.record("FIN not new"); return }
    stream.append(segment(start, 10, fin: true), at: 1)
    #expect(stream.fin == start + 10 && stream.next == start + 10)
    guard case .known = stream.judge(segment(start, 10, fin: true)) else {
      Issue.record("FIN new twice"); return
    }
    let resumed = OutboundStream(next: start, position: 0, finSent: true)
    guard case .known = resumed.judge(segment(start, 0, fin: true)) else {
      Issue.record("FIN new twice"); return
    }
  }
}

@Suite struct InboundStreamTests {
  private let start = SequenceNumber(0xffff_ff80)

  @Test func whatTheLogHasIsAcknowledgeableOnceItHasNoGap() {
    var stream = InboundStream(next: start, position: 0, finReceived: false)
    stream.append(segment(start + 100, 100), from: start + 100, at: 1)
    #expect(stream.acknowledgeable == start)
    stream.append(segment(start + 300, 50, fin: true), from: start + 300, at: 2)
    stream.append(segment(start, 100), from: start, at: 3)
    #expect(stream.acknowledgeable == start + 200)
    stream.append(segment(start + 200, 100), from: start + 200, at: 4)
    #expect(stream.acknowledgeable == start + 351)
    #expect(stream.position == 4)
  }

  @Test func partsThatAreInTheLogAreSkipped() {
    var stream = InboundStream(next: start, position: 0, finReceived: false)
    stream.append(segment(start, 100), from: start, at: 1)
    guard case .new(start + 100) = stream.judge(segment(start + 50, 100)) else {
      Issue.record("no tail"); return
    }
    guard case .known = stream.judge(segment(start + 50, 50)) else { Issue.record("not known"); return }
    stream.append(segment(start + 200, 100), from: start + 200, at: 2)
    guard case .known = stream.judge(segment(start + 220, 80)) else {
      Issue.record("island not known"); return
    }
    guard case .new = stream.judge(segment(start + 220, 81)) else {
      Issue.record("beyond the island"); return
    }
  }

  @Test func islandsAreCountedAndBounded() {
    var stream = InboundStream(next: start, position: 0, finReceived: false)
    for number in 1...InboundStream.maximumIslands {
      let place = start + 20 * number
      guard case .new = stream.judge(segment(place, 10)) else { Issue.record("refused too early"); return }
      stream.append(segment(place, 10), from: place, at: LogPosition(number))
    }
    let beyond = start + 20 * (InboundStream.maximumIslands + 1)
    guard case .tooFragmented = stream.judge(segment(beyond, 10)) else { Issue.record("not bounded"); return }
    // What fills the first gap is always welcome.
    guard case .new = stream.judge(segment(start, 20)) else { Issue.record("gap cannot be filled"); return }
    stream.append(segment(start, 20), from: start, at: 1_000)
    #expect(stream.acknowledgeable == start + 30)
    guard case .new = stream.judge(segment(beyond, 10)) else { Issue.record("room not given back"); return }
  }

  @Test func aFINIsTheEnd() {
    var stream = InboundStream(next: start, position: 0, finReceived: false)
    stream.append(segment(start, 100), from: start, at: 1)
    guard case .known = stream.judge(segment(start, 50, fin: true)) else {
      Issue.record("old FIN believed"); return
    }
    guard case .new = stream.judge(segment(start, 100, fin: true)) else {
      Issue.record("FIN not new"); return
    }
    stream.append(segment(start, 100, fin: true), from: start + 100, at: 2)
    #expect(stream.acknowledgeable == start + 101)
    guard case .known = stream.judge(segment(start, 100, fin: true)) else {
      Issue.record("FIN new twice"); return
    }
    guard case .known = stream.judge(segment(start + 101, 5)) else {
      Issue.record("bytes behind FIN"); return
    }
  }

  @Test(
    "Any order of any pieces comes to what a set of bytes comes to", arguments: 1...6 as ClosedRange<UInt64>)
  func model(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    for _ in 0..<60 {
      let total = Int.random(in: 1...300, using: &generator)
      var stream = InboundStream(next: start, position: 0, finReceived: false)
      var present = [Bool](repeating: false, count: total)
      var position: LogPosition = 0
      while present.contains(false) {
        let low = Int.random(in: 0..<total, using: &generator)
        let high = min(total, low + Int.random(in: 1...60, using: &generator))
        let piece = segment(start + low, high - low)
        let isKnown = present[low..<high].allSatisfy { $0 }
        switch stream.judge(piece) {
        case .known: #expect(isKnown, "\(low)..<\(high)")
        case .new(let from):
          #expect(!isKnown, "\(low)..<\(high)")
          let skipped = from - piece.sequence
          #expect(present[low..<(low + skipped)].allSatisfy { $0 })
          position += 1
          stream.append(piece, from: from, at: position)
          for place in low..<high { present[place] = true }
        case .tooFragmented: Issue.record("too fragmented with \(total) bytes")
        }
        let contiguous = present.firstIndex(of: false) ?? total
        #expect(stream.acknowledgeable == start + contiguous)
      }
    }
  }
}

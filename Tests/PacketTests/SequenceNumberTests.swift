import Packet
import Testing

@Suite struct SequenceNumberTests {
  @Test("Adding goes on from zero after 2³² - 1, and back again")
  func wraps() {
    #expect(SequenceNumber(0xffff_fff0) + 0x20 == SequenceNumber(0x10))
    #expect(SequenceNumber(0x10) - 0x20 == SequenceNumber(0xffff_fff0))
    #expect(SequenceNumber(0x10) + -0x20 == SequenceNumber(0xffff_fff0))
    var point = SequenceNumber(.max)
    point += 1
    #expect(point == SequenceNumber(0))
  }

  @Test("A distance is signed, and the same on both sides of the wrap")
  func distance() {
    #expect(SequenceNumber(0x10) - SequenceNumber(0xffff_fff0) == 0x20)
    #expect(SequenceNumber(0xffff_fff0) - SequenceNumber(0x10) == -0x20)
    #expect(SequenceNumber(5) - SequenceNumber(5) == 0)
    #expect(SequenceNumber(0x7fff_ffff) - SequenceNumber(0) == Int(Int32.max))
    #expect(SequenceNumber(0x8000_0000) - SequenceNumber(0) == Int(Int32.min))
  }

  @Test(
    "What was sent later is greater, also across the wrap", arguments: [0, 1, 0x7fff_fff0, .max] as [UInt32])
  func order(start: UInt32) {
    let a = SequenceNumber(start)
    for step in [1, 2, 1000, 1 << 30, (1 << 31) - 1] {
      let b = a + step
      #expect(a < b && b > a && a <= b && b >= a && a != b)
      #expect(!(b < a) && !(a > b) && !(b <= a) && !(a >= b))
      #expect(SequenceNumber.later(a, b) == b && SequenceNumber.later(b, a) == b)
      #expect(SequenceNumber.earlier(a, b) == a && SequenceNumber.earlier(b, a) == a)
    }
    #expect(a <= a && a >= a && !(a < a) && !(a > a))
  }

  @Test("Whatever is added and taken away again leaves no trace")
  func addThenSubtract() {
    var generator = SeededGenerator(seed: 1)
    for _ in 0..<2_000 {
      let point = SequenceNumber(UInt32.random(in: 0...(.max), using: &generator))
      let distance = Int.random(in: Int(Int32.min)...Int(Int32.max), using: &generator)
      #expect((point + distance) - point == distance)
      #expect((point + distance) - distance == point)
    }
  }
}

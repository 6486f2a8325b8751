import Testing

@testable import Samples

@Suite("The payload pattern")
struct TrafficPatternTests {
  let pattern = TrafficPattern(connection: 7, direction: .fromPeer)

  @Test("is the same wherever a piece of it begins and ends")
  func pieces() {
    let whole = (0..<64).map { pattern.byte(at: $0) }
    for start in 0..<24 {
      for count in 0..<40 {
        var piece = [UInt8](repeating: 0, count: count)
        piece.withUnsafeMutableBytes { pattern.fill($0, from: UInt64(start)) }
        #expect(piece == Array(whole[start..<start + count]))
        #expect(piece.withUnsafeBytes { pattern.firstDifference($0, from: UInt64(start)) } == nil)
      }
    }
  }

  @Test("shows exactly where the first wrong byte is")
  func difference() {
    var piece = [UInt8](repeating: 0, count: 37)
    piece.withUnsafeMutableBytes { pattern.fill($0, from: 1003) }
    for index in piece.indices {
      var wrong = piece
      wrong[index] ^= 0x10
      wrong[piece.count - 1] ^= 0x10
      if index == piece.count - 1 { wrong[index] = ~piece[index] }
      #expect(wrong.withUnsafeBytes { pattern.firstDifference($0, from: 1003) } == index)
    }
  }

  @Test("differs between connections, directions and positions")
  func distinct() {
    func bytes(_ pattern: TrafficPattern, from position: UInt64) -> [UInt8] {
      (0..<4096).map { pattern.byte(at: position + $0) }
    }
    let here = bytes(pattern, from: 0)
    for other in [
      bytes(TrafficPattern(connection: 8, direction: .fromPeer), from: 0),
      bytes(TrafficPattern(connection: 7, direction: .fromServer), from: 0), bytes(pattern, from: 1),
      bytes(pattern, from: 8), bytes(pattern, from: 4096), bytes(pattern, from: 1 << 32),
    ] {
      // Random bytes agree in one place of 256.
      let equal = zip(here, other).count { $0 == $1 }
      #expect(equal < 64)
    }
  }

  @Test("tells how many bytes are missing or came twice", arguments: [1, 5, 8, 1000, -1, -8, -999])
  func displacement(distance: Int) {
    var piece = [UInt8](repeating: 0, count: 64)
    piece.withUnsafeMutableBytes { pattern.fill($0, from: UInt64(5000 + distance)) }
    #expect(
      piece.withUnsafeBytes { pattern.displacement(of: $0, expectedAt: 5000, reach: 2000) } == distance)
    #expect(piece.withUnsafeBytes { pattern.displacement(of: $0, expectedAt: 50_000, reach: 2000) } == nil)
  }
}

/// An endless stream of bytes in which every byte depends on its position: bytes that are lost, repeated or
/// moved are seen.
struct BytePattern: Sendable {
  /// Tells one stream from another.
  let seed: UInt64

  /// Eight bytes are made at a time; this is what they are made of.
  private func word(_ number: Int) -> UInt64 {
    var mix = SplitMix(seed: seed << 32 &+ UInt64(number))
    return mix.next()
  }

  func bytes(from position: Int, count: Int) -> [UInt8] {
    let first = position / 8
    let last = (position + count + 7) / 8
    var bytes: [UInt8] = []
    bytes.reserveCapacity((last - first) * 8)
    for number in first..<last {
      withUnsafeBytes(of: word(number).littleEndian) { bytes.append(contentsOf: $0) }
    }
    return Array(bytes.dropFirst(position % 8).prefix(count))
  }

  /// The position in the stream of the first of `bytes` that is not what it should be.
  func firstDifference(_ bytes: [UInt8], from position: Int) -> Int? {
    zip(bytes, self.bytes(from: position, count: bytes.count)).enumerated()
      .first { $0.element.0 != $0.element.1 }.map { position + $0.offset }
  }
}

/// The payload bytes of the sample traffic: every byte depends on the connection, the direction and its
/// position in the whole stream, so a byte that is lost, repeated, moved or swapped with another
/// connection's is seen.
///
/// Eight bytes are made at a time with one multiplication and one shift: several times faster than TCP on
/// the same machine, so checking everything costs a measurement little.
struct TrafficPattern: Hashable, Sendable {
  enum Direction: UInt64, Sendable { case fromPeer = 0, fromServer = 1 }

  private let seed: UInt64

  init(connection: UInt16, direction: Direction) {
    // The finalizer of SplitMix64, so that the streams of neighbouring connections start far apart.
    var value = (UInt64(connection) << 1 | direction.rawValue) &* 0x9e37_79b9_7f4a_7c15
    value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
    value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
    seed = value ^ value >> 31
  }

  @inline(__always)
  private func word(_ index: UInt64) -> UInt64 {
    let product = (index &+ seed) &* 0x9e37_79b9_7f4a_7c15
    return product ^ product >> 32
  }

  /// The byte at `position`, counted in bytes from the start of the stream, headers included.
  func byte(at position: UInt64) -> UInt8 {
    UInt8(truncatingIfNeeded: word(position >> 3) >> (8 * (position & 7)))
  }

  /// Fills `buffer` with the bytes from `position` on.
  func fill(_ buffer: UnsafeMutableRawBufferPointer, from position: UInt64) {
    let count = buffer.count
    var index = 0
    while index < count, (position &+ UInt64(index)) & 7 != 0 {
      buffer[index] = byte(at: position &+ UInt64(index))
      index &+= 1
    }
    var wordIndex = (position &+ UInt64(index)) >> 3
    while index &+ 8 <= count {
      buffer.storeBytes(of: word(wordIndex).littleEndian, toByteOffset: index, as: UInt64.self)
      index &+= 8
      wordIndex &+= 1
    }
    while index < count {
      buffer[index] = byte(at: position &+ UInt64(index))
      index &+= 1
    }
  }

  /// Where `buffer` first differs from the bytes from `position` on; `nil` if it does not.
  func firstDifference(_ buffer: UnsafeRawBufferPointer, from position: UInt64) -> Int? {
    let count = buffer.count
    var index = 0
    while index < count, (position &+ UInt64(index)) & 7 != 0 {
      if buffer[index] != byte(at: position &+ UInt64(index)) { return index }
      index &+= 1
    }
    var wordIndex = (position &+ UInt64(index)) >> 3
    while index &+ 8 <= count {
      let found = UInt64(littleEndian: buffer.loadUnaligned(fromByteOffset: index, as: UInt64.self))
      let difference = found ^ word(wordIndex)
      if difference != 0 { return index &+ difference.trailingZeroBitCount / 8 }
      index &+= 8
      wordIndex &+= 1
    }
    while index < count {
      if buffer[index] != byte(at: position &+ UInt64(index)) { return index }
      index &+= 1
    }
    return nil
  }

  /// How far `sample` lies from where it should be, in bytes: positive if bytes are missing before it,
  /// negative if bytes came twice; `nil` if it is found nowhere within `reach` bytes.
  ///
  /// Only for telling a person what happened: a sample of fewer than 8 bytes says nothing.
  func displacement(of sample: UnsafeRawBufferPointer, expectedAt position: UInt64, reach: Int) -> Int? {
    guard sample.count >= 8 else { return nil }
    let start = UnsafeRawBufferPointer(rebasing: sample[..<min(sample.count, 32)])
    for distance in 1...reach {
      if firstDifference(start, from: position &+ UInt64(distance)) == nil { return distance }
      if UInt64(distance) <= position, firstDifference(start, from: position - UInt64(distance)) == nil {
        return -distance
      }
    }
    return nil
  }
}

import Packet
import Testing

@Suite("Fragments")
struct IPFragmentTests {
  /// Frames that carry `content` of IP protocol 17 in pieces of `size` bytes.
  static func fragments(of content: [UInt8], size: Int, isV6: Bool, identification: UInt16 = 7) -> [[UInt8]] {
    stride(from: 0, to: content.count, by: size).map { start in
      let piece = Array(content[start..<min(start + size, content.count)])
      let isLast = start + size >= content.count
      return frame(piece, at: start, isLast: isLast, isV6: isV6, identification: identification)
    }
  }

  static func frame(
    _ piece: [UInt8], at start: Int, isLast: Bool, isV6: Bool, identification: UInt16 = 7
  ) -> [UInt8] {
    var bytes: [UInt8] = [2, 0, 0, 0, 0, 5, 2, 0, 0, 0, 0, 4]
    if isV6 {
      bytes += [0x86, 0xdd, 0x60, 0, 0, 0]
      // A destination options header stands before the fragment header.
      bytes.appendBigEndian(UInt16(8 + 8 + piece.count))
      bytes += [60, 64] + TestFrame.source6 + TestFrame.destination6
      bytes += [44, 0, 1, 4, 0, 0, 0, 0] + [17, 0]
      bytes.appendBigEndian(UInt16(start) | (isLast ? 0 : 1))
      bytes += [0, 0]
      bytes.appendBigEndian(identification)
    } else {
      bytes += [0x08, 0x00, 0x45, 0]
      bytes.appendBigEndian(UInt16(20 + piece.count))
      bytes.appendBigEndian(identification)
      bytes.appendBigEndian(UInt16(start / 8) | (isLast ? 0 : 0x2000))
      bytes += [64, 17, 0, 0] + TestFrame.source4 + TestFrame.destination4
    }
    return bytes + piece
  }

  private static func content(_ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0 * 31) }
  }

  private func add(_ frame: [UInt8], to assembly: inout FragmentAssembly) throws -> FragmentAssembly.Outcome {
    try frame.withUnsafeBytes { bytes in
      assembly.add(try #require(IPFragment(bytes)), bytes)
    }
  }

  @Test("make the packet that they were made of, in any order, some of them twice", arguments: [true, false])
  func anyOrder(isV6: Bool) throws {
    var generator = SeededGenerator(seed: 4)
    for round in 0..<200 {
      let content = Self.content(.random(in: 9...6000, using: &generator))
      let size = 8 * Int.random(in: 1...180, using: &generator)
      var frames = Self.fragments(of: content, size: size, isV6: isV6)
      guard frames.count > 1 else { continue }
      frames.shuffle(using: &generator)
      var assembly = FragmentAssembly()
      var whole: [UInt8]?
      for (index, frame) in frames.enumerated() {
        if index > 0, Bool.random(using: &generator) {
          let earlier = frames[.random(in: 0..<index, using: &generator)]
          #expect(try add(earlier, to: &assembly) == .duplicate)
        }
        switch try add(frame, to: &assembly) {
        case .complete(let packet):
          #expect(index == frames.count - 1, "round \(round)")
          whole = packet
        case .incomplete: #expect(index < frames.count - 1)
        case let other: Issue.record("round \(round): \(other)")
        }
      }
      let packet = try #require(whole)
      let read = try #require(packet.withUnsafeBytes { IPPacket($0) })
      #expect(!read.isFragment && read.transportNumber == 17)
      #expect(packet[read.transport].elementsEqual(content))
      if !isV6 {
        var sum = InternetChecksum()
        packet.withUnsafeBytes { sum.add(UnsafeRawBufferPointer(rebasing: $0[14..<34])) }
        #expect(sum.value == 0)
      }
    }
  }

  @Test("that overlap in part, or contradict the end, spoil the packet", arguments: [true, false])
  func contradictions(isV6: Bool) throws {
    func outcome(_ pieces: [(start: Int, count: Int, isLast: Bool)]) throws -> FragmentAssembly.Outcome {
      var assembly = FragmentAssembly()
      var last = FragmentAssembly.Outcome.incomplete
      for piece in pieces {
        last = try add(
          Self.frame(Self.content(piece.count), at: piece.start, isLast: piece.isLast, isV6: isV6),
          to: &assembly)
      }
      return last
    }
    #expect(try outcome([(0, 16, false), (8, 16, false)]) == .spoilt)
    #expect(try outcome([(8, 16, false), (0, 16, false)]) == .spoilt)
    #expect(try outcome([(16, 8, true), (24, 8, false)]) == .spoilt, "behind the end")
    #expect(try outcome([(24, 8, false), (16, 8, true)]) == .spoilt, "an end before what is there")
    #expect(try outcome([(16, 8, true), (8, 8, true)]) == .spoilt, "two ends")
    #expect(try outcome([(0, 32, false), (8, 16, false)]) == .duplicate, "all of it is known")
  }

  @Test("that are impossible are none")
  func impossible() {
    func isFragment(_ frame: [UInt8]) -> Bool { frame.withUnsafeBytes { IPFragment($0) } != nil }
    for isV6 in [true, false] {
      #expect(isFragment(Self.frame(Self.content(8), at: 0, isLast: false, isV6: isV6)))
      #expect(
        !isFragment(Self.frame(Self.content(9), at: 0, isLast: false, isV6: isV6)), "not a multiple of 8")
      #expect(!isFragment(Self.frame([], at: 8, isLast: true, isV6: isV6)), "empty")
      #expect(!isFragment(Self.frame(Self.content(16), at: 65_528, isLast: true, isV6: isV6)), "too far")
      #expect(!isFragment(Self.frame(Self.content(16), at: 0, isLast: true, isV6: isV6)), "whole")
    }
  }

  @Test("that are damaged are read without harm")
  func mutation() {
    var generator = SeededGenerator(seed: 5)
    var found = 0
    for _ in 0..<20_000 {
      let isV6 = Bool.random(using: &generator)
      var frame = Self.frame(
        Self.content(24), at: 8 * .random(in: 0...3, using: &generator), isLast: .random(using: &generator),
        isV6: isV6)
      for _ in 0..<Int.random(in: 1...4, using: &generator) {
        frame[.random(in: 12..<frame.count, using: &generator)] = .random(in: 0 ... .max, using: &generator)
      }
      frame.removeLast(.random(in: 0...30, using: &generator))
      frame.withUnsafeBytes { bytes in
        guard let fragment = IPFragment(bytes) else { return }
        found += 1
        #expect(fragment.content.upperBound <= bytes.count && !fragment.content.isEmpty)
        var assembly = FragmentAssembly()
        _ = assembly.add(fragment, bytes)
        #expect(assembly.byteCount <= 65_535)
      }
    }
    #expect(found > 200)
  }
}

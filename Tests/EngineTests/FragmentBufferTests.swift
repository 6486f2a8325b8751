import NIOCore
import Packet
import Replication
import Testing

@testable import Engine

@Suite("Fragments that the engine keeps")
struct FragmentBufferTests {
  /// A frame, virtio-net header first, with 64 bytes at `offset` of the packet `identification`.
  private static func frame(_ identification: UInt16, at offset: Int, isLast: Bool, count: Int = 64)
    -> ByteBuffer
  {
    var bytes = [UInt8](repeating: 0, count: VirtioNetHeader.byteCount)
    bytes += [2, 0, 0, 0, 0, 5, 2, 0, 0, 0, 0, 4, 0x08, 0x00, 0x45, 0]
    bytes.appendBigEndian(UInt16(20 + count))
    bytes.appendBigEndian(identification)
    bytes.appendBigEndian(UInt16(offset / 8) | (isLast ? 0 : 0x2000))
    bytes += [64, 17, 0, 0, 5, 5, 5, 4, 5, 5, 5, 5]
    return ByteBuffer(bytes: bytes + [UInt8](repeating: UInt8(truncatingIfNeeded: offset), count: count))
  }

  private func add(
    _ frame: ByteBuffer, to buffer: inout FragmentBuffer, isOutbound: Bool = false, at milliseconds: Int64 = 0
  ) throws -> FragmentBuffer.Outcome {
    let fragment = try #require(
      frame.withUnsafeReadableBytes {
        IPFragment(UnsafeRawBufferPointer(rebasing: $0[VirtioNetHeader.byteCount...]))
      })
    return buffer.add(
      fragment, frame, isOutbound: isOutbound, instance: .main,
      now: Instant(nanoseconds: milliseconds * 1_000_000))
  }

  @Test("go on as they came when all are there; those of the other direction are another packet's")
  func complete() throws {
    var buffer = FragmentBuffer()
    let frames = [Self.frame(1, at: 64, isLast: true), Self.frame(1, at: 0, isLast: false)]
    guard case .kept = try add(frames[0], to: &buffer) else { return #expect(Bool(false)) }
    guard case .kept = try add(frames[1], to: &buffer, isOutbound: true) else { return #expect(Bool(false)) }
    #expect(buffer.count == 2)
    guard case .complete(let whole, let fragments) = try add(frames[1], to: &buffer) else {
      return #expect(Bool(false))
    }
    #expect(fragments == frames)
    #expect(whole.readableBytes == VirtioNetHeader.byteCount + 14 + 20 + 128)
    #expect(buffer.count == 1)
  }

  @Test("are given up after a time, and above the limit, and none is forgotten in the count")
  func limits() throws {
    var buffer = FragmentBuffer()
    _ = try add(Self.frame(1, at: 0, isLast: false), to: &buffer)
    _ = try add(Self.frame(1, at: 64, isLast: false), to: &buffer)
    _ = try add(Self.frame(2, at: 0, isLast: false), to: &buffer, at: 20_000)
    #expect(buffer.expire(now: Instant(nanoseconds: 29_999_000_000)) == 0)
    #expect(buffer.expire(now: Instant(nanoseconds: 30_000_000_000)) == 2)
    #expect(buffer.count == 1)
    #expect(buffer.expire(now: Instant(nanoseconds: 60_000_000_000)) == 1)
    #expect(buffer.byteCount == 0)

    var kept = 0
    for identification in UInt16(0)...4000 {
      switch try add(Self.frame(identification, at: 0, isLast: false, count: 1480), to: &buffer) {
      case .kept: kept += 1
      case .dropped(let count): #expect(count == 1)
      case .complete: Issue.record("one fragment is no packet")
      }
    }
    #expect(kept == buffer.count && buffer.byteCount <= FragmentBuffer.byteLimit && kept > 2000)
    // What is contradicted is dropped as a whole.
    guard case .dropped(2) = try add(Self.frame(0, at: 8, isLast: false, count: 1480), to: &buffer) else {
      return #expect(Bool(false), "it contradicts the first one")
    }
  }
}

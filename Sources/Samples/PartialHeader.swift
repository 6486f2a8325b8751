/// A header of which perhaps only the first bytes have come: a stream may be cut anywhere.
struct PartialHeader: Hashable, Sendable {
  private var low: UInt64 = 0
  private var high: UInt32 = 0
  /// How many bytes are there, at most 12.
  private(set) var count = 0

  init() {}

  /// The first `count` bytes of `bytes`.
  init(_ bytes: UnsafeRawBufferPointer, count: Int) {
    precondition(count <= MessageHeader.byteCount)
    _ = append(UnsafeRawBufferPointer(rebasing: bytes[..<count]))
  }

  var isComplete: Bool { count == MessageHeader.byteCount }

  /// Takes what is missing from the front of `bytes` and returns how many bytes that were.
  mutating func append(_ bytes: UnsafeRawBufferPointer) -> Int {
    let taken = min(MessageHeader.byteCount - count, bytes.count)
    for index in 0..<taken {
      let byte = bytes[index]
      let position = count + index
      if position < 8 {
        low |= UInt64(byte) << UInt64(8 * position)
      } else {
        high |= UInt32(byte) << UInt32(8 * (position - 8))
      }
    }
    count += taken
    return taken
  }

  /// Calls `body` with 12 bytes, of which the first `count` have come and the others are 0.
  func withBytes<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
    withUnsafeTemporaryAllocation(byteCount: MessageHeader.byteCount, alignment: 8) { bytes in
      bytes.storeBytes(of: low.littleEndian, as: UInt64.self)
      bytes.storeBytes(of: high.littleEndian, toByteOffset: 8, as: UInt32.self)
      return body(UnsafeRawBufferPointer(bytes))
    }
  }

  /// The header, once it is complete; `nil` also if its kind is not known.
  var header: MessageHeader? { isComplete ? withBytes { MessageHeader($0) } : nil }
}

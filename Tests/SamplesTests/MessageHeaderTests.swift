import Testing

@testable import Samples

@Suite("The message header")
struct MessageHeaderTests {
  let header = MessageHeader(
    payloadByteCount: 0x0102_0304, number: 0x0506_0708, connection: 0x090a, kind: .source, answeredBy: 1)
  let bytes: [UInt8] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 2, 1]

  @Test("is 12 bytes in network order")
  func layout() {
    #expect(header.withBytes { Array($0) } == bytes)
    #expect(bytes.withUnsafeBytes { MessageHeader($0) } == header)
  }

  @Test("of an unknown kind is no header")
  func unknownKind() {
    var bytes = bytes
    bytes[10] = 3
    #expect(bytes.withUnsafeBytes { MessageHeader($0) } == nil)
  }

  @Test("is put together from pieces cut anywhere")
  func pieces() {
    for cut in 0...12 {
      var partial = PartialHeader()
      let first = Array(bytes[..<cut])
      let second = Array(bytes[cut...]) + [99]
      #expect(first.withUnsafeBytes { partial.append($0) } == cut)
      #expect(partial.isComplete == (cut == 12))
      #expect(second.withUnsafeBytes { partial.append($0) } == 12 - cut)
      #expect(partial.header == header)
    }
  }
}

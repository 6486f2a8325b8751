import Testing

@testable import Packet

@Suite("The MD5 digest")
struct MD5Tests {
  private func hex(_ bytes: [UInt8]) -> String {
    bytes.map { byte in
      let text = String(byte, radix: 16)
      return text.count == 1 ? "0" + text : text
    }.joined()
  }

  /// RFC 1321, A.5.
  static let vectors = [
    ("", "d41d8cd98f00b204e9800998ecf8427e"),
    ("a", "0cc175b9c0f1b6a831c399e269772661"),
    ("abc", "900150983cd24fb0d6963f7d28e17f72"),
    ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
    ("abcdefghijklmnopqrstuvwxyz", "c3fcd3d76192e4007dfb496cca67e13b"),
    (
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
      "d174ab98d277d9f5a5611c2c9f419d9f"
    ),
    (
      "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
      "57edf4a22be3c955ac49da2e2107b67a"
    ),
  ]

  @Test("is that of RFC 1321", arguments: vectors)
  func vector(_ text: String, _ expected: String) {
    var digest = MD5()
    digest.update(Array(text.utf8))
    #expect(hex(digest.finish()) == expected)
  }

  @Test("does not depend on how the bytes come")
  func pieces() {
    let bytes = (0..<300).map { UInt8(truncatingIfNeeded: $0 &* 7) }
    for count in [55, 56, 63, 64, 65, 128, 300] {
      var whole = MD5()
      whole.update(Array(bytes[..<count]))
      let expected = whole.finish()
      for step in [1, 3, 64, 65] {
        var digest = MD5()
        for start in stride(from: 0, to: count, by: step) {
          digest.update(Array(bytes[start..<min(start + step, count)]))
        }
        #expect(digest.finish() == expected, "\(count) bytes in pieces of \(step)")
      }
    }
  }
}

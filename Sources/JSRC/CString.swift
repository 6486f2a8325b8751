import Glibc

/// A text that C can point at, for as long as this lives.
struct CString: ~Copyable, Sendable {
  nonisolated(unsafe) private let start: UnsafeMutablePointer<CChar>

  init(_ text: String) {
    guard let start = strdup(text) else { fatalError("there is no memory for a name") }
    self.start = start
  }

  deinit { free(start) }

  var pointer: UnsafePointer<CChar> { UnsafePointer(start) }
}

/// Copies as much of `text` into `field` as leaves room for the 0 at its end, and no part of a character.
func store(_ text: String, in field: UnsafeMutableRawBufferPointer) {
  var count = min(text.utf8.count, field.count - 1)
  let bytes = Array(text.utf8)
  while count > 0, count < bytes.count, bytes[count] & 0xc0 == 0x80 { count -= 1 }
  for (index, byte) in bytes.prefix(count).enumerated() {
    field[index] = byte == UInt8(ascii: "\n") ? UInt8(ascii: " ") : byte
  }
  field[count] = 0
}

import Glibc

/// A pipe whose reader may be as slow as a test wants.
final class Pipe: Sendable {
  let reading: Int32
  let writing: Int32

  init() {
    var ends: [Int32] = [-1, -1]
    precondition(pipe(&ends) == 0)
    (reading, writing) = (ends[0], ends[1])
  }

  deinit {
    close(reading)
    close(writing)
  }

  /// Reads until a line contains `text`, for 10 seconds at most.
  func lines(until text: String) -> [String] {
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while !String(decoding: bytes.suffix(1 << 17), as: UTF8.self).contains(text) {
      var wait = pollfd(fd: reading, events: Int16(POLLIN), revents: 0)
      guard poll(&wait, 1, 10_000) > 0 else { break }
      let count = read(reading, &buffer, buffer.count)
      guard count > 0 else { break }
      bytes += buffer[..<count]
    }
    return String(decoding: bytes, as: UTF8.self).split(separator: "\n").map(String.init)
  }
}

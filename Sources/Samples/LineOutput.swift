import Glibc

/// Lines on a descriptor, written together whenever the loop has nothing else to do and before it waits.
final class LineOutput {
  private let descriptor: Int32
  private var pending: [UInt8] = []
  /// Written at the latest when so many bytes wait.
  private static let limit = 64 * 1024

  init(descriptor: Int32) { self.descriptor = descriptor }

  func callAsFunction(_ line: String) {
    pending.append(contentsOf: line.utf8)
    pending.append(UInt8(ascii: "\n"))
    if pending.count >= Self.limit { flush() }
  }

  /// Writes what waits. Lines that cannot be written, because the reader is gone, are dropped.
  func flush() {
    var offset = 0
    while offset < pending.count {
      let written = pending.withUnsafeBytes { bytes in
        write(descriptor, bytes.baseAddress.map { $0 + offset }, bytes.count - offset)
      }
      if written > 0 {
        offset += written
      } else if errno == EAGAIN {
        var wait = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        _ = poll(&wait, 1, -1)
      } else if errno != EINTR {
        break
      }
    }
    pending.removeAll(keepingCapacity: true)
  }
}

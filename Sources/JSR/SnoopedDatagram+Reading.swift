public import Control
import Glibc

extension SnoopedDatagram {
  /// Reads the next datagram from a descriptor of the snoop pair of a UDP socket.
  ///
  /// - Returns: `nil` at the end: replication has ended, or the pair was merged.
  /// - Throws: with code `EAGAIN` if there is none now and the descriptor is in non-blocking mode, `EPROTO` if the
  ///   descriptor is not one of datagrams.
  public static func read(from socket: borrowing Socket) throws(SnoopReadError) -> SnoopedDatagram? {
    try read(from: socket.descriptor)
  }

  /// The same, by the number of the descriptor.
  public static func read(from descriptor: Int32) throws(SnoopReadError) -> SnoopedDatagram? {
    var buffer = [UInt8](repeating: 0, count: byteLimit)
    while true {
      let count = recv(descriptor, &buffer, buffer.count, 0)
      if count == 0 { return nil }
      if count > 0 {
        let datagram = buffer.withUnsafeBytes {
          SnoopedDatagram(message: UnsafeRawBufferPointer(rebasing: $0[..<count]))
        }
        guard let datagram else { throw SnoopReadError(code: EPROTO) }
        return datagram
      }
      if errno != EINTR { throw SnoopReadError(code: errno) }
    }
  }
}

/// Why no datagram could be read from a snoop descriptor.
public struct SnoopReadError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The value of `errno`.
  public let code: Int32

  public var description: String { "snoop descriptor: \(String(cString: strerror(code)))" }
}

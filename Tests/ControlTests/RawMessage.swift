import CLinux
import Glibc
import Testing

/// Messages that `ControlSocket` would not send.
enum RawMessage {
  static func send(_ bytes: [UInt8], descriptors: [Int32], on socket: Int32) throws {
    let sent = jsr_send_with_descriptors(
      socket, bytes, bytes.count, descriptors, Int32(descriptors.count), Int32(MSG_NOSIGNAL))
    try #require(sent == bytes.count, "sendmsg: \(String(cString: strerror(errno)))")
  }
}

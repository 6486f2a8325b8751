import Glibc

/// Tells systemd, if it started this process, how it stands (sd_notify(3)).
enum ServiceNotification {
  static func send(_ state: String) {
    guard let path = getenv("NOTIFY_SOCKET").map({ String(cString: $0) }), !path.isEmpty else { return }
    let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else { return }
    defer { close(descriptor) }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else { return }
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    // A leading @ stands for the abstract name space.
    if bytes[0] == UInt8(ascii: "@") { address.sun_path.0 = 0 }
    let length = MemoryLayout<sa_family_t>.size + bytes.count
    _ = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        sendto(descriptor, state, state.utf8.count, Int32(MSG_NOSIGNAL), $0, socklen_t(length))
      }
    }
  }
}

import Descriptors
import Glibc

/// Kernel parameters under /proc/sys. Those below `net` belong to the network namespace of the calling
/// thread (net/sysctl_net.c).
enum SystemControl {
  /// The value, without the line end.
  static func read(_ path: String) throws(SystemError) -> String {
    let file = try OwnedDescriptor(returnedBy: "open", open("/proc/sys/" + path, O_RDONLY | O_CLOEXEC))
    var bytes = [UInt8](repeating: 0, count: 256)
    let count = Glibc.read(file.rawValue, &bytes, bytes.count)
    guard count >= 0 else { throw SystemError("read", on: path) }
    let text = String(decoding: bytes.prefix(count), as: UTF8.self)
    return text.hasSuffix("\n") ? String(text.dropLast()) : text
  }

  static func write(_ value: String, to path: String) throws(SystemError) {
    let descriptor = open("/proc/sys/" + path, O_WRONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw SystemError("open", on: "/proc/sys/" + path) }
    let file = OwnedDescriptor(owning: descriptor)
    var text = value
    let written = text.withUTF8 { Glibc.write(file.rawValue, $0.baseAddress, $0.count) }
    guard written == value.utf8.count else { throw SystemError("write", on: "/proc/sys/" + path) }
  }

  /// The names in a directory of parameters, such as the interfaces of `net/ipv4/conf`.
  static func entries(of path: String) throws(SystemError) -> [String] {
    guard let directory = opendir("/proc/sys/" + path) else {
      throw SystemError("opendir", on: "/proc/sys/" + path)
    }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
      let name = withUnsafeBytes(of: entry.pointee.d_name) {
        String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
      }
      if name != ".", name != ".." { names.append(name) }
    }
    return names
  }
}

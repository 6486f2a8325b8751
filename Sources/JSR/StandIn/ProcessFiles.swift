import Descriptors
import Glibc

/// What proc(5) says of this process.
enum ProcessFiles {
  /// The entries of a directory that are numbers: descriptors, or threads.
  static func numbers(in path: String) throws(SystemError) -> [Int32] {
    guard let directory = opendir(path) else { throw SystemError("open", on: path) }
    defer { closedir(directory) }
    var numbers: [Int32] = []
    while let entry = readdir(directory) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
        String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      }
      if let number = Int32(name) { numbers.append(number) }
    }
    return numbers
  }

  /// Where a symbolic link leads; `nil` if it is gone.
  static func target(of path: String) -> String? {
    // Long enough to tell apart what is looked for.
    var bytes = [UInt8](repeating: 0, count: 64)
    let count = bytes.withUnsafeMutableBytes {
      readlink(path, $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count)
    }
    return count < 0 ? nil : String(decoding: bytes.prefix(count), as: UTF8.self)
  }

  /// The lines of a file; `nil` if it is gone.
  static func lines(of path: String) -> [Substring]? {
    let number = open(path, O_RDONLY | O_CLOEXEC)
    guard number >= 0 else { return nil }
    let file = OwnedDescriptor(owning: number)
    var text: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 4096)
    while true {
      let count = read(file.rawValue, &buffer, buffer.count)
      guard count > 0 else { break }
      text += buffer.prefix(count)
    }
    return String(decoding: text, as: UTF8.self).split(separator: "\n")
  }
}

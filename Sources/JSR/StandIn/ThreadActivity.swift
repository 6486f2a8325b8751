import CLinux

/// What a thread of this process does at the moment, as proc(5) says in `/proc/self/task/TID`.
enum ThreadActivity: Hashable {
  /// It is gone.
  case gone
  /// It runs, or is about to; what it does cannot be seen.
  case running
  /// It waits in a call that moves bytes from or to this descriptor.
  case transferring(Int32)
  /// It waits somewhere else.
  case waiting

  init(of thread: Int32) {
    guard let line = ProcessFiles.lines(of: "/proc/self/task/\(thread)/syscall")?.first else {
      self = .gone
      return
    }
    self.init(line)
  }

  /// - Parameter line: `running`, or the number of the call and its arguments in hexadecimal, or -1 and two
  ///   addresses for a thread that waits outside of a call.
  init(_ line: Substring) {
    let words = line.split(separator: " ")
    guard let first = words.first, let call = Int(first) else {
      self = .running
      return
    }
    guard jsr_transfers(call) != 0, words.count > 1, let argument = UInt64(words[1].dropFirst(2), radix: 16)
    else {
      self = .waiting
      return
    }
    self = .transferring(Int32(truncatingIfNeeded: argument))
  }
}

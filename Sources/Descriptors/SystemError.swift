#if canImport(Glibc)
  import Glibc
#endif

/// A system call that failed: which one, on what, and why.
public struct SystemError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The call, as the manual names it, with the option that matters: `setsockopt(TCP_REPAIR)`.
  public let call: String
  /// The value of `errno`.
  public let code: Int32
  /// What the call was about, such as a device or an address; empty when there is nothing to add.
  public let subject: String

  /// Captures `errno` as it is now, unless `code` is given.
  public init(_ call: StaticString, code: Int32 = errno, on subject: String = "") {
    self.call = "\(call)"
    self.code = code
    self.subject = subject
  }

  public var description: String {
    let text = String(cString: strerror(code))
    return subject.isEmpty ? "\(call): \(text)" : "\(call) on \(subject): \(text)"
  }
}

#if canImport(Glibc)
  import Glibc
#endif

/// A file descriptor that is closed exactly once, when its owner lets go of it.
public struct OwnedDescriptor: ~Copyable, Sendable {
  /// The number of the open descriptor. Borrow it for system calls; never close it yourself.
  public let rawValue: Int32

  /// Takes ownership of `rawValue`, which must be open.
  public init(owning rawValue: Int32) {
    precondition(rawValue >= 0, "a descriptor is never negative")
    self.rawValue = rawValue
  }

  /// Takes ownership of what a system call returned, or throws with `errno` and the name of the call.
  public init(returnedBy call: StaticString, _ result: Int32) throws(SystemError) {
    guard result >= 0 else { throw SystemError(call) }
    self.rawValue = result
  }

  deinit { _ = close(rawValue) }

  /// Gives up ownership: the caller must close the number returned.
  public consuming func release() -> Int32 {
    let descriptor = rawValue
    discard self
    return descriptor
  }

  /// A second descriptor of the same open file, with close-on-exec set.
  public borrowing func duplicate() throws(SystemError) -> OwnedDescriptor {
    try OwnedDescriptor(returnedBy: "fcntl(F_DUPFD_CLOEXEC)", fcntl(rawValue, F_DUPFD_CLOEXEC, 0))
  }
}

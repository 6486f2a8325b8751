import Glibc

/// A connected socket that an application owns; closed when let go.
///
/// The engine must be able to take a socket away for the time of a handshake. That is why it is a type of
/// its own: to replicate it is to give it away, and nothing can be read or written by mistake meanwhile.
public struct Socket: ~Copyable, Sendable {
  /// The number of the open descriptor, for `read`, `write`, `poll`. Never close it yourself.
  public let descriptor: Int32

  /// Takes ownership of `descriptor`, which must be open.
  public init(owning descriptor: Int32) {
    precondition(descriptor >= 0, "a descriptor is never negative")
    self.descriptor = descriptor
  }

  deinit { _ = Glibc.close(descriptor) }

  /// Gives up ownership: the caller must close the number returned.
  public consuming func release() -> Int32 {
    let number = descriptor
    discard self
    return number
  }
}

import CLinux
import Descriptors
import Glibc
import Synchronization

// Theory of operation
//
// The kernel keeps the network namespace by thread (setns(2)): whoever has to make a socket in another one, or to ask
// about its interfaces, enters it and comes back. A socket stays where it was made. Both ways need CAP_SYS_ADMIN, also
// back into the namespace that the process was started in.

/// A network namespace that a thread can visit, one at a time.
public final class NetworkNamespace: Sendable {
  private let file: OwnedDescriptor
  private let home: OwnedDescriptor
  private let isVisited = Atomic(false)

  /// - Parameter path: such as /run/netns/blue, where ip-netns(8) has them by their names.
  /// - Throws: `ENOENT` if there is none, `EINVAL` if it is something else, `EPERM` without CAP_SYS_ADMIN.
  public init(path: String) throws(SystemError) {
    file = try Self.open(path)
    home = try Self.open("/proc/thread-self/ns/net")
    guard jsr_enter_network_namespace(file.rawValue) == 0 else { throw SystemError("setns", on: path) }
    visit {}
  }

  private static func open(_ path: String) throws(SystemError) -> OwnedDescriptor {
    let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw SystemError("open", on: path) }
    return OwnedDescriptor(owning: descriptor)
  }

  /// Does something in the namespace; the thread is back at home afterwards. Within a visit it stays where it is.
  public func visit<Result: ~Copyable, Failure>(
    _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    guard !isVisited.load(ordering: .relaxed) else { return try body() }
    // It was possible once, and the privilege is kept. In the wrong namespace nothing would be right.
    precondition(jsr_enter_network_namespace(file.rawValue) == 0, "the namespace can be entered")
    isVisited.store(true, ordering: .relaxed)
    defer {
      precondition(jsr_enter_network_namespace(home.rawValue) == 0, "the way home is open")
      isVisited.store(false, ordering: .relaxed)
    }
    return try body()
  }
}

import CLinux
import Descriptors

/// What a process may do beyond what every process of its user may (capabilities(7)).
public struct Capabilities: OptionSet, Sendable, Hashable, CustomStringConvertible {
  /// A bit for each of the kernel's numbers (include/uapi/linux/capability.h).
  public let rawValue: UInt64

  public init(rawValue: UInt64) { self.rawValue = rawValue }

  /// Sockets at ports that ordinary programs may not have, below 1024.
  public static let netBindService = Capabilities(rawValue: 1 << 10)
  /// TAP devices, nftables, addresses, TCP_REPAIR, kernel parameters below /proc/sys/net.
  public static let netAdmin = Capabilities(rawValue: 1 << 12)
  /// Visits to other network namespaces, among much else.
  public static let sysAdmin = Capabilities(rawValue: 1 << 21)
  /// Packet sockets and raw sockets.
  public static let netRaw = Capabilities(rawValue: 1 << 13)

  private static let names: [(Capabilities, String)] = [
    (.netBindService, "CAP_NET_BIND_SERVICE"), (.netAdmin, "CAP_NET_ADMIN"), (.netRaw, "CAP_NET_RAW"),
    (.sysAdmin, "CAP_SYS_ADMIN"),
  ]

  public var description: String {
    Self.names.filter { contains($0.0) }.map(\.1).joined(separator: " and ")
  }

  /// Those of the calling thread that are in force.
  public static func effective() throws(SystemError) -> Capabilities {
    let mask = jsr_effective_capabilities()
    guard mask >= 0 else { throw SystemError("capget") }
    return Capabilities(rawValue: UInt64(mask))
  }

  /// Gives up all others, for good, with whatever might be gained by executing a program (`no_new_privs`).
  ///
  /// The kernel keeps them by thread: this holds for the calling thread and those that it makes afterwards,
  /// so it has to come before there are others. That some of these are missing is no error.
  public func keepOnlyThese() throws(SystemError) {
    guard jsr_limit_capabilities(rawValue) == 0 else { throw SystemError("capset") }
  }
}

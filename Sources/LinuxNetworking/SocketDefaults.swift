import Glibc
import Packet

/// The options that new sockets have, remembered for a moment: where a thousand connections are restored in a row, to
/// read thirty options of each took a fourth of the time. Not longer, since they follow the system's settings (sysctl).
///
/// Of one network namespace.
public final class SocketDefaults {
  struct Kind: Hashable {
    var transport: TransportProtocol
    var isIPv6Socket: Bool
    /// Of the addresses that the socket speaks with.
    var family: IPAddress.Family
  }

  private static let lifetime: Int64 = 1_000_000_000

  private var known: [Kind: (options: SocketOptions, readAt: Int64)] = [:]

  public init() {}

  /// - Parameter descriptor: a new socket of this kind, to which nothing was done.
  func options(of descriptor: Int32, _ kind: Kind) -> SocketOptions {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    let now = Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
    if let (options, readAt) = known[kind], now - readAt < Self.lifetime { return options }
    let options = SocketOptions(of: descriptor, family: kind.family)
    known[kind] = (options, now)
    return options
  }
}

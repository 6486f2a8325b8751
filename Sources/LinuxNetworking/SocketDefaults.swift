import Packet

/// The options that new TCP sockets have, remembered for a moment: where a thousand connections are restored in a row, to
/// read thirty options of each took a fourth of the time. Not longer, since they follow the system's settings (sysctl).
///
/// Of one network namespace.
public final class SocketDefaults {
  struct Kind: Hashable {
    var isIPv6Socket: Bool
    /// Of the addresses that the socket speaks with.
    var family: IPAddress.Family
  }

  private static let lifetime = Duration.seconds(1)

  private var known: [Kind: (options: SocketOptions, readAt: ContinuousClock.Instant)] = [:]

  public init() {}

  /// - Parameter descriptor: a new socket of this kind, to which nothing was done.
  func options(of descriptor: Int32, _ kind: Kind) -> SocketOptions {
    let now = ContinuousClock.now
    if let (options, readAt) = known[kind], now - readAt < Self.lifetime { return options }
    let options = SocketOptions(of: descriptor, family: kind.family)
    known[kind] = (options, now)
    return options
  }
}

/// The packet filter could not do what it was asked to. Nothing was changed: every request is one
/// transaction.
public enum PacketFilterError: Error, Hashable, Sendable, CustomStringConvertible {
  /// libnftables could not be started: CAP_NET_ADMIN is missing, or memory, or the kernel's nf_tables.
  case unavailable
  /// The name of an interface cannot be written in a rule. Rename it: letters, digits, `.`, `_`, `-`, `@`.
  case unusableName(String)
  /// The kernel or libnftables refused, with these words.
  case refused(String)

  public var description: String {
    switch self {
    case .unavailable:
      "nftables cannot be used: CAP_NET_ADMIN and a kernel with CONFIG_NF_TABLES_NETDEV are needed"
    case .unusableName(let name):
      "interface name \(name) cannot be used in a packet filter rule; rename the interface"
    case .refused(let reason): "nftables: \(reason)"
    }
  }
}

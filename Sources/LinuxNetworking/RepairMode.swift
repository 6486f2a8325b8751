import Descriptors
import Glibc

/// The time during which a socket is in repair mode; see the theory of operation in `TCPRepair.swift`.
struct RepairMode {
  private let descriptor: Int32
  private let wasOn: Bool
  private let reuseAddress: Int32

  /// Enters repair mode, if the socket is not in it already.
  init(_ descriptor: Int32) throws(SystemError) {
    self.descriptor = descriptor
    wasOn =
      try socketOption(
        descriptor, Int32(IPPROTO_TCP), TCP_REPAIR, into: Int32(0), "getsockopt(TCP_REPAIR)") != 0
    reuseAddress = try socketOption(
      descriptor, SOL_SOCKET, SO_REUSEADDR, into: Int32(0), "getsockopt(SO_REUSEADDR)")
    if !wasOn { try Self.set(descriptor, TCP_REPAIR_ON) }
  }

  /// Leaves repair mode and repairs what entering it did to the socket.
  func end() {
    // Neither call can fail on a socket that entered repair mode.
    if wasOn { return }
    try? Self.set(descriptor, TCP_REPAIR_OFF_NO_WP)
    if reuseAddress != 0 {
      try? setSocketOption(descriptor, SOL_SOCKET, SO_REUSEADDR, Int32(1), "setsockopt(SO_REUSEADDR)")
    }
  }

  static func set(_ descriptor: Int32, _ mode: Int32) throws(SystemError) {
    try setSocketOption(descriptor, Int32(IPPROTO_TCP), TCP_REPAIR, mode, "setsockopt(TCP_REPAIR)")
  }
}

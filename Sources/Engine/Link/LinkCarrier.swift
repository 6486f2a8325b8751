import Descriptors
import LinuxNetworking
import Packet

/// Whether the interface that the inter-RE link runs over has a carrier: a pulled cable is news at once,
/// where silence takes time to be noticed.
final class LinkCarrier {
  private let carrier: Carrier
  private var wasRunning = false

  /// - Parameter address: this RE's end of the link; `nil` comes back if no interface has it.
  init?(address: IPAddress) throws(SystemError) {
    guard let name = NetworkInterface.name(having: address) else { return nil }
    carrier = try Carrier(of: name)
  }

  /// Whether the carrier went away since the last question. An interface that never had one may only be
  /// slow to say so: the kernel reports a new carrier up to a second late (net/core/link_watch.c).
  func wasLost() -> Bool {
    let isRunning = carrier.isRunning
    defer { wasRunning = isRunning }
    return wasRunning && !isRunning
  }
}

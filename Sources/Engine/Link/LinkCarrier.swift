import Descriptors
import LinuxNetworking
import Packet

/// Whether the interface that the inter-RE link runs over has a carrier: a pulled cable is news at once,
/// where silence takes time to be noticed.
final class LinkCarrier {
  private let carrier: Carrier

  /// - Parameter address: this RE's end of the link; `nil` comes back if no interface has it.
  init?(address: IPAddress) throws(SystemError) {
    guard let name = NetworkInterface.name(having: address) else { return nil }
    carrier = try Carrier(of: name)
  }

  var isRunning: Bool { carrier.isRunning }
}

import Packet
import Replication

extension Datagram {
  /// The Ethernet frame of the datagram, with complete checksums and no hardware addresses.
  func frame(fromPeer: Bool) -> [UInt8] {
    let builder = UDPFrameBuilder(
      sourceMAC: .zero, destinationMAC: .zero, source: fromPeer ? remote : local,
      destination: fromPeer ? local : remote)
    return payload.withUnsafeBytes { builder.frame(payload: $0) }
  }
}

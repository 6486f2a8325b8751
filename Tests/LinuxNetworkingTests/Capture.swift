import CLinux
import Descriptors
import Glibc
import LinuxNetworking
import Packet

/// Sees every frame that comes in on an interface, or with `.outgoing` also what leaves.
final class Capture: Sendable {
  private let socket: OwnedDescriptor

  init(on device: String, in namespace: NetworkNamespace) throws {
    let descriptor = try namespace.run { () throws -> Int32 in
      let descriptor = Glibc.socket(
        AF_PACKET, Int32(SOCK_RAW.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
      guard descriptor >= 0 else { throw SystemError("socket") }
      var size: Int32 = 64 << 20
      setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &size, 4)
      var address = sockaddr_ll()
      address.sll_family = UInt16(AF_PACKET)
      address.sll_protocol = UInt16(ETH_P_ALL).bigEndian
      address.sll_ifindex = try NetworkInterface(named: device).index
      let result = withUnsafeBytes(of: &address) {
        bind(descriptor, $0.baseAddress?.assumingMemoryBound(to: sockaddr.self), socklen_t($0.count))
      }
      guard result == 0 else { throw SystemError("bind") }
      return descriptor
    }
    socket = OwnedDescriptor(owning: descriptor)
  }

  /// The frames since the last call.
  func frames() -> [[UInt8]] {
    var frames: [[UInt8]] = []
    var buffer = [UInt8](repeating: 0, count: 70_000)
    while true {
      let count = recv(socket.rawValue, &buffer, buffer.count, Int32(MSG_DONTWAIT))
      if count <= 0 { return frames }
      frames.append(Array(buffer[..<count]))
    }
  }

  /// The TCP segments since the last call.
  func segments() -> [TCPPacket] { frames().compactMap { $0.withUnsafeBytes { TCPPacket($0) } } }
}

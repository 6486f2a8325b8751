import Descriptors
import Glibc

/// A UDP socket of the mini tools.
final class DatagramSocket {
  private let socket: OwnedDescriptor

  /// Makes a non-blocking socket that is bound to `local`, and connected to `remote` if there is one, in the VRF of a
  /// device if one is named.
  init(local: SocketAddress, remote: SocketAddress? = nil, vrf: String? = nil) throws(SystemError) {
    let socket = try OwnedDescriptor(
      returnedBy: "socket",
      Glibc.socket(
        local.family,
        Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0))
    if let vrf { try StreamSocket.enter(vrf: vrf, socket.rawValue) }
    guard local.withPointer({ bind(socket.rawValue, $0, $1) }) == 0 else {
      throw SystemError("bind", on: local.description)
    }
    if let remote {
      guard remote.withPointer({ connect(socket.rawValue, $0, $1) }) == 0 else {
        throw SystemError("connect", on: remote.description)
      }
    }
    self.socket = socket
  }

  /// Takes over a descriptor that is open, and in non-blocking mode.
  init(owning descriptor: Int32) { socket = OwnedDescriptor(owning: descriptor) }

  var descriptor: Int32 { socket.rawValue }

  /// Sends one datagram: to `destination`, or to where the socket is connected to.
  ///
  /// - Returns: 0, or `errno`.
  func send(_ text: String, to destination: SocketAddress? = nil) -> Int32 {
    let payload = Array(text.utf8)
    let sent =
      destination.map {
        $0.withPointer { sendto(descriptor, payload, payload.count, Int32(MSG_NOSIGNAL), $0, $1) }
      }
      ?? Glibc.send(descriptor, payload, payload.count, Int32(MSG_NOSIGNAL))
    return sent < 0 ? errno : 0
  }

  /// The next datagram that waits, and who sent it; `nil` if none does.
  ///
  /// - Throws: an error of the socket, such as `ECONNREFUSED` of an ICMP message, which is over then.
  func receive() throws(SystemError) -> (payload: [UInt8], source: SocketAddress)? {
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    var count = -1
    let source = SocketAddress { address, length in
      count = recvfrom(descriptor, &buffer, buffer.count, 0, address, length)
      return count < 0 ? -1 : 0
    }
    guard let source else {
      if errno == EAGAIN || errno == EINTR { return nil }
      throw SystemError("recvfrom")
    }
    return (Array(buffer[..<count]), source)
  }

  /// The address of this machine from which packets to `remote` leave.
  static func localHost(towards remote: SocketAddress) throws(SystemError) -> String {
    let probe = try OwnedDescriptor(
      returnedBy: "socket",
      Glibc.socket(remote.family, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0))
    guard remote.withPointer({ connect(probe.rawValue, $0, $1) }) == 0,
      let local = SocketAddress({ getsockname(probe.rawValue, $0, $1) })
    else { throw SystemError("connect", on: remote.description) }
    return local.host
  }
}

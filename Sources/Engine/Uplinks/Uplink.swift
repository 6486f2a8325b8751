import Descriptors
import EngineConfiguration
import Glibc
import LinuxNetworking
import NIOCore
import NIOPosix
import Packet

/// One of the interfaces over which peers reach the replicated addresses, and what belongs to it: the TAP device to
/// which the packets of its replicated flows are steered, and the socket through which they leave.
///
/// All steered flows are steered on every uplink, so a flow may move from one to another at any time. A packet that is
/// held belongs to the uplink by which it came, and goes on there.
final class Uplink {
  let name: String
  let interface: NetworkInterface
  let tap: TapDevice
  private let carrier: Carrier
  private let packetSocket: PacketSocket
  private var inputs: [UplinkInput] = []
  private var tapChannel: (any Channel)?

  /// Prepares the interface `name`; nothing runs yet.
  ///
  /// - Parameter tapName: what the TAP device is to be called.
  init(_ name: String, tapName: String, mark: UInt32) throws(SystemError) {
    self.name = name
    interface = try NetworkInterface(named: name)
    carrier = try Carrier(of: name)
    tap = try TapDevice(named: tapName, mtu: interface.mtu, hardwareAddress: interface.hardwareAddress)
    packetSocket = try PacketSocket(interface: interface, mark: mark)
  }

  /// Whether it is up and has a carrier.
  var isRunning: Bool { carrier.isRunning }

  /// For the packet filter.
  var steering: PacketFilter.Uplink { PacketFilter.Uplink(interface, tapName: tap.name) }

  // MARK: Frames

  /// Puts a frame, which starts with its virtio-net header, on the uplink. Returns 0, or `errno`.
  func send(_ frame: UnsafeRawBufferPointer) -> Int32 { packetSocket.send(frame) }

  /// Puts a frame that needs no virtio-net header on the uplink. Returns 0, or `errno`.
  func send(plain frame: [UInt8]) -> Int32 {
    let bytes = [UInt8](repeating: 0, count: VirtioNetHeader.byteCount) + frame
    return bytes.withUnsafeBytes { send($0) }
  }

  /// Delivers a frame, which starts with its virtio-net header, to the kernel. Returns 0, or `errno`.
  func deliver(_ frame: UnsafeRawBufferPointer) -> Int32 { tap.write(frame) }

  // MARK: What is read

  /// Listens to frames of each kind on the uplink from now on.
  ///
  /// - Parameter receive: called on the event loop with each frame, Ethernet header first.
  func listen(
    _ receivers: [(traffic: UplinkListener.Traffic, receive: (ByteBuffer) -> Void)],
    on eventLoop: any EventLoop
  ) {
    inputs = receivers.map {
      UplinkInput($0.traffic, on: interface, eventLoop: eventLoop, receive: $0.receive)
    }
    for input in inputs { input.start() }
  }

  /// Reads the TAP device with the event loop, one frame at a time, through a duplicate of its descriptor.
  func readTap(_ handler: TapHandler, on eventLoop: any EventLoop) throws -> EventLoopFuture<Void> {
    let frameCapacity = VirtioNetHeader.byteCount + Ethernet.headerByteCount + 65_535 + 4
    let duplicate = fcntl(tap.descriptor, F_DUPFD_CLOEXEC, 0)
    guard duplicate >= 0 else { throw SystemError("fcntl(F_DUPFD_CLOEXEC)") }
    let bound = NIOLoopBound((uplink: self, handler: handler), eventLoop: eventLoop)
    return NIOPipeBootstrap(group: eventLoop)
      .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: frameCapacity))
      .channelOption(.maxMessagesPerRead, value: 32)
      .channelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHandler(bound.value.handler)
        }
      }
      .takingOwnershipOfDescriptor(input: duplicate)
      .map { bound.value.uplink.tapChannel = $0 }
  }

  /// Reads nothing any more.
  func stop() {
    for input in inputs { input.stop() }
    tapChannel?.close(promise: nil)
  }
}

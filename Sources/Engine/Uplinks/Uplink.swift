import Descriptors
import EngineConfiguration
import Glibc
import LinuxNetworking
import NIOCore
import NIOPosix
import Packet
import Replication

/// One of the interfaces over which peers reach the replicated addresses, and what belongs to it: the TAP device to
/// which the packets of its replicated flows are steered, and the socket through which they leave.
///
/// All steered flows are steered on every uplink, so a flow may move from one to another at any time. A packet that is
/// held belongs to the uplink by which it came, and goes on there.
///
/// An interface may go, and another come under its name. The TAP device outlives both: to take one away costs the
/// kernel longer than a lease may wait.
final class Uplink {
  /// How a listener hands over what it hears: on the event loop, Ethernet header first.
  typealias Receiver = (traffic: UplinkListener.Traffic, receive: (ByteBuffer) -> Void)

  /// For as long as one interface is there.
  private final class Outlet {
    let socket: PacketSocket

    init(_ interface: NetworkInterface, mark: UInt32) throws(SystemError) {
      socket = try PacketSocket(interface: interface, mark: mark)
    }
  }

  let name: String
  /// The routing instance that it belongs to.
  let instance: RoutingInstanceID
  /// Of its flows.
  var counters = UplinkCounters()
  /// What is there under the name; `nil` if nothing is, or nothing that can be used.
  private(set) var interface: NetworkInterface?
  /// The last that was there.
  private(set) var lastInterface: NetworkInterface?
  /// That of the frames which leave here.
  private(set) var hardwareAddress: MACAddress
  /// Whether it was up and had a carrier when it was looked at last.
  private(set) var isRunning = false
  /// When an interface that could not be used is worth another try.
  var retryTime: Instant?

  private let place: InstancePlace
  private var tap: TapDevice
  /// Puts marks into the queue of the TAP device.
  private let tapQueue: PacketSocket
  private let mark: UInt32
  private let carrier: Carrier
  private var outlet: Outlet?
  private var eventLoop: (any EventLoop)?
  private var receivers: [Receiver] = []
  private var inputs: [UplinkInput] = []
  private var tapChannel: (any Channel)?
  /// Into which frames are read.
  private var frame = ByteBufferAllocator().buffer(capacity: frameCapacity)

  /// The longest that the TAP device hands out: a packet of 64 KiB, tagged, behind its headers.
  private static let frameCapacity = VirtioNetHeader.byteCount + Ethernet.headerByteCount + 65_535 + 4
  /// Frames that are read before others have their turn. Of those that find the queue full peers and kernel must send each
  /// again, so a turn takes as long as one with the requests of an application, which may bring as many.
  static let framesPerTurn = 512

  /// Of a TAP device whose uplink is not there: Ethernet's.
  private static let defaultMTU = 1500

  /// Makes the TAP device. The interface itself need not be there yet.
  ///
  /// - Parameters:
  ///   - instance: the routing instance that it belongs to, which is at `place`; the calling thread is there.
  ///   - tapName: what the TAP device is to be called.
  init(
    _ name: String, of instance: RoutingInstanceID, in place: InstancePlace, tapName: String, mark: UInt32
  ) throws(SystemError) {
    self.name = name
    self.instance = instance
    self.place = place
    self.mark = mark
    carrier = try Carrier(of: name)
    let tap = try TapDevice(named: tapName, mtu: Self.defaultMTU, in: place.vrf)
    hardwareAddress = tap.hardwareAddress
    tapQueue = try PacketSocket(interface: NetworkInterface(named: tapName), mark: mark)
    self.tap = tap
  }

  // MARK: The interface

  /// What is there under the name at this moment, if it belongs to the routing instance.
  var present: NetworkInterface? {
    carrier.interface.flatMap { interface in place.inside { place.has(interface) } ? interface : nil }
  }

  /// Looks again whether it is running.
  ///
  /// - Returns: whether that has changed.
  func lookAtCarrier() -> Bool {
    let isRunning = interface != nil && carrier.isRunning
    defer { self.isRunning = isRunning }
    return isRunning != self.isRunning
  }

  /// For the packet filter.
  func steering(_ interface: NetworkInterface) -> PacketFilter.Uplink {
    PacketFilter.Uplink(interface, tapName: tap.name)
  }

  /// The TAP device becomes what `interface` needs: frames go back and forth between the two as they are.
  func adapt(to interface: NetworkInterface) throws(SystemError) {
    try tap.follow(interface)
    hardwareAddress = interface.hardwareAddress
    if self.interface != nil { self.interface = interface }
  }

  /// Uses `interface`, to which the TAP device was adapted and which is steered, from now on.
  func attach(_ interface: NetworkInterface) throws(SystemError) {
    outlet = try Outlet(interface, mark: mark)
    self.interface = interface
    lastInterface = interface
    startInputs()
  }

  /// The interface is gone.
  func detach() {
    interface = nil
    outlet = nil
    stopInputs()
  }

  // MARK: Frames

  /// Puts a frame, which starts with its virtio-net header, on the uplink. Returns 0, or `errno`.
  func send(_ frame: UnsafeRawBufferPointer) -> Int32 { outlet?.socket.send(frame) ?? ENODEV }

  /// Puts a frame that needs no virtio-net header on the uplink. Returns 0, or `errno`.
  func send(plain frame: [UInt8]) -> Int32 {
    let bytes = [UInt8](repeating: 0, count: VirtioNetHeader.byteCount) + frame
    return bytes.withUnsafeBytes { send($0) }
  }

  /// Puts a frame into the queue from which the engine reads, behind what is in it. Returns 0, or `errno`.
  func enqueue(_ frame: [UInt8]) -> Int32 { frame.withUnsafeBytes { tapQueue.send($0) } }

  /// Delivers a frame, which starts with its virtio-net header, to the kernel. Returns 0, or `errno`.
  func deliver(_ frame: UnsafeRawBufferPointer) -> Int32 { tap.write(frame) }

  // MARK: What is read

  /// Listens on the uplink from now on, whenever it is there.
  func listen(_ receivers: [Receiver], on eventLoop: any EventLoop) {
    self.receivers = receivers
    self.eventLoop = eventLoop
    startInputs()
  }

  private func startInputs() {
    guard let interface, let eventLoop else { return }
    inputs = receivers.map {
      UplinkInput($0.traffic, on: interface, in: place, eventLoop: eventLoop, receive: $0.receive)
    }
    for input in inputs { input.start() }
  }

  private func stopInputs() {
    for input in inputs { input.stop() }
    inputs = []
  }

  /// The frame that has waited longest in the TAP device's queue, behind its virtio-net header; `nil` if none does.
  func readFrame() -> ByteBuffer? {
    // Whoever keeps the last one keeps its bytes: then this is a new buffer.
    frame.clear()
    let count = frame.writeWithUnsafeMutableBytes(minimumWritableBytes: Self.frameCapacity) {
      tap.read(into: $0) ?? 0
    }
    return count > 0 ? frame : nil
  }

  /// Has the event loop look after the TAP device, through a duplicate of its descriptor.
  func readTap(_ handler: TapHandler, on eventLoop: any EventLoop) throws -> EventLoopFuture<Void> {
    let duplicate = fcntl(tap.descriptor, F_DUPFD_CLOEXEC, 0)
    guard duplicate >= 0 else { throw SystemError("fcntl(F_DUPFD_CLOEXEC)") }
    let bound = NIOLoopBound((uplink: self, handler: handler), eventLoop: eventLoop)
    return NIOPipeBootstrap(group: eventLoop)
      .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: Self.frameCapacity))
      .channelOption(.maxMessagesPerRead, value: 1)
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
    stopInputs()
    tapChannel?.close(promise: nil)
  }
}

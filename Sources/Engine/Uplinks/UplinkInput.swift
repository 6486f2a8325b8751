import Descriptors
import Glibc
import LinuxNetworking
import Logging
import NIOCore
import NIOPosix

/// Listens to one kind of frames on an uplink, for as long as the engine runs: a listener ends when its
/// uplink goes down, and is made anew when it may be up again.
final class UplinkInput {
  private let traffic: UplinkListener.Traffic
  private let interface: NetworkInterface
  private let place: InstancePlace
  private let eventLoop: any EventLoop
  private let receive: (ByteBuffer) -> Void
  private var channel: (any Channel)?
  private var isStopped = false

  static let retryDelay = TimeAmount.milliseconds(100)
  /// Frames of both kinds are small; what is longer is cut.
  static let frameCapacity = 2048

  /// - Parameter receive: called on the event loop with each frame, Ethernet header first.
  init(
    _ traffic: UplinkListener.Traffic, on interface: NetworkInterface, in place: InstancePlace,
    eventLoop: any EventLoop, receive: @escaping (ByteBuffer) -> Void
  ) {
    self.traffic = traffic
    self.interface = interface
    self.place = place
    self.eventLoop = eventLoop
    self.receive = receive
  }

  func start() {
    guard !isStopped else { return }
    let box = NIOLoopBound(self, eventLoop: eventLoop)
    guard let descriptor = try? listen() else { return startLater() }
    NIOPipeBootstrap(group: eventLoop)
      .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: Self.frameCapacity))
      .channelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHandler(UplinkHandler(box.value))
        }
      }
      .takingOwnershipOfDescriptor(input: descriptor)
      .whenComplete { result in
        switch result {
        case .success(let channel): box.value.began(channel)
        case .failure: box.value.startLater()
        }
      }
  }

  private func began(_ channel: any Channel) {
    guard !isStopped else { return channel.close(promise: nil) }
    self.channel = channel
  }

  private func listen() throws(SystemError) -> Int32 {
    let listener = try place.inside { () throws(SystemError) in
      try UplinkListener(interface: interface, for: traffic)
    }
    let descriptor = fcntl(listener.descriptor, F_DUPFD_CLOEXEC, 0)
    guard descriptor >= 0 else { throw SystemError("fcntl(F_DUPFD_CLOEXEC)") }
    return descriptor
  }

  private func startLater() {
    let box = NIOLoopBound(self, eventLoop: eventLoop)
    eventLoop.scheduleTask(in: Self.retryDelay) { box.value.start() }
  }

  func stop() {
    isStopped = true
    channel?.close(promise: nil)
  }

  fileprivate func frameArrived(_ frame: ByteBuffer) { receive(frame) }

  fileprivate func ended() {
    channel = nil
    startLater()
  }
}

private final class UplinkHandler: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer

  private let input: UplinkInput

  init(_ input: UplinkInput) { self.input = input }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) { input.frameArrived(unwrapInboundIn(data)) }

  /// ENETDOWN: the uplink went down.
  func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

  func channelInactive(context: ChannelHandlerContext) { input.ended() }
}

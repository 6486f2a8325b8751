import LinuxNetworking
import NIOCore

/// Wakes the engine when there is something in the queue of the TAP device of an uplink.
///
/// The event loop reads the first frame, and the engine the others of a batch: straight into a buffer that is used
/// again, where the event loop would make one for each, and turn to its selector in between.
final class TapHandler: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer

  private let engine: Engine
  private let uplink: Uplink

  init(_ engine: Engine, _ uplink: Uplink) {
    self.engine = engine
    self.uplink = uplink
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    engine.frameArrived(unwrapInboundIn(data), on: uplink)
  }

  func channelReadComplete(context: ChannelHandlerContext) {
    engine.readFrames(of: uplink, atMost: Uplink.framesPerTurn - 1)
    engine.frameBatchEnded()
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    engine.fail(because: "the TAP device of \(uplink.name) cannot be read: \(error)")
  }
}

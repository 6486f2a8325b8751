import LinuxNetworking
import NIOCore

/// Hands each frame of the TAP device of an uplink to the engine, and tells it when there are no more for now.
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

  func channelReadComplete(context: ChannelHandlerContext) { engine.frameBatchEnded() }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    engine.fail(because: "the TAP device of \(uplink.name) cannot be read: \(error)")
  }
}

import NIOCore

/// Hands each frame of the TAP device to the engine, and tells it when there are no more for now.
final class TapHandler: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer

  private let engine: Engine

  init(_ engine: Engine) { self.engine = engine }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    engine.frameArrived(unwrapInboundIn(data))
  }

  func channelReadComplete(context: ChannelHandlerContext) { engine.frameBatchEnded() }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    engine.fail(because: "the TAP device cannot be read: \(error)")
  }
}

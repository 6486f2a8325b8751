import NIOCore

/// Hands each frame of an uplink listener (ARP, or keepalives of the other RE) to the engine.
final class UplinkHandler: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer

  private let receive: (ByteBuffer) -> Void

  init(_ receive: @escaping (ByteBuffer) -> Void) { self.receive = receive }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) { receive(unwrapInboundIn(data)) }

  /// A listener reports ENETDOWN once when its uplink goes down, and works again when it is back.
  func errorCaught(context: ChannelHandlerContext, error: any Error) {}
}

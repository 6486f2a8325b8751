import Glibc
import NIOCore
import Replication

/// One TCP connection to the other RE: collects its bytes until they make whole records.
final class LinkHandler: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer

  private let link: Link
  /// The beginning of a record whose rest is on its way.
  private var partial = ByteBuffer()
  private var closedByPeer = true

  init(_ link: Link) { self.link = link }

  func channelActive(context: ChannelHandlerContext) { link.opened(context.channel, handler: self) }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    var input = unwrapInboundIn(data)
    if partial.readableBytes > 0 {
      partial.writeBuffer(&input)
      let used = link.received(partial, on: context.channel)
      partial.moveReaderIndex(forwardBy: used)
      partial.discardReadBytes()
    } else {
      let used = link.received(input, on: context.channel)
      input.moveReaderIndex(forwardBy: used)
      if input.readableBytes > 0 { partial.writeBuffer(&input) }
    }
  }

  func channelReadComplete(context: ChannelHandlerContext) { link.batchEnded() }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    // Only a word from the other side says that its engine has let go; a dead path does not.
    if let error = error as? IOError, error.errnoCode != ECONNRESET, error.errnoCode != EPIPE {
      closedByPeer = false
    }
    context.close(promise: nil)
  }

  func channelInactive(context: ChannelHandlerContext) {
    link.ended(context.channel, byPeer: closedByPeer)
  }

  /// This side ends the connection.
  func closeLocally(_ channel: any Channel) {
    closedByPeer = false
    channel.close(promise: nil)
  }
}

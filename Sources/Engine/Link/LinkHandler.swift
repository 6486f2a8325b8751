// Theory of operation
//
// A NIO channel speaks while it is being spoken to. A flush that finds the connection broken reads what the
// socket still holds, to the last byte (channelRead), and closes the channel (channelInactive), all before it
// returns (BaseSocketChannel.flushNow in NIOPosix); a close says channelInactive before it returns. The
// engine writes in the middle of its work: it acknowledges a batch of records before it is done with them, and
// sends a record for a packet before it is done with the packet. To hear of more records, or of the end of
// the link, at such a moment would change the state under its hands, and would come before what is not yet
// done.
//
// So whatever is said while this side writes or closes, or while earlier input is being dealt with, waits in a
// queue, and is told in a later turn of the event loop; what comes behind it waits too, so that the order is
// that of the connection. The queue is bounded by the socket's receive buffer: NIO reads that much from a
// broken connection and then no more. Otherwise it is empty, and bytes go straight through.

import DequeModule
import Glibc
import NIOCore
import Replication

/// One TCP connection to the other RE: collects its bytes until they make whole records, and sees to it that
/// nobody is told of anything before he is ready for it.
final class LinkHandler: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer

  private enum News {
    case bytes(ByteBuffer)
    case batchEnd
    case end
  }

  private let link: Link
  /// The beginning of a record whose rest is on its way.
  private var partial = ByteBuffer()
  private var ending = LinkEnding.endOfStream
  private var isFlushing = false
  /// The link is at work, with the channel or with news of it.
  private var isBusy = false
  /// What was heard meanwhile.
  private var waiting: Deque<News> = []
  /// The event loop is going to tell what waits.
  private var isTellingLater = false

  init(_ link: Link) { self.link = link }

  // MARK: What the channel says

  func channelActive(context: ChannelHandlerContext) {
    undisturbed { link.opened(context.channel, handler: self) }
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    heard(.bytes(unwrapInboundIn(data)), context)
  }

  func channelReadComplete(context: ChannelHandlerContext) { heard(.batchEnd, context) }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    if ending == .endOfStream {
      let code = (error as? IOError)?.errnoCode
      ending = code == ECONNRESET || code == EPIPE ? .reset : .closedHere
    }
    context.close(promise: nil)
  }

  func channelInactive(context: ChannelHandlerContext) {
    // A connection that cannot be written to any more is not one that was ended in order.
    if isFlushing, ending == .endOfStream { ending = .reset }
    heard(.end, context)
  }

  // MARK: What is said to the channel

  func flush(_ channel: any Channel) {
    isFlushing = true
    undisturbed { channel.flush() }
    isFlushing = false
  }

  /// This side ends the connection.
  func closeLocally(_ channel: any Channel) {
    ending = .closedHere
    undisturbed { channel.close(promise: nil) }
  }

  // MARK: One thing at a time

  private func undisturbed(_ work: () -> Void) {
    let wasBusy = isBusy
    isBusy = true
    work()
    isBusy = wasBusy
  }

  private func heard(_ news: News, _ context: ChannelHandlerContext) {
    guard isBusy || !waiting.isEmpty else { return undisturbed { tell(news) } }
    waiting.append(news)
    guard !isTellingLater else { return }
    isTellingLater = true
    let handler = NIOLoopBound(self, eventLoop: context.eventLoop)
    context.eventLoop.execute { handler.value.tellWaiting() }
  }

  private func tellWaiting() {
    undisturbed {
      while let news = waiting.popFirst() { tell(news) }
    }
    isTellingLater = false
  }

  private func tell(_ news: News) {
    switch news {
    case .bytes(let bytes): tell(bytes)
    case .batchEnd: link.batchEnded()
    case .end: link.ended(self, ending)
    }
  }

  private func tell(_ bytes: ByteBuffer) {
    var input = bytes
    if partial.readableBytes > 0 {
      partial.writeBuffer(&input)
      let used = link.received(partial, from: self)
      partial.moveReaderIndex(forwardBy: used)
      partial.discardReadBytes()
    } else {
      let used = link.received(input, from: self)
      input.moveReaderIndex(forwardBy: used)
      if input.readableBytes > 0 { partial.writeBuffer(&input) }
    }
  }
}

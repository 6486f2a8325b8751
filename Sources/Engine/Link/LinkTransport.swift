import NIOCore

/// Between the socket and TLS: bounds what comes in before the other side has proved who it is, closes
/// without asking TLS, and has TLS hand on all that it has deciphered before it hears of an error or of the
/// end.
final class LinkTransport: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer
  typealias InboundOut = ByteBuffer

  /// More than any handshake takes.
  static let unprovenByteLimit = 64 << 10

  struct TooMuch: Error {}

  private var context: ChannelHandlerContext?
  /// How many bytes may still come; `nil` once the other side has proved who it is.
  private var allowance: Int? = unprovenByteLimit

  func handlerAdded(context: ChannelHandlerContext) { self.context = context }

  func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

  /// The other side is the other RE: it may send as much as it likes.
  func liftLimit() { allowance = nil }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    if let left = allowance {
      let count = unwrapInboundIn(data).readableBytes
      guard count <= left else { return context.fireErrorCaught(TooMuch()) }
      allowance = left - count
    }
    context.fireChannelRead(data)
  }

  // TLS keeps what it has deciphered until a batch of input ends. NIO ends no batch before it tells of an
  // error.

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    context.fireChannelReadComplete()
    context.fireErrorCaught(error)
  }

  func channelInactive(context: ChannelHandlerContext) {
    context.fireChannelReadComplete()
    context.fireChannelInactive()
  }

  /// Has TLS hand on what it has deciphered, and send what it has to say, such as an alert.
  func endBatch() { context?.fireChannelReadComplete() }

  /// Closes the connection now, where TLS would wait for the other side to agree.
  func close() { context?.close(promise: nil) }
}

// Theory of operation
//
// A NIO channel speaks while it is being spoken to. A flush that finds the connection broken reads what the
// socket still holds, to the last byte (channelRead), and closes the channel (channelInactive), all before it
// returns (BaseSocketChannel.flushNow in NIOPosix); a close says channelInactive before it returns. The
// engine writes in the middle of its work: it acknowledges a batch of records before it is done with them,
// and sends a record for a packet before it is done with the packet. To hear of more records, or of the end
// of the link, at such a moment would change the state under its hands, and would come before what is not yet
// done.
//
// So whatever is said while this side writes or closes, or while earlier input is being dealt with, waits in
// a queue, and is told in a later turn of the event loop; what comes behind it waits too, so that the order
// is that of the connection. The queue is bounded by the socket's receive buffer: NIO reads that much from a
// broken connection and then no more. Otherwise it is empty, and bytes go straight through.
//
// With TLS there are two handlers more, nearer to the socket: LinkTransport and NIO's NIOSSLHandler. A write
// is enciphered in the flush behind it, and what that flush reads from a broken connection is deciphered
// before it returns, so that all of the above holds for what comes out of TLS. What TLS has deciphered it
// hands on at the end of a batch, and LinkTransport makes one before each error and before the end, so that
// nothing is left in it. The link is opened in two steps. The RE that listens opens it when it has seen the
// whole proof of who connects. The one that connects has seen a proof by then too, but does not know what
// became of its own: it opens the link when the other one speaks, which that does at once. Otherwise a
// certificate that is not accepted would look like the end of an engine. Before, nothing is told at all.
//
// How a connection ends says whether there still is an engine at the other side. A kernel that closes for a
// process that is no more knows nothing of TLS: a FIN without the closing alert (uncleanShutdown) is the end
// of the stream, and a reset is a reset. But what cannot be deciphered, and an alert that says so, come from
// no engine that is gone: the link is broken, and closed here. So that the other side does not take that for
// the end of this engine, the alert that BoringSSL has for it is sent first, and the connection is reset: an
// alert may get lost, but then there is no FIN either.

import DequeModule
import Glibc
import NIOCore
import NIOSSL
import NIOTLS
import Replication

/// One TCP connection to the other RE: finds out that it is that, collects its bytes until they make whole
/// records, and sees to it that nobody is told of anything before he is ready for it.
final class LinkHandler: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer

  /// Which side of the handshake this is.
  enum Side {
    case listening, connecting
  }

  private enum Stage {
    /// Who is at the other side is not known.
    case unproven
    /// It is the other RE; whether it takes this one for that is not known.
    case proven
    case open
    /// Nothing that comes is of interest.
    case refused
  }

  /// What stands between this handler and the socket, with TLS.
  private struct Protection {
    let side: Side
    let transport: LinkTransport
    let tls: NIOSSLHandler
    /// The name that the other side must prove.
    let peer: String
    let deadline: Scheduled<Void>
  }

  private enum News {
    case bytes(ByteBuffer)
    case batchEnd
    case end
  }

  private let link: Link
  private var stage = Stage.unproven
  private var protection: Protection?
  /// The beginning of a record whose rest is on its way.
  private var partial = ByteBuffer()
  private var ending = LinkEnding.endOfStream
  private var isFlushing = false
  /// The link is at work, with the channel or with news of it.
  private var isBusy = false
  /// What was heard meanwhile.
  private var waiting: Deque<News> = []
  /// There is no more to be heard.
  private var hasEnded = false
  /// The event loop is going to tell what waits.
  private var isTellingLater = false

  init(_ link: Link) { self.link = link }

  // MARK: Who is there

  /// Begins the handshake.
  ///
  /// - Parameter time: how long it may take.
  func authenticate(
    _ channel: any Channel, as side: Side, with credentials: LinkCredentials, within time: TimeAmount
  ) throws {
    let tls =
      switch side {
      case .listening: NIOSSLServerHandler(context: credentials.context)
      case .connecting: try NIOSSLClientHandler(context: credentials.context, serverHostname: nil)
      }
    let transport = LinkTransport()
    let handler = NIOLoopBound(self, eventLoop: channel.eventLoop)
    let deadline = channel.eventLoop.scheduleTask(in: time) {
      handler.value.refuse(
        channel, because: "it has not shown within \(time.nanoseconds / 1_000_000) ms who it is")
    }
    protection = Protection(
      side: side, transport: transport, tls: tls, peer: credentials.peer, deadline: deadline)
    try channel.pipeline.syncOperations.addHandlers([transport, tls], position: .first)
  }

  /// The other side has proved that its certificate is its own, and comes from an authority that counts.
  private func certificateProved(_ channel: any Channel) {
    guard stage == .unproven, let protection else { return }
    guard let certificate = protection.tls.peerCertificate, certificate.carries(protection.peer) else {
      let names = protection.tls.peerCertificate?.namesForPeople ?? "nobody"
      return refuse(
        channel, because: "its certificate is for \(names), not for \(protection.peer) (link.tls.peer)")
    }
    stage = .proven
    if protection.side == .listening { open(channel) }
  }

  /// The connection is the link, unless there is one.
  func open(_ channel: any Channel) {
    stage = .open
    protection?.deadline.cancel()
    protection?.transport.liftLimit()
    link.opened(channel, handler: self)
  }

  /// The connection is not the link.
  func refuse(_ channel: any Channel, because reason: String) {
    guard stage != .refused else { return }
    stage = .refused
    link.refused(channel.remoteAddress, because: reason)
    closeLocally(channel)
  }

  // MARK: What the channel says

  func channelActive(context: ChannelHandlerContext) {
    undisturbed { link.connected(context.channel, handler: self) }
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    if case .handshakeCompleted? = event as? TLSUserEvent {
      undisturbed { certificateProved(context.channel) }
    }
    context.fireUserInboundEventTriggered(event)
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    if stage == .proven { undisturbed { open(context.channel) } }
    if stage == .open { heard(.bytes(unwrapInboundIn(data)), context) }
  }

  func channelReadComplete(context: ChannelHandlerContext) {
    if stage == .open { heard(.batchEnd, context) }
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    switch error {
    // TLS was asked to end a batch of a connection that is closed.
    case ChannelError.ioOnClosedChannel: return
    // The end itself comes next.
    case NIOSSLError.uncleanShutdown: return
    default: break
    }
    switch stage {
    case .unproven, .proven:
      undisturbed {
        // The other side may have opened the link already, and is told.
        protection?.transport.endBatch()
        refuse(context.channel, because: Self.text(error))
      }
    case .open: broke(error, context)
    case .refused: break
    }
  }

  private func broke(_ error: any Error, _ context: ChannelHandlerContext) {
    guard ending == .endOfStream else { return }
    if let error = error as? IOError {
      ending = error.errnoCode == ECONNRESET || error.errnoCode == EPIPE ? .reset : .closedHere
    } else {
      ending = .closedHere
      link.broke(because: Self.text(error))
      // What came before it is true, and the other side is told.
      protection?.transport.endBatch()
    }
    close(context.channel, inOrder: false)
  }

  private static func text(_ error: any Error) -> String {
    switch error {
    case is LinkTransport.TooMuch:
      "it has sent more than \(LinkTransport.unprovenByteLimit >> 10) KiB without having shown who it is"
    case let error as IOError: "\(String(cString: strerror(error.errnoCode)))"
    default: "TLS: \(LinkTLSProblem.text(error))"
    }
  }

  func channelInactive(context: ChannelHandlerContext) {
    protection?.deadline.cancel()
    if stage == .unproven || stage == .proven {
      stage = .refused
      link.refused(
        context.remoteAddress,
        because: "it has closed the connection without a word, as one does that does not accept a certificate"
      )
    }
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
    undisturbed { close(channel, inOrder: stage == .open) }
  }

  /// With TLS, an open link is ended in order with the closing alert, but without waiting for that of the
  /// other side; whatever else is ended is reset.
  private func close(_ channel: any Channel, inOrder: Bool) {
    guard let protection else { return channel.close(promise: nil) }
    if inOrder {
      channel.close(promise: nil)
    } else {
      _ = (channel as? any SocketOptionProvider)?.setSoLinger(linger(l_onoff: 1, l_linger: 0))
    }
    protection.transport.close()
  }

  // MARK: One thing at a time

  private func undisturbed(_ work: () -> Void) {
    let wasBusy = isBusy
    isBusy = true
    work()
    isBusy = wasBusy
  }

  private func heard(_ news: News, _ context: ChannelHandlerContext) {
    // A batch that was ended by the end ends once more, behind it.
    guard !hasEnded else { return }
    if case .end = news { hasEnded = true }
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
    // Only what a record lacks goes behind its beginning: of all else no copy is made.
    while partial.readableBytes > 0 {
      let missing = partial.withUnsafeReadableBytes(RecordHeader.missingByteCount)
      guard let rest = input.readSlice(length: min(missing, input.readableBytes)), rest.readableBytes > 0
      else {
        return
      }
      partial.writeImmutableBuffer(rest)
      // A header that is complete is told too: what follows may never come.
      let used = link.received(partial, from: self, moreFollows: input.readableBytes > 0)
      if used > 0 { partial.clear() }
    }
    guard input.readableBytes > 0 else { return }
    let used = link.received(input, from: self, moreFollows: false)
    input.moveReaderIndex(forwardBy: used)
    partial.writeImmutableBuffer(input)
  }
}

import Glibc
import NIOCore
import NIOPosix
import Testing

@testable import Engine

@Suite("A turn of the event loop", .timeLimit(.minutes(1)))
struct EventLoopInputTests {
  /// Counts what it reads. For the event loop only.
  private final class Reader: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    var byteCount = 0

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
      byteCount += unwrapInboundIn(data).readableBytes
    }
  }

  /// A chain of tasks, of which each asks for the next until something was read, or it has become long.
  private final class Chain: Sendable {
    static let limit = 10_000
    let loop: any EventLoop
    let reader: NIOLoopBound<Reader>
    let length: NIOLoopBoundBox<Int>

    init(_ loop: any EventLoop, _ reader: NIOLoopBound<Reader>) {
      self.loop = loop
      self.reader = reader
      length = .init(0, eventLoop: loop)
    }

    func go(on ended: EventLoopPromise<Int>) {
      length.value += 1
      guard reader.value.byteCount == 0, length.value < Self.limit else { return ended.succeed(length.value) }
      loop.executeBehindInput { self.go(on: ended) }
    }
  }

  @Test("looks for input before a task that asks to be done behind it, however long the chain of such tasks")
  func input() async throws {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let loop = group.next()
    var ends: [Int32] = [0, 0]
    try #require(pipe(&ends) == 0)
    let (input, output) = (ends[0], ends[1])
    let channel = try await NIOPipeBootstrap(group: loop)
      .channelInitializer { channel in
        channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(Reader()) }
      }
      .takingOwnershipOfDescriptor(input: input).get()
    let length = try await loop.flatSubmit {
      let ended = loop.makePromise(of: Int.self)
      do {
        let reader = NIOLoopBound(
          try channel.pipeline.syncOperations.handler(type: Reader.self), eventLoop: loop)
        let chain = Chain(loop, reader)
        // It is there from now on.
        #expect(write(output, "x", 1) == 1)
        chain.go(on: ended)
      } catch {
        ended.fail(error)
      }
      return ended.futureResult
    }.get()
    #expect(length < 100, "with execute(_:) the chain goes on to its end, of \(Chain.limit)")
    close(output)
    try await channel.closeFuture.get()
    try await group.shutdownGracefully()
  }
}

import EngineConfiguration
import Logging
import NIOCore
import NIOPosix
import Packet
import Replication

/// The inter-RE link: makes the one TCP connection between the two engines, again and again, and carries
/// records over it.
///
/// The RE with slot 0 listens and that with slot 1 connects, so that there is never a choice between two
/// connections. Records are collected and written together when the event at hand has been dealt with; a
/// large payload goes out from the buffer it was read into.
final class Link {
  private let delegate: any LinkDelegate
  private let eventLoop: any EventLoop
  private let configuration: Configuration.Link
  private let slot: UInt8
  private let logger: Logger

  private var listener: (any Channel)?
  private var channel: (any Channel)?
  private var handler: LinkHandler?
  private var isStopping = false
  /// Time between two attempts to connect.
  private let retryDelay: TimeAmount
  private var batch: ByteBuffer
  private var hasWritten = false

  /// From this size on a payload is not copied into the batch.
  static let gatherThreshold = 16 << 10
  static let batchCapacity = 64 << 10

  init(
    delegate: any LinkDelegate, eventLoop: any EventLoop, configuration: Configuration.Link, slot: UInt8,
    retryDelay: TimeAmount, logger: Logger
  ) {
    self.delegate = delegate
    self.eventLoop = eventLoop
    self.configuration = configuration
    self.slot = slot
    self.retryDelay = retryDelay
    self.logger = logger
    batch = ByteBufferAllocator().buffer(capacity: Self.batchCapacity)
  }

  // MARK: The connection

  func start() throws {
    if slot == 0 { try listen() } else { connect() }
  }

  private func listen() throws {
    let box = NIOLoopBound(self, eventLoop: eventLoop)
    let future = ServerBootstrap(group: eventLoop)
      .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
      .childChannelInitializer { Self.initialize($0, box) }
      .bind(to: try Self.address(configuration.listen))
    future.whenComplete { result in
      switch result {
      case .success(let listener): box.value.listener = listener
      case .failure(let error):
        box.value.delegate.linkFailed(
          because: "cannot listen for the other RE on \(box.value.configuration.listen): \(error)")
      }
    }
  }

  private func connect() {
    guard !isStopping, let address = try? Self.address(configuration.connect) else { return }
    let box = NIOLoopBound(self, eventLoop: eventLoop)
    ClientBootstrap(group: eventLoop)
      .connectTimeout(.milliseconds(500))
      .channelInitializer { Self.initialize($0, box) }
      .connect(to: address)
      .whenFailure { _ in box.value.connectLater() }
  }

  /// Makes a new connection ready, whoever began it.
  private static func initialize(_ channel: any Channel, _ link: NIOLoopBound<Link>) -> EventLoopFuture<Void>
  {
    channel.eventLoop.makeCompletedFuture {
      guard let options = channel.syncOptions else { preconditionFailure("NIO's own channels have them") }
      try options.setOption(.tcpOption(.tcp_nodelay), value: 1)
      try options.setOption(
        .recvAllocator,
        value: AdaptiveRecvByteBufferAllocator(minimum: 4096, initial: 65536, maximum: 1 << 20))
      try channel.pipeline.syncOperations.addHandler(LinkHandler(link.value))
    }
  }

  private func connectLater() {
    let box = NIOLoopBound(self, eventLoop: eventLoop)
    eventLoop.scheduleTask(in: retryDelay) { box.value.connect() }
  }

  private static func address(_ endpoint: Endpoint) throws -> NIOCore.SocketAddress {
    try NIOCore.SocketAddress(ipAddress: "\(endpoint.address)", port: Int(endpoint.port))
  }

  func opened(_ channel: any Channel, handler: LinkHandler) {
    let remote = channel.remoteAddress?.ipAddress
    guard remote.flatMap({ IPAddress($0) }) == configuration.connect.address else {
      logger.warning(
        "KKCM connection from \(remote ?? "an unknown address") refused: the other RE is \(configuration.connect.address)"
      )
      handler.closeLocally(channel)
      return
    }
    guard self.channel == nil else {
      handler.closeLocally(channel)
      return
    }
    self.channel = channel
    self.handler = handler
    batch.clear()
    delegate.linkOpened()
  }

  func ended(_ handler: LinkHandler, _ ending: LinkEnding) {
    if self.handler === handler {
      channel = nil
      self.handler = nil
      delegate.linkEnded(ending)
    }
    if slot == 1, !isStopping, channel == nil { connectLater() }
  }

  /// Ends the connection from this side; the engine is told nothing, since it asked.
  func drop() {
    guard let channel, let handler else { return }
    self.channel = nil
    self.handler = nil
    handler.closeLocally(channel)
  }

  /// Writes what is left, ends the connection and makes no new one.
  func stop() {
    isStopping = true
    listener?.close(promise: nil)
    flush()
    drop()
  }

  // MARK: Input

  /// - Returns: how many of the bytes were used; of a connection that is let go of, all.
  func received(_ bytes: ByteBuffer, from handler: LinkHandler) -> Int {
    guard self.handler === handler else { return bytes.readableBytes }
    return bytes.withUnsafeReadableBytes { delegate.linkReceived($0) }
  }

  func batchEnded() { delegate.linkBatchEnded() }

  // MARK: Output

  /// Appends a whole record.
  func append(_ record: [UInt8]) {
    guard channel != nil else { return }
    batch.writeBytes(record)
    writeBatchIfLarge()
  }

  /// Appends a record whose payload lies in `packet`, counted from `origin`.
  func append(_ record: SegmentRecord, of packet: ByteBuffer, origin: Int) {
    guard channel != nil else { return }
    batch.writeWithUnsafeMutableBytes(minimumWritableBytes: SegmentRecord.fixedByteCount) { bytes in
      record.store(in: bytes)
      return SegmentRecord.fixedByteCount
    }
    let start = packet.readerIndex + origin + record.payload.lowerBound
    appendPayload(packet, at: start, count: record.payload.count)
  }

  /// Appends a record whose body is all of `packet`.
  func append(_ header: RecordHeader, body packet: ByteBuffer) {
    guard channel != nil else { return }
    batch.writeWithUnsafeMutableBytes(minimumWritableBytes: RecordHeader.byteCount) { bytes in
      header.store(in: bytes)
      return RecordHeader.byteCount
    }
    appendPayload(packet, at: packet.readerIndex, count: packet.readableBytes)
  }

  private func appendPayload(_ packet: ByteBuffer, at start: Int, count: Int) {
    guard count > 0, let payload = packet.getSlice(at: start, length: count) else { return }
    if count < Self.gatherThreshold {
      batch.writeImmutableBuffer(payload)
      writeBatchIfLarge()
    } else {
      writeBatch()
      channel?.write(payload, promise: nil)
    }
  }

  private func writeBatchIfLarge() { if batch.readableBytes >= Self.batchCapacity { writeBatch() } }

  private func writeBatch() {
    guard let channel, batch.readableBytes > 0 else { return }
    channel.write(batch, promise: nil)
    hasWritten = true
    batch = channel.allocator.buffer(capacity: Self.batchCapacity)
  }

  /// Puts everything appended so far on the wire.
  func flush() {
    guard let channel, let handler else { return }
    writeBatch()
    guard hasWritten else { return }
    hasWritten = false
    handler.flush(channel)
  }
}

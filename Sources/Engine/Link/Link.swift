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
/// connections. With TLS a connection is the link only when the other side has proved that it is the other
/// RE; what that costs is bounded, whoever connects and however often: a few connections at once, a time, a
/// number of bytes, and no log line for each. While there is a link, no other connection gets as far as a
/// handshake. Records are collected and written together when the event at hand has been dealt with; a large
/// payload goes out from the buffer it was read into.
final class Link {
  private let delegate: any LinkDelegate
  private let eventLoop: any EventLoop
  private let configuration: Configuration.Link
  /// For connections to come; `nil` if none has to prove anything.
  private var credentials: LinkCredentials?
  private let slot: UInt8
  private let logger: Logger

  private var listener: (any Channel)?
  private var channel: (any Channel)?
  private var handler: LinkHandler?
  private var isStopping = false
  /// Connections whose other side has not proved who it is.
  private var unproven: [(channel: any Channel, handler: LinkHandler)] = []
  /// How many connections were refused since the start.
  private(set) var refusalCount: UInt64 = 0
  private var refusalLines = RefusalLines()
  /// Time between two attempts to connect.
  private let retryDelay: TimeAmount
  private var batch: ByteBuffer
  private var hasWritten = false
  /// Bytes that the next flush puts on the wire.
  private(set) var unflushedByteCount = 0

  /// From this size on a payload is not copied into the batch.
  static let gatherThreshold = 16 << 10
  static let batchCapacity = 64 << 10

  /// How many connections may be about to prove who they are, at once.
  static let unprovenLimit = 8
  /// How long the handshake may take, and the wait for the first word.
  static let handshakeTime = TimeAmount.seconds(2)

  /// - Parameter credentials: `nil` for a link in plain text.
  init(
    delegate: any LinkDelegate, eventLoop: any EventLoop, configuration: Configuration.Link,
    credentials: LinkCredentials?, slot: UInt8, retryDelay: TimeAmount, logger: Logger
  ) {
    self.delegate = delegate
    self.eventLoop = eventLoop
    self.configuration = configuration
    self.credentials = credentials
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
      try options(of: channel).setOption(.tcpOption(.tcp_nodelay), value: 1)
      // A stranger gets no more than that.
      try options(of: channel).setOption(
        .recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 4096))
      try channel.pipeline.syncOperations.addHandler(LinkHandler(link.value))
    }
  }

  private static func options(of channel: any Channel) -> any NIOSynchronousChannelOptions {
    guard let options = channel.syncOptions else { preconditionFailure("NIO's own channels have them") }
    return options
  }

  private func connectLater() {
    let box = NIOLoopBound(self, eventLoop: eventLoop)
    eventLoop.scheduleTask(in: retryDelay) { box.value.connect() }
  }

  private static func address(_ endpoint: Endpoint) throws -> NIOCore.SocketAddress {
    try NIOCore.SocketAddress(ipAddress: "\(endpoint.address)", port: Int(endpoint.port))
  }

  /// There is a connection; who is at its other side is yet to be seen.
  func connected(_ channel: any Channel, handler: LinkHandler) {
    guard channel.remoteAddress?.ipAddress.flatMap({ IPAddress($0) }) == configuration.connect.address else {
      return handler.refuse(channel, because: "the other RE is \(configuration.connect.address)")
    }
    guard self.channel == nil else { return handler.refuse(channel, because: "there is a link") }
    guard let credentials else { return handler.open(channel) }
    if unproven.count >= Self.unprovenLimit, let unlucky = unproven.indices.randomElement() {
      // Whoever fills the places by connecting faster than others prove who they are cannot keep the other RE
      // out: it tries again and again, and each time may be lucky.
      let (channel, handler) = unproven.remove(at: unlucky)
      handler.refuse(channel, because: "too many connections at once that have not shown who they are")
    }
    unproven.append((channel, handler))
    do {
      try handler.authenticate(
        channel, as: slot == 0 ? .listening : .connecting, with: credentials, within: Self.handshakeTime)
    } catch {
      handler.refuse(channel, because: "\(error)")
    }
  }

  /// The other RE is at the other side.
  func opened(_ channel: any Channel, handler: LinkHandler) {
    unproven.removeAll { $0.handler === handler }
    guard self.channel == nil else { return handler.refuse(channel, because: "there is a link") }
    self.channel = channel
    self.handler = handler
    batch.clear()
    // The channel may be closed by now; then its end is told next.
    try? Self.options(of: channel).setOption(
      .recvAllocator, value: AdaptiveRecvByteBufferAllocator(minimum: 4096, initial: 65536, maximum: 1 << 20))
    for stranger in unproven { stranger.handler.refuse(stranger.channel, because: "there is a link") }
    delegate.linkOpened()
  }

  /// A connection is not the link.
  func refused(_ remote: NIOCore.SocketAddress?, because reason: String) {
    refusalCount += 1
    guard let line = refusalLines.admits(at: .now()) else { return }
    let others = line > 0 ? " (and \(line) others since the last such line)" : ""
    logger.warning(
      "KKCM connection with \(remote?.ipAddress ?? "an unknown address") refused: \(reason)\(others)")
  }

  /// What came over the link cannot have come from the other RE.
  func broke(because reason: String) { logger.warning("KKCM link broken: \(reason)") }

  func ended(_ handler: LinkHandler, _ ending: LinkEnding) {
    unproven.removeAll { $0.handler === handler }
    if self.handler === handler {
      channel = nil
      self.handler = nil
      delegate.linkEnded(ending)
    }
    if slot == 1, !isStopping, channel == nil { connectLater() }
  }

  /// Takes other credentials for connections to come; those that are, stay.
  func use(_ credentials: LinkCredentials) { self.credentials = credentials }

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
    for stranger in unproven { stranger.handler.closeLocally(stranger.channel) }
  }

  // MARK: Input

  /// - Returns: how many of the bytes were used: those of all whole records. Of a connection that is let go of, all.
  func received(_ bytes: ByteBuffer, from handler: LinkHandler, moreFollows: Bool) -> Int {
    guard self.handler === handler else { return bytes.readableBytes }
    return bytes.withUnsafeReadableBytes { delegate.linkReceived($0, moreFollows: moreFollows) }
  }

  func batchEnded() { delegate.linkBatchEnded() }

  // MARK: Output

  /// Appends a whole record.
  func append(_ record: [UInt8]) {
    guard channel != nil else { return }
    batch.writeBytes(record)
    unflushedByteCount += record.count
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

  /// Appends a record whose payload lies in `packet`, counted from `origin`.
  func append(_ record: DatagramRecord, of packet: ByteBuffer, origin: Int) {
    guard channel != nil else { return }
    batch.writeWithUnsafeMutableBytes(minimumWritableBytes: DatagramRecord.fixedByteCount) { bytes in
      record.store(in: bytes)
      return DatagramRecord.fixedByteCount
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
    // And its header, more or less.
    unflushedByteCount += count + SegmentRecord.fixedByteCount
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
    unflushedByteCount = 0
    guard let channel, let handler else { return }
    writeBatch()
    guard hasWritten else { return }
    hasWritten = false
    handler.flush(channel)
  }
}

/// How often a refused connection is worth a line in the log: a few at once, then one every ten seconds.
private struct RefusalLines {
  private static let burst = 5
  private static let interval = TimeAmount.seconds(10)

  private var tokens = burst
  private var refilled = NIODeadline.uptimeNanoseconds(0)
  private var suppressedCount = 0

  /// - Returns: how many refusals before this one had no line; `nil` if this one gets none.
  mutating func admits(at now: NIODeadline) -> Int? {
    let passed = (now - refilled).nanoseconds / Self.interval.nanoseconds
    if passed > 0 {
      tokens = min(Self.burst, tokens + Int(clamping: passed))
      refilled = now
    }
    guard tokens > 0 else {
      suppressedCount += 1
      return nil
    }
    tokens -= 1
    defer { suppressedCount = 0 }
    return suppressedCount
  }
}

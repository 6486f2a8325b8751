import Glibc
import JSR

/// A connection that this instance serves.
final class ServedConnection {
  /// How far replication of the connection has come.
  enum Protection {
    case none
    /// Nothing more is read; what was answered is awaited to be acknowledged, until the time given (in
    /// nanoseconds of `MonotonicClock`).
    case quiescing(until: UInt64)
    case allocating
    /// The other instance was asked to make its snoop pair.
    case offered(Handle, until: UInt64)
    /// The socket is given away for the handshake.
    /// The other RE's handle is not told where the instances meet through the engines.
    case handshake(Handle, secondary: Handle?)
    case replicated(Handle, secondary: Handle?)
    /// Nothing more is read; the last answer to be replicated is awaited to be acknowledged, until the time
    /// given.
    case settling(Handle, until: UInt64)
    case unreplicating(Handle)
  }

  /// What may wait to be sent before no more is read, in bytes.
  static let outputLimit = 1024 * 1024
  static let sourceLimit = 256 * 1024

  let id: UInt64
  /// Closed by the server that owns the connection; it belongs to the engine during a handshake.
  let descriptor: Int32
  let remote: String
  var conversation: Conversation
  /// Answered, not written yet.
  var output: ByteQueue
  /// Read, not answered yet, for want of room in `output`.
  var unread: ByteQueue
  /// The peer has closed its direction.
  var inputEnded = false
  /// The server has closed its direction and waits for the peer to do the same.
  var isClosing = false
  var protection = Protection.none
  /// Over which echoes go as long as the connection is in record mode.
  var records: EchoRecords?
  var given = GivenEchoes()
  /// The engine was asked for record mode: nothing may be written until it has answered.
  var awaitsRecords = false
  /// The handle under which the connection came here by a merge, until it is replicated again.
  var mergedHandle: Handle?
  /// The engine has ended replication before the news of a successful handshake came here.
  var lostDuringHandshake: String?
  /// Not to be replicated any more, by `--unreplicate-after`.
  var isReleased = false
  /// When to try again to replicate, in nanoseconds of `MonotonicClock`, and how long to wait after the next
  /// failure.
  var retryAt: UInt64 = 0
  /// It is in the queue of those that are to be protected.
  var awaitsProtection = false
  var retryDelay = ServedConnection.firstRetryDelay
  var messageCount: UInt64 = 0
  var isWatched = false

  static let firstRetryDelay: UInt64 = 500_000_000
  static let lastRetryDelay: UInt64 = 30_000_000_000

  init(
    id: UInt64, descriptor: Int32, conversation: Conversation, unread: ByteQueue = ByteQueue(),
    output: ByteQueue = ByteQueue()
  ) {
    self.id = id
    self.descriptor = descriptor
    self.conversation = conversation
    self.unread = unread
    self.output = output
    remote = StreamSocket.remoteAddress(of: descriptor)?.description ?? "a peer that is gone"
  }

  /// The handle the connection has with the engine at the moment.
  var handle: Handle? {
    switch protection {
    case .none, .quiescing, .allocating, .offered: mergedHandle
    case .handshake(let handle, _), .replicated(let handle, _), .settling(let handle, _),
      .unreplicating(let handle):
      handle
    }
  }

  /// For lines that are printed: `fd 9 handle 0x1` or `fd 9 not replicated`.
  var label: String {
    switch protection {
    case .replicated(let handle, _), .settling(let handle, _), .unreplicating(let handle):
      "fd \(descriptor) handle \(handle)"
    default: "fd \(descriptor) not replicated"
    }
  }

  /// It is at rest until it is known whether it is replicated.
  var isBeingProtected: Bool {
    switch protection {
    case .quiescing, .allocating, .offered, .handshake: true
    case .none, .replicated, .settling, .unreplicating: false
    }
  }

  /// The loop may read from and write to the descriptor.
  var isOurs: Bool {
    switch protection {
    case .allocating, .offered, .handshake: false
    case .none, .quiescing, .replicated, .settling, .unreplicating: true
    }
  }

  /// More may be read from the peer.
  var wantsInput: Bool {
    switch protection {
    case .none, .replicated: !inputEnded && unread.isEmpty && output.count < Self.outputLimit
    default: false
    }
  }

  /// Everything that was read has been answered as far as it can be, and the answers are written.
  var isFlushed: Bool { output.isEmpty && !awaitsRecords && unread.isEmpty && !conversation.hasMoreOutput }

  /// The peer has everything that was sent, and the connection stands at a point that another instance can
  /// go on from. A source message in the middle of its answer is such a point too: its rest can be made
  /// from its header.
  var isQuiescent: Bool {
    output.isEmpty && unread.isEmpty && records == nil && !awaitsRecords
      && StreamSocket.unacknowledgedByteCount(descriptor) == 0
  }

  func postponeRetry(now: UInt64) {
    retryAt = now + retryDelay
    retryDelay = min(retryDelay * 2, Self.lastRetryDelay)
  }
}

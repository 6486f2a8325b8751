import CLinux
import Descriptors
import Glibc
import NIOCore
import Packet

/// One stream of a snoop pair: a Unix socket that the application reads at one end and the engine fills at the
/// other. For datagrams it keeps the boundaries of messages (SOCK_SEQPACKET; an end of stream is told by it, too, which
/// is why no message is empty).
///
/// What the socket does not take waits here, up to the configured limit; the protocol lets go of a pair
/// that passes it. The engine keeps a duplicate of the application's end, so that a merge can take back
/// what was not read: a byte is then in the live socket or was read here, never both. The duplicate keeps the
/// stream alive too: that the application has closed its end is seen only once there is to be no merge.
struct SnoopOutput: ~Copyable {
  enum Progress {
    case done
    /// The socket is full; try again when it can be written.
    case blocked
    /// The application has closed its end.
    case broken
  }

  private var writeEnd: OwnedDescriptor?
  /// The number of `writeEnd`; open unless `isFinished`.
  private let number: Int32
  /// Whether everything was written and the end with it.
  private(set) var isFinished = false
  /// `nil` when nothing will be taken back.
  private var readEnd: OwnedDescriptor?
  /// What waits. Messages stand each behind its length, 32 bits.
  private var queue = ByteBuffer()
  private let keepsBoundaries: Bool
  private var endIsDue = false
  /// Bytes that have been promised and not yet written or queued.
  private var reserved = 0
  /// Something found no room: what comes behind it must not be shown.
  private var hasOverflowed = false

  /// Bytes that the socket may hold beside the queue.
  static let socketBufferByteCount: Int32 = 1 << 20
  /// Both ends are in blocking mode: that of the application's end is the application's to choose, and the engine waits
  /// for nobody.
  private static let sendFlags = Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT)

  /// - Parameters:
  ///   - transport: of the socket that is followed.
  ///   - application: receives the open descriptor that the application is to own.
  init(for transport: TransportProtocol, application applicationEnd: inout Int32) throws(SystemError) {
    keepsBoundaries = transport == .udp
    let type = Int32(keepsBoundaries ? SOCK_SEQPACKET.rawValue : SOCK_STREAM.rawValue)
    var ends: (Int32, Int32) = (-1, -1)
    let result = withUnsafeMutableBytes(of: &ends) {
      socketpair(
        AF_UNIX, type | Int32(SOCK_CLOEXEC.rawValue), 0,
        $0.baseAddress!.assumingMemoryBound(to: Int32.self))
    }
    guard result == 0 else { throw SystemError("socketpair") }
    let writeEnd = OwnedDescriptor(owning: ends.0)
    let application = OwnedDescriptor(owning: ends.1)
    let readEnd = try application.duplicate()
    // A larger buffer spares wake-ups; what the kernel grants will do.
    var size = Self.socketBufferByteCount
    _ = setsockopt(writeEnd.rawValue, SOL_SOCKET, SO_SNDBUFFORCE, &size, socklen_t(MemoryLayout<Int32>.size))
    _ = shutdown(writeEnd.rawValue, Int32(SHUT_RD))
    number = writeEnd.rawValue
    self.writeEnd = consume writeEnd
    self.readEnd = consume readEnd
    applicationEnd = application.release()
  }

  /// The descriptor to watch when `blocked`; `nil` once the stream has ended.
  var descriptor: Int32? { isFinished ? nil : number }

  /// Bytes that wait outside the socket.
  var queuedByteCount: Int { queue.readableBytes }

  /// Sets room aside for `count` bytes; false if that passes `limit`, and from then on.
  mutating func reserve(_ count: Int, limit: Int) -> Bool {
    guard !hasOverflowed, queue.readableBytes + reserved + count <= limit else {
      hasOverflowed = true
      return false
    }
    reserved += count
    return true
  }

  /// Writes bytes for which room was reserved: one message, where boundaries are kept.
  mutating func write(_ bytes: UnsafeRawBufferPointer) -> Progress {
    reserved = max(0, reserved - bytes.count)
    guard !isFinished else { return .broken }
    guard queue.readableBytes == 0 else {
      enqueue(bytes)
      return .blocked
    }
    var offset = 0
    while offset < bytes.count {
      let sent = Glibc.send(
        number, bytes.baseAddress! + offset, bytes.count - offset, Self.sendFlags)
      if sent > 0 {
        offset += sent
      } else if errno == EAGAIN {
        enqueue(UnsafeRawBufferPointer(rebasing: bytes[offset...]))
        return .blocked
      } else if errno != EINTR {
        return .broken
      }
    }
    return .done
  }

  private mutating func enqueue(_ bytes: UnsafeRawBufferPointer) {
    if keepsBoundaries { queue.writeInteger(UInt32(bytes.count)) }
    queue.writeBytes(bytes)
  }

  /// Goes on with what waits.
  mutating func resume() -> Progress {
    guard !isFinished else { return .done }
    while queue.readableBytes > 0 {
      let number = number
      let prefix = keepsBoundaries ? MemoryLayout<UInt32>.size : 0
      let count =
        keepsBoundaries
        ? Int(queue.getInteger(at: queue.readerIndex, as: UInt32.self) ?? 0) : queue.readableBytes
      let sent = queue.withUnsafeReadableBytes {
        Glibc.send(number, $0.baseAddress! + prefix, count, Self.sendFlags)
      }
      if sent > 0 {
        queue.moveReaderIndex(forwardBy: prefix + sent)
        queue.discardReadBytes()
      } else if errno == EAGAIN {
        return .blocked
      } else if errno != EINTR {
        return .broken
      }
    }
    if endIsDue { finish() }
    return .done
  }

  /// Ends the stream behind what waits.
  mutating func end() {
    endIsDue = true
    if queue.readableBytes == 0 { finish() }
  }

  /// Ends the stream behind what waits, and leaves the application alone with it: if it closes its end now,
  /// what waits is broken.
  mutating func retire() {
    end()
    readEnd = nil
  }

  private mutating func finish() {
    isFinished = true
    writeEnd = nil
  }

  /// Takes back what the application has not read, and ends the stream at that point: messages, where boundaries are
  /// kept, or pieces of the stream.
  mutating func takeBack() -> [[UInt8]] {
    guard let number = readEnd?.rawValue else { return [] }
    var result: [[UInt8]] = []
    let capacity = 128 << 10
    withUnsafeTemporaryAllocation(byteCount: capacity, alignment: 1) { chunk in
      while true {
        let count = recv(number, chunk.baseAddress, capacity, Int32(MSG_DONTWAIT))
        if count > 0 {
          result.append(Array(chunk[..<count]))
        } else if count == 0 || errno != EINTR {
          break
        }
      }
    }
    while queue.readableBytes > 0 {
      let count = keepsBoundaries ? Int(queue.readInteger(as: UInt32.self) ?? 0) : queue.readableBytes
      result.append(queue.readBytes(length: count) ?? [])
    }
    queue.clear()
    finish()
    return result
  }
}

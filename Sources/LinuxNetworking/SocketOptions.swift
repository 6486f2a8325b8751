import CLinux
import Descriptors
import Glibc
import Packet

/// The socket options that matter after a merge.
///
/// Every option is compared with what a new socket has anyway before it is set, since setting some of them
/// to their default value is not the same as leaving them alone (a time to live, once set, no longer
/// follows the route).
public struct SocketOptions: Sendable, Hashable {
  /// By their raw values.
  private var values: [Int32?]
  /// The congestion control algorithm; empty if unknown.
  public var congestionControl: String

  private static let none = [Int32?](
    repeating: nil, count: Int(SocketOption.allCases.reduce(0) { max($0, $1.rawValue) }) + 1)

  /// No option at all: nothing will be changed on a socket.
  public init() {
    values = Self.none
    congestionControl = ""
  }

  /// The value of an option as getsockopt(2) gave it; `nil` if the kernel it came from does not have it.
  public subscript(option: SocketOption) -> Int32? {
    get { values[Int(option.rawValue)] }
    set { values[Int(option.rawValue)] = newValue }
  }

  /// Reads the options of `descriptor`. Options that its kernel does not know are left out.
  ///
  /// - Parameter family: of the addresses the socket speaks with; `.v4` for an IPv6 socket with a mapped
  ///   IPv4 address.
  public init(of descriptor: Int32, family: IPAddress.Family) {
    self.init()
    for option in SocketOption.allCases {
      if let (level, name) = option.name(family) {
        self[option] = try? socketOption(descriptor, level, name, into: Int32(0), "getsockopt")
      }
    }
    let flags = fcntl(descriptor, F_GETFL)
    if flags >= 0 { self[.nonBlocking] = flags & O_NONBLOCK == 0 ? 0 : 1 }

    // TCP_CA_NAME_MAX is 16 (include/net/tcp.h).
    var name = [UInt8](repeating: 0, count: 16)
    var length = socklen_t(name.count)
    if getsockopt(descriptor, Int32(IPPROTO_TCP), TCP_CONGESTION, &name, &length) == 0 {
      congestionControl = String(decoding: name.prefix { $0 != 0 }, as: UTF8.self)
    }
  }

  /// Sets the options on a socket that is being restored, all but the buffers, SO_REUSEADDR and O_NONBLOCK.
  ///
  /// What the kernel refuses (an algorithm that is not there, a mark without the privilege) is given to
  /// `refused` and left as it is: a connection without its favourite option is better than none.
  ///
  /// - Parameter present: what the socket has.
  func applyPlain(
    to descriptor: Int32, family: IPAddress.Family, present: SocketOptions, refused: (SystemError) -> Void
  ) {
    for option in SocketOption.allCases where option.isPlain {
      guard let value = self[option], value != present[option], let (level, name) = option.name(family)
      else { continue }
      do {
        try setSocketOption(descriptor, level, name, value, "setsockopt")
      } catch {
        refused(SystemError("setsockopt", code: error.code, on: "\(option)"))
      }
    }
    if !congestionControl.isEmpty, congestionControl != present.congestionControl {
      var name = congestionControl
      let result = name.withUTF8 {
        setsockopt(
          descriptor, Int32(IPPROTO_TCP), TCP_CONGESTION, $0.baseAddress, socklen_t($0.count))
      }
      if result != 0 { refused(SystemError("setsockopt(TCP_CONGESTION)", on: congestionControl)) }
    }
  }

  /// Buffers that the application had fixed get their size; the others are the kernel's to tune.
  func applyBuffers(to descriptor: Int32) throws(SystemError) {
    let locks = (self[.bufferLocks] ?? 0) & 3
    if locks & 1 != 0, let size = self[.sendBuffer] {
      try setSocketOption(
        descriptor, SOL_SOCKET, SO_SNDBUFFORCE, size / 2, "setsockopt(SO_SNDBUFFORCE)")
    }
    if locks & 2 != 0, let size = self[.receiveBuffer] {
      try setSocketOption(
        descriptor, SOL_SOCKET, SO_RCVBUFFORCE, size / 2, "setsockopt(SO_RCVBUFFORCE)")
    }
    try setSocketOption(descriptor, SOL_SOCKET, JSR_SO_BUF_LOCK, locks, "setsockopt(SO_BUF_LOCK)")
  }

  // MARK: - Encoding

  private static let version: UInt8 = 1

  /// Version, number of options, then each as its raw value and 32 bits in network byte order, then the
  /// length and the bytes of the congestion control algorithm's name.
  public func encode() -> [UInt8] {
    var bytes: [UInt8] = [Self.version, UInt8(values.count { $0 != nil })]
    for (code, value) in values.enumerated() {
      guard let value else { continue }
      bytes.append(UInt8(code))
      bytes.appendBigEndian(value)
    }
    let name = Array(congestionControl.utf8.prefix(15))
    bytes.append(UInt8(name.count))
    bytes += name
    return bytes
  }

  /// Reads what ``encode()`` wrote. Options that this version does not know are skipped.
  public init(decoding bytes: some Collection<UInt8>) throws(SnapshotDecodingError) {
    var reader = SnapshotReader(bytes)
    try self.init(&reader)
    try reader.finish()
  }

  init(_ reader: inout SnapshotReader) throws(SnapshotDecodingError) {
    self.init()
    let version: UInt8 = try reader.integer()
    guard version == Self.version else { throw .unknownVersion(version) }
    let count: UInt8 = try reader.integer()
    for _ in 0..<count {
      let code: UInt8 = try reader.integer()
      let value: Int32 = try reader.integer()
      if let option = SocketOption(rawValue: code) { self[option] = value }
    }
    let length: UInt8 = try reader.integer()
    guard length <= 15 else { throw .invalidField("congestion control") }
    congestionControl = String(decoding: try reader.bytes(Int(length)), as: UTF8.self)
  }
}

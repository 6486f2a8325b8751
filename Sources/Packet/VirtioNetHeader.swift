/// The 10-byte header that precedes every frame of a TAP device or packet socket opened with a
/// virtio-net header (`struct virtio_net_hdr`, include/uapi/linux/virtio_net.h). Fields are in host byte
/// order.
///
/// It says whether the transport checksum is complete and whether the frame is a large one that the
/// kernel would have cut on its way out. It has to travel with its frame.
public struct VirtioNetHeader: Sendable, Hashable {
  /// Bytes.
  public static let byteCount = 10

  /// The transport checksum is partial: it holds the pseudo header only (VIRTIO_NET_HDR_F_NEEDS_CSUM).
  public static let needsChecksum: UInt8 = 1
  /// The checksum has been verified by whoever handed over the frame (VIRTIO_NET_HDR_F_DATA_VALID).
  public static let dataValid: UInt8 = 2

  public static let gsoNone: UInt8 = 0
  public static let gsoTCPv4: UInt8 = 1
  public static let gsoTCPv6: UInt8 = 4

  public var flags: UInt8 = 0
  public var gsoType: UInt8 = 0
  /// Bytes of all headers, Ethernet to transport.
  public var headerLength: UInt16 = 0
  /// Bytes of payload per segment when the frame is cut.
  public var gsoSize: UInt16 = 0
  /// Where checksumming starts, bytes from the start of the frame.
  public var checksumStart: UInt16 = 0
  /// Where the checksum is stored, bytes from `checksumStart`.
  public var checksumOffset: UInt16 = 0

  @inlinable public init() {}

  /// Reads the header from the first ten bytes of `bytes`.
  @inlinable public init(_ bytes: UnsafeRawBufferPointer) {
    flags = bytes[0]
    gsoType = bytes[1]
    headerLength = bytes.loadUnaligned(fromByteOffset: 2, as: UInt16.self)
    gsoSize = bytes.loadUnaligned(fromByteOffset: 4, as: UInt16.self)
    checksumStart = bytes.loadUnaligned(fromByteOffset: 6, as: UInt16.self)
    checksumOffset = bytes.loadUnaligned(fromByteOffset: 8, as: UInt16.self)
  }

  /// Writes the header to the first ten bytes of `bytes`.
  @inlinable public func store(in bytes: UnsafeMutableRawBufferPointer) {
    bytes[0] = flags
    bytes[1] = gsoType
    bytes.storeBytes(of: headerLength, toByteOffset: 2, as: UInt16.self)
    bytes.storeBytes(of: gsoSize, toByteOffset: 4, as: UInt16.self)
    bytes.storeBytes(of: checksumStart, toByteOffset: 6, as: UInt16.self)
    bytes.storeBytes(of: checksumOffset, toByteOffset: 8, as: UInt16.self)
  }

  /// Whether the transport checksum need not be looked at: it is still to be filled in on this machine,
  /// or somebody already verified it.
  @inlinable public var checksumIsTrusted: Bool { flags & (Self.needsChecksum | Self.dataValid) != 0 }
}

import Packet

/// The record of one UDP datagram, in either direction: between whom it goes, and its payload.
///
/// 56 bytes (record header and fixed fields), then the payload, which may be empty. It is written by whoever owns the
/// link's buffer, straight from the frame, so that nothing is copied on the way.
public struct DatagramRecord: Hashable, Sendable {
  /// Record header and fixed fields, in bytes.
  public static let fixedByteCount = RecordHeader.byteCount + 40

  /// `sdrlDatagram` or `prlDatagram`.
  public var kind: RecordKind
  /// The socket, as the receiver calls it.
  public var handle: Handle
  public var remote: Endpoint
  /// Of the same address family.
  public var local: Endpoint
  /// Where the payload lies, in bytes from the start of what the record was made from.
  public var payload: Range<Int>

  /// Bytes of the whole record.
  @inlinable public var byteCount: Int { Self.fixedByteCount + payload.count }

  init(kind: RecordKind, handle: Handle, remote: Endpoint, local: Endpoint, payload: Range<Int>) {
    self.kind = kind
    self.handle = handle
    self.remote = remote
    self.local = local
    self.payload = payload
  }

  /// Writes everything but the payload to the first 56 bytes of `bytes`: the header, the address family (8 bits), 24
  /// bits of 0, the ports of peer and socket (16 each), then their addresses, in 16 bytes each, of which one of IPv4
  /// takes the first four and leaves the others 0.
  public func store(in bytes: UnsafeMutableRawBufferPointer) {
    let fields = UnsafeMutableRawBufferPointer(rebasing: bytes[..<Self.fixedByteCount])
    fields.initializeMemory(as: UInt8.self, repeating: 0)
    RecordHeader(kind: kind, byteCount: byteCount, handle: handle).store(in: fields)
    fields[16] = remote.address.family.rawValue
    fields.storeBigEndian(remote.port, at: 20)
    fields.storeBigEndian(local.port, at: 22)
    remote.address.store(in: fields, at: 24)
    local.address.store(in: fields, at: 40)
  }

  /// Reads the record that `header` introduces; `record` is all of it.
  init(_ header: RecordHeader, _ record: UnsafeRawBufferPointer, at offset: Int) throws(RecordError) {
    guard header.byteCount >= Self.fixedByteCount else { throw .truncatedBody }
    guard let family = IPAddress.Family(rawValue: record[16]) else { throw .invalidField("address family") }
    let isPadded =
      record[17..<20].allSatisfy { $0 == 0 }
      && (family == .v6 || record[28..<40].allSatisfy { $0 == 0 } && record[44..<56].allSatisfy { $0 == 0 })
    guard isPadded, header.byteCount - Self.fixedByteCount <= UDPPacket.maximumPayloadByteCount else {
      throw .invalidField("datagram record")
    }
    kind = header.kind
    handle = header.handle
    remote = Endpoint(IPAddress(family, record, at: 24), record.bigEndian(at: 20))
    local = Endpoint(IPAddress(family, record, at: 40), record.bigEndian(at: 22))
    payload = (offset + Self.fixedByteCount)..<(offset + header.byteCount)
  }
}

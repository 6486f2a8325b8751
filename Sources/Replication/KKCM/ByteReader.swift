import Packet

/// Reads network-order fields from the body of a record, and refuses to read past its end.
struct ByteReader {
  private let bytes: UnsafeRawBufferPointer
  private var offset = 0

  init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

  var remaining: Int { bytes.count - offset }

  mutating func integer<T: FixedWidthInteger>(_ type: T.Type = T.self) throws(RecordError) -> T {
    let size = MemoryLayout<T>.size
    guard remaining >= size else { throw .truncatedBody }
    defer { offset += size }
    return bytes.bigEndian(at: offset)
  }

  mutating func boolean() throws(RecordError) -> Bool {
    switch try integer(UInt8.self) {
    case 0: return false
    case 1: return true
    default: throw .invalidField("boolean")
    }
  }

  mutating func sequence() throws(RecordError) -> SequenceNumber { SequenceNumber(try integer()) }

  mutating func handle() throws(RecordError) -> Handle { Handle(rawValue: try integer()) }

  /// A term of mastership. It rises by one with each change; one that is near the end of its range is none,
  /// and could not be added to.
  mutating func term() throws(RecordError) -> UInt64 {
    let term: UInt64 = try integer()
    guard term <= .max / 2 else { throw .invalidField("term") }
    return term
  }

  /// A count of 32 bits, then as many bytes.
  mutating func byteArray(limit: Int) throws(RecordError) -> [UInt8] {
    let count = Int(try integer(UInt32.self))
    guard count <= limit, count <= remaining else { throw .truncatedBody }
    defer { offset += count }
    return [UInt8](bytes[offset..<offset + count])
  }

  mutating func text(limit: Int) throws(RecordError) -> String {
    guard let text = String(validating: try byteArray(limit: limit), as: UTF8.self) else {
      throw .invalidField("text")
    }
    return text
  }

  mutating func address() throws(RecordError) -> IPAddress {
    guard let family = IPAddress.Family(rawValue: try integer()) else {
      throw .invalidField("address family")
    }
    let count = family == .v4 ? 4 : 16
    guard remaining >= count else { throw .truncatedBody }
    defer { offset += count }
    return IPAddress(family, bytes, at: offset)
  }

  mutating func endpoint() throws(RecordError) -> Endpoint { Endpoint(try address(), try integer()) }

  /// - Parameter version: what the link speaks.
  mutating func flow(version: UInt16) throws(RecordError) -> Flow {
    guard let transport = TransportProtocol(rawValue: try integer()),
      transport != .udp || version >= LinkVersion.hasDatagrams
    else { throw .invalidField("transport") }
    var flow = Flow(transport, local: try endpoint(), remote: try endpoint())
    if version >= LinkVersion.namesInstances { flow.instance = RoutingInstanceID(rawValue: try integer()) }
    let family = flow.local.address.family
    // Where a peer has no port there is none, which only a UDP socket can do without.
    guard flow.remote.address.family == family,
      flow.remote.port != 0 || flow == Flow(unconnected: flow.local, instance: flow.instance)
    else { throw .invalidField("flow") }
    return flow
  }

  /// All fields have been read: bytes left over mean that the sender meant something else.
  func finish() throws(RecordError) {
    guard remaining == 0 else { throw .surplusBytes(remaining) }
  }
}

import Packet

/// Writes one record: its header, then network-order fields.
struct ByteWriter {
  private(set) var bytes: [UInt8]

  init(_ kind: RecordKind, to handle: Handle = Handle(rawValue: 0), capacity: Int = 64) {
    bytes = []
    bytes.reserveCapacity(RecordHeader.byteCount + capacity)
    bytes.append(contentsOf: repeatElement(0, count: RecordHeader.byteCount))
    let header = RecordHeader(kind: kind, byteCount: RecordHeader.byteCount, handle: handle)
    bytes.withUnsafeMutableBytes { header.store(in: $0) }
  }

  mutating func integer<T: FixedWidthInteger>(_ value: T) { bytes.appendBigEndian(value) }
  mutating func boolean(_ value: Bool) { bytes.append(value ? 1 : 0) }
  mutating func sequence(_ value: SequenceNumber) { integer(value.rawValue) }
  mutating func handle(_ value: Handle) { integer(value.rawValue) }

  mutating func byteArray(_ value: some Collection<UInt8>) {
    integer(UInt32(value.count))
    bytes.append(contentsOf: value)
  }

  mutating func text(_ value: String) { byteArray(Array(value.utf8)) }

  /// - Parameter version: what the link speaks, which must be able to say it.
  mutating func flow(_ flow: Flow, version: UInt16) {
    integer(flow.transport.rawValue)
    for endpoint in [flow.local, flow.remote] {
      integer(endpoint.address.family.rawValue)
      bytes.append(contentsOf: endpoint.address.bytes)
      integer(endpoint.port)
    }
    if version >= LinkVersion.namesInstances { integer(flow.instance.rawValue) }
  }

  /// The whole record, with its length filled in.
  consuming func record() -> [UInt8] {
    let count = UInt32(bytes.count)
    bytes.withUnsafeMutableBytes { $0.storeBigEndian(count, at: RecordHeader.lengthOffset) }
    return bytes
  }
}

/// The Ethernet and IP headers of a frame that the engine builds itself.
struct FrameHeaders {
  var sourceMAC: MACAddress
  var destinationMAC: MACAddress
  var source: IPAddress
  /// Of the same family as `source`.
  var destination: IPAddress
  var transport: TransportProtocol
  var timeToLive: UInt8
  var typeOfService: UInt8

  /// Both headers, in bytes.
  static func byteCount(_ family: IPAddress.Family) -> Int {
    Ethernet.headerByteCount + (family == .v4 ? 20 : 40)
  }

  /// Writes the headers to the front of `frame`, which is zero there and as long as the whole frame.
  func store(in frame: UnsafeMutableRawBufferPointer) {
    let start = Ethernet.headerByteCount
    let end = Self.byteCount(source.family)
    Ethernet.store(
      destination: destinationMAC, source: sourceMAC,
      type: source.family == .v4 ? Ethernet.typeIPv4 : Ethernet.typeIPv6, in: frame)
    switch source.family {
    case .v4:
      frame[start] = 0x45
      frame[start + 1] = typeOfService
      frame.storeBigEndian(UInt16(frame.count - start), at: start + 2)
      frame.storeBigEndian(UInt16(0x4000), at: start + 6)  // do not fragment
      frame[start + 8] = timeToLive
      frame[start + 9] = transport.rawValue
      source.store(in: frame, at: start + 12)
      destination.store(in: frame, at: start + 16)
      var header = InternetChecksum()
      header.add(UnsafeRawBufferPointer(rebasing: frame[start..<end]))
      frame.storeBigEndian(header.value, at: start + 10)
    case .v6:
      frame.storeBigEndian(UInt32(6) << 28 | UInt32(typeOfService) << 20, at: start)
      frame.storeBigEndian(UInt16(frame.count - end), at: start + 4)
      frame[start + 6] = transport.rawValue
      frame[start + 7] = timeToLive
      source.store(in: frame, at: start + 8)
      destination.store(in: frame, at: start + 24)
    }
  }
}

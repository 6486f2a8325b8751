/// Builds Ethernet frames that carry one UDP datagram, with complete checksums.
///
/// For what the engine itself gives to the kernel: datagrams that nobody had read when a socket was merged.
public struct UDPFrameBuilder: Sendable {
  public var sourceMAC: MACAddress
  public var destinationMAC: MACAddress
  public var source: Endpoint
  public var destination: Endpoint
  /// IP time to live, or hop limit.
  public var timeToLive: UInt8
  /// IP type of service, or traffic class.
  public var typeOfService: UInt8

  /// Both endpoints must be of one address family.
  public init(
    sourceMAC: MACAddress, destinationMAC: MACAddress, source: Endpoint, destination: Endpoint,
    timeToLive: UInt8 = 64, typeOfService: UInt8 = 0
  ) {
    precondition(source.address.family == destination.address.family, "one address family per frame")
    self.sourceMAC = sourceMAC
    self.destinationMAC = destinationMAC
    self.source = source
    self.destination = destination
    self.timeToLive = timeToLive
    self.typeOfService = typeOfService
  }

  /// Bytes of the largest payload that a frame of `family` can carry.
  public static func maximumPayloadByteCount(_ family: IPAddress.Family) -> Int {
    UDPPacket.maximumPayloadByteCount - (family == .v4 ? 20 : 0)
  }

  /// The frame of one datagram: Ethernet, IP and UDP header, and `payload`, of at most `maximumPayloadByteCount`
  /// bytes.
  public func frame(payload: UnsafeRawBufferPointer) -> [UInt8] {
    let family = source.address.family
    precondition(payload.count <= Self.maximumPayloadByteCount(family), "one datagram fits into one packet")
    let start = FrameHeaders.byteCount(family)
    let total = start + UDPPacket.headerByteCount + payload.count

    return [UInt8](unsafeUninitializedCapacity: total) { buffer, count in
      let bytes = UnsafeMutableRawBufferPointer(buffer)
      bytes.initializeMemory(as: UInt8.self, repeating: 0)
      FrameHeaders(
        sourceMAC: sourceMAC, destinationMAC: destinationMAC, source: source.address,
        destination: destination.address, transport: .udp, timeToLive: timeToLive,
        typeOfService: typeOfService
      ).store(in: bytes)

      bytes.storeBigEndian(source.port, at: start)
      bytes.storeBigEndian(destination.port, at: start + 2)
      bytes.storeBigEndian(UInt16(total - start), at: start + 4)
      if !payload.isEmpty {
        UnsafeMutableRawBufferPointer(rebasing: bytes[(start + UDPPacket.headerByteCount)...])
          .copyMemory(from: payload)
      }
      var sum = InternetChecksum()
      sum.addPseudoHeader(
        source: source.address, destination: destination.address, transport: .udp, length: total - start)
      sum.add(UnsafeRawBufferPointer(rebasing: bytes[start...]))
      // 0 would say that there is none.
      bytes.storeBigEndian(sum.value == 0 ? 0xffff : sum.value, at: start + 6)
      count = total
    }
  }
}

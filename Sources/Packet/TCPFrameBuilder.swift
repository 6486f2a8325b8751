/// Builds Ethernet frames that carry one TCP segment, with complete checksums.
///
/// For the few segments the engine itself puts on the wire: bytes that were not acknowledged when a
/// socket was merged, and a FIN that the peer sent to the lost routing engine.
public struct TCPFrameBuilder: Sendable {
  public var sourceMAC: MACAddress
  public var destinationMAC: MACAddress
  public var source: Endpoint
  public var destination: Endpoint
  /// IP time to live, or hop limit.
  public var timeToLive: UInt8
  /// IP type of service, or traffic class.
  public var typeOfService: UInt8
  /// The key to sign with (RFC 2385); `nil` for a connection that is not signed.
  public var signingKey: [UInt8]?

  /// Both endpoints must be of one address family.
  public init(
    sourceMAC: MACAddress, destinationMAC: MACAddress, source: Endpoint, destination: Endpoint,
    timeToLive: UInt8 = 64, typeOfService: UInt8 = 0, signingKey: [UInt8]? = nil
  ) {
    precondition(source.address.family == destination.address.family, "one address family per frame")
    self.sourceMAC = sourceMAC
    self.destinationMAC = destinationMAC
    self.source = source
    self.destination = destination
    self.timeToLive = timeToLive
    self.typeOfService = typeOfService
    self.signingKey = signingKey
  }

  /// The frame of one segment: Ethernet, IP and TCP header, signature if there is a key, timestamps option if
  /// given, and `payload`.
  ///
  /// - Parameter window: the window field as it stands on the wire, already shifted by the scale.
  public func frame(
    sequence: SequenceNumber, acknowledgment: SequenceNumber, flags: TCPFlags, window: UInt16,
    timestamps: TCPTimestamps?, payload: UnsafeRawBufferPointer
  ) -> [UInt8] {
    let tcpStart = FrameHeaders.byteCount(source.address.family)
    let signatureByteCount = signingKey == nil ? 0 : TCPSignature.optionByteCount
    let tcpByteCount =
      TCPSegment.minimumHeaderByteCount + signatureByteCount + (timestamps == nil ? 0 : 12)
    let total = tcpStart + tcpByteCount + payload.count

    return [UInt8](unsafeUninitializedCapacity: total) { buffer, count in
      let bytes = UnsafeMutableRawBufferPointer(buffer)
      bytes.initializeMemory(as: UInt8.self, repeating: 0)
      FrameHeaders(
        sourceMAC: sourceMAC, destinationMAC: destinationMAC, source: source.address,
        destination: destination.address, transport: .tcp, timeToLive: timeToLive,
        typeOfService: typeOfService
      ).store(in: bytes)

      bytes.storeBigEndian(source.port, at: tcpStart)
      bytes.storeBigEndian(destination.port, at: tcpStart + 2)
      bytes.storeBigEndian(sequence.rawValue, at: tcpStart + 4)
      bytes.storeBigEndian(acknowledgment.rawValue, at: tcpStart + 8)
      bytes[tcpStart + 12] = UInt8(tcpByteCount / 4) << 4
      bytes[tcpStart + 13] = flags.rawValue
      bytes.storeBigEndian(window, at: tcpStart + 14)
      if let timestamps {
        let option = tcpStart + TCPSegment.minimumHeaderByteCount + signatureByteCount
        bytes[option] = TCPOption.noOperation
        bytes[option + 1] = TCPOption.noOperation
        bytes[option + 2] = TCPOption.timestamps
        bytes[option + 3] = 10
        bytes.storeBigEndian(timestamps.value, at: option + 4)
        bytes.storeBigEndian(timestamps.echo, at: option + 8)
      }
      if !payload.isEmpty {
        UnsafeMutableRawBufferPointer(rebasing: bytes[(tcpStart + tcpByteCount)...]).copyMemory(from: payload)
      }

      if let signingKey { sign(bytes, tcpStart..<total, signingKey) }

      var sum = InternetChecksum()
      sum.addPseudoHeader(
        source: source.address, destination: destination.address, transport: .tcp,
        length: total - tcpStart)
      sum.add(UnsafeRawBufferPointer(rebasing: bytes[tcpStart..<total]))
      bytes.storeBigEndian(sum.value, at: tcpStart + 16)
      count = total
    }
  }

  private func sign(_ frame: UnsafeMutableRawBufferPointer, _ segment: Range<Int>, _ key: [UInt8]) {
    let option = segment.lowerBound + TCPSegment.minimumHeaderByteCount
    frame[option] = TCPOption.noOperation
    frame[option + 1] = TCPOption.noOperation
    frame[option + 2] = TCPOption.signature
    frame[option + 3] = TCPSignature.optionLength
    let digest = TCPSignature.digest(
      UnsafeRawBufferPointer(rebasing: frame[segment]), from: source.address, to: destination.address,
      key: key)
    for (index, byte) in digest.enumerated() { frame[option + 4 + index] = byte }
  }
}

/// The signature of a TCP segment (RFC 2385): an MD5 digest over the addresses, the header without its
/// options, the payload and a key that both ends have.
public enum TCPSignature {
  /// The kernel's limit for the bytes of a key (TCP_MD5SIG_MAXKEYLEN, include/uapi/linux/tcp.h).
  public static let maximumKeyByteCount = 80

  /// What the option takes in a header, with the two bytes that align it.
  public static let optionByteCount = 20

  /// The length that stands in the option.
  static let optionLength: UInt8 = 18

  /// The digest of `segment`, a TCP header and its payload.
  static func digest(
    _ segment: UnsafeRawBufferPointer, from source: IPAddress, to destination: IPAddress, key: [UInt8]
  ) -> [UInt8] {
    var digest = MD5()
    digest.update(source.bytes)
    digest.update(destination.bytes)
    // The pseudo header of IPv4, or of IPv6 (RFC 8200, section 8.1).
    var rest: [UInt8] = []
    if source.family == .v4 {
      rest = [0, TransportProtocol.tcp.rawValue]
      rest.appendBigEndian(UInt16(segment.count))
    } else {
      rest.appendBigEndian(UInt32(segment.count))
      rest.appendBigEndian(UInt32(TransportProtocol.tcp.rawValue))
    }
    // The checksum counts as zero.
    rest += segment[..<16]
    rest += [0, 0]
    rest += segment[18..<TCPSegment.minimumHeaderByteCount]
    digest.update(rest)
    let headerByteCount = Int(segment[12] >> 4) * 4
    digest.update(UnsafeRawBufferPointer(rebasing: segment[headerByteCount...]))
    digest.update(key)
    return digest.finish()
  }
}

extension TCPPacket {
  /// Whether a frame, of which this was read, carries a signature (RFC 2385), right or wrong.
  public func isSigned(_ frame: UnsafeRawBufferPointer) -> Bool { signature(frame) != nil }

  /// Whether it carries the signature that `key` makes. The frame must be one segment as it was on the wire,
  /// not several in one.
  public func signatureIsValid(_ frame: UnsafeRawBufferPointer, key: [UInt8]) -> Bool {
    guard let signature = signature(frame) else { return false }
    let segment = UnsafeRawBufferPointer(rebasing: frame[transportOffset..<self.segment.payload.upperBound])
    return TCPSignature.digest(segment, from: source.address, to: destination.address, key: key)
      .elementsEqual(signature)
  }

  private func signature(_ frame: UnsafeRawBufferPointer) -> Slice<UnsafeRawBufferPointer>? {
    var option = transportOffset + TCPSegment.minimumHeaderByteCount
    let end = segment.payload.lowerBound
    while option < end, frame[option] != TCPOption.endOfList {
      if frame[option] == TCPOption.noOperation {
        option += 1
        continue
      }
      guard option + 1 < end else { return nil }
      let length = Int(frame[option + 1])
      guard length >= 2, option + length <= end else { return nil }
      if frame[option] == TCPOption.signature, length == TCPSignature.optionLength {
        return frame[(option + 2)..<(option + length)]
      }
      option += length
    }
    return nil
  }
}

/// The control bits of a TCP header (RFC 9293, section 3.1).
public struct TCPFlags: OptionSet, Sendable, Hashable, CustomStringConvertible {
  public let rawValue: UInt8
  @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

  public static let fin = TCPFlags(rawValue: 1)
  public static let syn = TCPFlags(rawValue: 2)
  public static let rst = TCPFlags(rawValue: 4)
  public static let psh = TCPFlags(rawValue: 8)
  public static let ack = TCPFlags(rawValue: 16)
  public static let urg = TCPFlags(rawValue: 32)

  public var description: String {
    let names: [(TCPFlags, String)] = [
      (.syn, "S"), (.fin, "F"), (.rst, "R"), (.psh, "P"), (.ack, "."), (.urg, "U"),
    ]
    return names.filter { contains($0.0) }.map(\.1).joined()
  }
}

/// The timestamps option (RFC 7323, section 3).
public struct TCPTimestamps: Hashable, Sendable {
  /// TSval: the sender's clock, in its own ticks.
  public var value: UInt32
  /// TSecr: the last TSval heard from the other side.
  public var echo: UInt32

  @inlinable public init(value: UInt32, echo: UInt32) {
    self.value = value
    self.echo = echo
  }
}

/// What a TCP header says, and where its payload lies in the bytes it was read from.
public struct TCPSegment: Sendable, Hashable {
  public var sequence: SequenceNumber
  public var acknowledgment: SequenceNumber
  public var flags: TCPFlags
  /// The window field as it stands, not scaled.
  public var window: UInt16
  /// `nil` if the segment carries no timestamps option.
  public var timestamps: TCPTimestamps?
  /// Where the payload lies, in bytes from the start of the frame.
  public var payload: Range<Int>

  @inlinable public init(
    sequence: SequenceNumber, acknowledgment: SequenceNumber, flags: TCPFlags, window: UInt16,
    timestamps: TCPTimestamps?, payload: Range<Int>
  ) {
    self.sequence = sequence
    self.acknowledgment = acknowledgment
    self.flags = flags
    self.window = window
    self.timestamps = timestamps
    self.payload = payload
  }

  /// Where the payload ends in sequence space, not counting SYN or FIN.
  @inlinable public var payloadEnd: SequenceNumber { sequence + payload.count }

  /// Where the segment ends in sequence space, counting SYN and FIN (SEG.SEQ + SEG.LEN).
  @inlinable public var end: SequenceNumber {
    payloadEnd + (flags.contains(.syn) ? 1 : 0) + (flags.contains(.fin) ? 1 : 0)
  }

  /// The least header, in bytes.
  public static let minimumHeaderByteCount = 20

  /// Reads the segment that occupies `range` of `bytes`; `nil` if its header is malformed.
  @inlinable public init?(_ bytes: UnsafeRawBufferPointer, in range: Range<Int>) {
    guard range.count >= Self.minimumHeaderByteCount else { return nil }
    let start = range.lowerBound
    let headerByteCount = Int(bytes[start &+ 12] >> 4) &* 4
    guard headerByteCount >= Self.minimumHeaderByteCount, headerByteCount <= range.count else {
      return nil
    }
    sequence = SequenceNumber(bytes.bigEndian(at: start &+ 4))
    acknowledgment = SequenceNumber(bytes.bigEndian(at: start &+ 8))
    flags = TCPFlags(rawValue: bytes[start &+ 13])
    window = bytes.bigEndian(at: start &+ 14)
    payload = (start &+ headerByteCount)..<range.upperBound
    timestamps = nil

    var option = start &+ Self.minimumHeaderByteCount
    let optionsEnd = start &+ headerByteCount
    while option < optionsEnd {
      let kind = bytes[option]
      if kind == TCPOption.endOfList { break }
      if kind == TCPOption.noOperation {
        option &+= 1
        continue
      }
      guard option &+ 1 < optionsEnd else { return nil }
      let length = Int(bytes[option &+ 1])
      guard length >= 2, option &+ length <= optionsEnd else { return nil }
      if kind == TCPOption.timestamps, length == 10 {
        timestamps = TCPTimestamps(
          value: bytes.bigEndian(at: option &+ 2), echo: bytes.bigEndian(at: option &+ 6))
      }
      option &+= length
    }
  }
}

/// Kinds of TCP options (IANA, TCP option kind numbers).
public enum TCPOption {
  public static let endOfList: UInt8 = 0
  public static let noOperation: UInt8 = 1
  public static let maximumSegmentSize: UInt8 = 2
  public static let windowScale: UInt8 = 3
  public static let sackPermitted: UInt8 = 4
  public static let timestamps: UInt8 = 8
  /// RFC 2385.
  public static let signature: UInt8 = 19
}

import Packet

/// Frames put together byte by byte, by hands that know nothing of the code under test.
struct TestFrame {
  var isV6 = false
  /// IPv4 options, a multiple of 4 bytes.
  var ipOptions: [UInt8] = []
  /// IPv6 extension headers, in order: next header values and bodies without their first byte.
  var extensions: [(kind: UInt8, rest: [UInt8])] = []
  var fragment: UInt16 = 0
  var transport: UInt8 = 6
  var tcpOptions: [UInt8] = []
  var payload: [UInt8] = []
  /// Bytes behind the packet, as Ethernet adds them to short frames.
  var padding = 0
  var flags: UInt8 = 0x18

  static let source4: [UInt8] = [5, 5, 5, 4]
  static let destination4: [UInt8] = [5, 5, 5, 5]
  static let source6: [UInt8] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4]
  static let destination6: [UInt8] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]

  /// The TCP header and payload: ports 40000 to 16000, sequence fffffff0, ack 01020304, window 502.
  var segment: [UInt8] {
    var bytes: [UInt8] = [0x9c, 0x40, 0x3e, 0x80, 0xff, 0xff, 0xff, 0xf0, 1, 2, 3, 4]
    bytes += [UInt8((20 + tcpOptions.count) / 4) << 4, flags, 0x01, 0xf6, 0, 0, 0, 0]
    return bytes + tcpOptions + payload
  }

  var bytes: [UInt8] {
    var frame: [UInt8] = [2, 0, 0, 0, 0, 5, 2, 0, 0, 0, 0, 4]
    let segment = segment
    if isV6 {
      var chain: [UInt8] = []
      for (index, header) in extensions.enumerated() {
        chain.append(index + 1 < extensions.count ? extensions[index + 1].kind : transport)
        chain += header.rest
      }
      frame += [0x86, 0xdd, 0x60, 0, 0, 0]
      frame.appendBigEndian(UInt16(chain.count + segment.count))
      frame += [extensions.first?.kind ?? transport, 64]
      frame += Self.source6 + Self.destination6 + chain
    } else {
      frame += [0x08, 0x00, 0x40 | UInt8((20 + ipOptions.count) / 4), 0]
      frame.appendBigEndian(UInt16(20 + ipOptions.count + segment.count))
      frame += [0x12, 0x34]
      frame.appendBigEndian(fragment)
      frame += [64, transport, 0, 0] + Self.source4 + Self.destination4 + ipOptions
    }
    return frame + segment + [UInt8](repeating: 0xee, count: padding)
  }

  /// Where the payload must be found.
  var payloadRange: Range<Int> {
    let end = bytes.count - padding
    return (end - payload.count)..<end
  }

  static let timestampOption: [UInt8] = [1, 1, 8, 10, 0, 0, 0x10, 0, 0, 0, 0x20, 0]
  static let hopByHop: (kind: UInt8, rest: [UInt8]) = (0, [0, 5, 2, 0, 0, 1, 0])
  static let destinationOptions: (kind: UInt8, rest: [UInt8]) = (60, [1] + [UInt8](repeating: 0, count: 14))
  static let routing: (kind: UInt8, rest: [UInt8]) = (43, [0, 4, 0, 0, 0, 0, 0])

  /// Good frames of every shape.
  static var samples: [TestFrame] {
    let text = Array("byte-exact".utf8)
    return [
      TestFrame(),
      TestFrame(padding: 6),
      TestFrame(payload: text),
      TestFrame(ipOptions: [0x94, 4, 0, 0, 1, 1, 1, 0], payload: text),
      TestFrame(tcpOptions: timestampOption, payload: text, padding: 1),
      TestFrame(ipOptions: [UInt8](repeating: 1, count: 40), tcpOptions: [UInt8](repeating: 1, count: 40)),
      TestFrame(tcpOptions: [2, 4, 5, 0xb4, 3, 3, 7, 4, 2] + timestampOption + [0, 0xff, 0xff], flags: 2),
      TestFrame(isV6: true, payload: text),
      TestFrame(isV6: true, tcpOptions: timestampOption, padding: 3),
      TestFrame(isV6: true, extensions: [hopByHop, destinationOptions, routing], payload: text),
      // An atomic fragment (RFC 6946) is whole.
      TestFrame(isV6: true, extensions: [(44, [0, 0, 0, 1, 2, 3, 4])], payload: text),
      TestFrame(payload: [UInt8](repeating: 7, count: 1_448)),
    ]
  }
}

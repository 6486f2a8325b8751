public import Packet
import Replication

/// Packets of the conversations that scenes are made of. Sequence numbers wrap within the first bytes.
public enum Frames {
  /// Our first byte that the peer has not acknowledged.
  public static let sendStart = SequenceNumber(0xffff_fff8)
  /// The peer's first byte that is not in the snapshot.
  public static let receiveStart = SequenceNumber(0xffff_fffd)
  static let sendQueue: [UInt8] = Array("sent".utf8)
  static let receiveQueue: [UInt8] = Array("not read".utf8)

  public static func flow(_ number: Int) -> Flow {
    Flow(
      .tcp, local: Endpoint(IPAddress(v4: 0x0505_0505), 16_000),
      remote: Endpoint(IPAddress(v4: 0x0505_0504), UInt16(40_000 + number)))
  }

  static let snapshot = SocketSnapshot(
    block: ControlBlock(
      sendUnacknowledged: sendStart, sendNext: sendStart + sendQueue.count, sendWindow: 64_000,
      sendWindowUpdate: receiveStart, maximumSendWindow: 64_000, receiveAcknowledged: receiveStart,
      receiveNext: receiveStart, receiveWindow: 4_000, timestampRecent: 900, timestampSent: 300,
      negotiated: NegotiatedOptions(
        maximumSegmentSize: 1_448, sendWindowScale: 7, receiveWindowScale: 2, sackPermitted: true,
        timestamps: true)),
    sendQueue: sendQueue, receiveQueue: receiveQueue, finSent: false, finAcknowledged: false,
    finReceived: false, options: [1, 2, 3])

  /// A frame that our kernel sends: `sent` and `received` are bytes since the snapshot.
  public static func outbound(
    _ flow: Flow, sent: Int, received: Int, flags: TCPFlags = .ack, window: UInt16 = 1_000,
    clock: UInt32 = 301, payload: [UInt8] = []
  ) -> [UInt8] {
    frame(
      from: flow.local, to: flow.remote, sequence: sendStart + sendQueue.count + sent,
      acknowledgment: receiveStart + received, flags, window, TCPTimestamps(value: clock, echo: 900), payload)
  }

  /// A frame that the peer sends; `acknowledged` counts from the first byte of the snapshot's send queue.
  public static func inbound(
    _ flow: Flow, received: Int, acknowledged: Int, flags: TCPFlags = .ack, window: UInt16 = 500,
    clock: UInt32 = 901, payload: [UInt8] = []
  ) -> [UInt8] {
    frame(
      from: flow.remote, to: flow.local, sequence: receiveStart + received,
      acknowledgment: sendStart + acknowledged, flags, window, TCPTimestamps(value: clock, echo: 300), payload
    )
  }

  /// A UDP socket at the same local address.
  public static let datagrams = Flow(unconnected: Endpoint(IPAddress(v4: 0x0505_0505), 16_000))

  static let datagramSnapshot = DatagramSnapshot(
    receiveQueue: [[], Array("not read".utf8)].enumerated().map { number, payload in
      Datagram(remote: peer(number), local: datagrams.local, payload: payload)
    }, options: [4, 5])

  private static func peer(_ number: Int) -> Endpoint {
    Endpoint(IPAddress(v4: 0x0505_0504), UInt16(50_000 + number))
  }

  /// A frame with a datagram to or from one of its peers.
  public static func datagram(peer number: Int, isOutbound: Bool, payload: [UInt8]) -> [UInt8] {
    let (local, peer) = (datagrams.local, peer(number))
    let builder = UDPFrameBuilder(
      sourceMAC: MACAddress(rawValue: 0x0200_0000_0001),
      destinationMAC: MACAddress(rawValue: 0x0200_0000_0002), source: isOutbound ? local : peer,
      destination: isOutbound ? peer : local)
    return payload.withUnsafeBytes { builder.frame(payload: $0) }
  }

  private static func frame(
    from source: Endpoint, to destination: Endpoint, sequence: SequenceNumber, acknowledgment: SequenceNumber,
    _ flags: TCPFlags, _ window: UInt16, _ timestamps: TCPTimestamps, _ payload: [UInt8]
  ) -> [UInt8] {
    let builder = TCPFrameBuilder(
      sourceMAC: MACAddress(rawValue: 0x0200_0000_0001),
      destinationMAC: MACAddress(rawValue: 0x0200_0000_0002),
      source: source, destination: destination)
    return payload.withUnsafeBytes {
      builder.frame(
        sequence: sequence, acknowledgment: acknowledgment, flags: flags, window: window,
        timestamps: timestamps, payload: $0)
    }
  }
}

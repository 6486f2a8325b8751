import Packet

// What each layer logs of each record, at the level `debug`. The sender logs the records that take a place in
// the log, the receiver all of them. Nothing of it is built unless `logsRecords` is set: a packet must not cost a
// string.
extension ReplicationNode {
  /// The record at `position` has been appended to the log; its payload lies in the packet at hand.
  mutating func noteAppended(_ record: SegmentRecord, at position: LogPosition, _ place: Int) {
    notePeaks()
    if logsRecords {
      say(
        .debug,
        "\(record.kind.layer) record \(position) sent for socket \(entries[place]!.handle): \(record.trace)")
    }
  }

  /// The same for a datagram.
  mutating func noteAppended(_ record: DatagramRecord, at position: LogPosition, _ place: Int) {
    notePeaks()
    if logsRecords {
      say(
        .debug,
        "\(record.kind.layer) record \(position) sent for socket \(entries[place]!.handle): \(record.trace)")
    }
  }

  /// The same for a record that is not made from a packet.
  mutating func noteAppended(_ record: [UInt8], at position: LogPosition, _ place: Int) {
    notePeaks()
    if logsRecords {
      let kind = record.withUnsafeBytes { RecordKind(rawValue: $0.bigEndian(at: 0))! }
      say(
        .debug,
        "\(kind.layer) record \(position) sent for socket \(entries[place]!.handle): \(kind), "
          + "\(record.count - RecordHeader.byteCount) bytes")
    }
  }

  /// A record has come in; if it has a place in the log, that is `receivedPosition`.
  mutating func traceReceived(_ header: RecordHeader, _ record: UnsafeRawBufferPointer) {
    let number = header.kind.isLogged ? " \(receivedPosition)" : ""
    let isOfSocket = header.handle.rawValue != 0 && header.kind != .prlLateFrame
    let socket = isOfSocket ? " for socket \(header.handle)" : ""
    var what = "\(header.kind), \(header.byteCount - RecordHeader.byteCount) bytes"
    if header.kind == .sdrlSegment || header.kind == .prlSegment,
      let segment = try? SegmentRecord(header, record, at: 0)
    {
      what = segment.trace
    }
    if header.kind == .sdrlDatagram || header.kind == .prlDatagram,
      let datagram = try? DatagramRecord(header, record, at: 0)
    {
      what = datagram.trace
    }
    say(.debug, "\(header.kind.layer) record\(number) received\(socket): \(what)")
  }
}

extension SegmentRecord {
  /// What a log line says of it.
  fileprivate var trace: String { "\(kind), \(payload.count) bytes at \(sequence), flags \(flags)" }
}

extension DatagramRecord {
  /// What a log line says of it.
  fileprivate var trace: String {
    "\(kind), \(payload.count) bytes \(kind == .sdrlDatagram ? "to" : "from") \(remote)"
  }
}

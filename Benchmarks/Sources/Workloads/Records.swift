import Packet
import Replication

// What stands on the link before the payload of each record.
extension Workload {
  /// Records are written to so many places in turn: what is written is not written over at once, and can be looked at
  /// in the end.
  private static let places = 64

  /// Writes records that differ in their handles only.
  private static func writing(
    _ name: String, byteCount: Int, prepare: @escaping @Sendable () -> Writing
  ) -> Workload {
    Workload(name) {
      let write = prepare()
      let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: places * byteCount, alignment: 16)
      return { times in
        memory.initializeMemory(as: UInt8.self, repeating: 0xff)
        for number in 0..<times {
          let start = number % places * byteCount
          write(
            Handle(rawValue: UInt64(number)),
            UnsafeMutableRawBufferPointer(rebasing: memory[start..<start + byteCount]))
        }
        for number in max(0, times - places)..<times {
          let start = number % places * byteCount
          let header = try? RecordHeader(
            UnsafeRawBufferPointer(rebasing: memory[start..<start + byteCount]), lengthLimit: 4_096)
          precondition(header?.handle.rawValue == UInt64(number), "a record is not what was to be written")
        }
      }
    }
  }

  private typealias Writing = (Handle, UnsafeMutableRawBufferPointer) -> Void

  static let records: [Workload] = [
    writing("record header: write", byteCount: RecordHeader.byteCount) {
      { handle, bytes in RecordHeader(kind: .psrmUpdate, byteCount: 100, handle: handle).store(in: bytes) }
    },
    Workload("record header: read") {
      let headers = (0..<places).map { number in
        RecordHeader(
          kind: .psrmUpdate, byteCount: 100 + number, handle: Handle(rawValue: UInt64(number)))
      }
      let records = headers.map { header in
        var bytes = [UInt8](repeating: 0, count: RecordHeader.byteCount)
        bytes.withUnsafeMutableBytes { header.store(in: $0) }
        return bytes
      }
      return { times in
        var sum = 0
        for number in 0..<times {
          let header = records[number % places].withUnsafeBytes { try? RecordHeader($0, lengthLimit: 1_000) }
          sum += header!.byteCount - Int(header!.handle.rawValue)
        }
        precondition(sum == 100 * times, "a header reads otherwise than it was written")
      }
    },
    writing("segment record: write", byteCount: SegmentRecord.fixedByteCount) {
      let record = ReplicatedSocket(.overlap).record(of: .segmentOut(312))
      return { handle, bytes in
        var record = record
        record.handle = handle
        record.store(in: bytes)
      }
    },
    writing("datagram record: write", byteCount: DatagramRecord.fixedByteCount) {
      let record = ReplicatedSocket(.overlap, .udp).datagramRecord(isOutbound: true, byteCount: 312)
      return { handle, bytes in
        var record = record
        record.handle = handle
        record.store(in: bytes)
      }
    },
    Workload("keepalive: write") {
      let keepalives = differentKeepalives
      return { times in
        var bytes: [UInt8] = []
        for number in 0..<times { bytes = keepalives[number % places].uplinkPayload() }
        let last = bytes.withUnsafeBytes { Keepalive(uplinkPayload: $0) }
        precondition(last == keepalives[(times - 1) % places], "a keepalive is not what was to be written")
      }
    },
    Workload("keepalive: read") {
      let written = differentKeepalives.map { $0.uplinkPayload() }
      return { times in
        var sum = 0
        for number in 0..<times {
          let keepalive = written[number % places].withUnsafeBytes { Keepalive(uplinkPayload: $0) }
          sum += Int(keepalive!.sentAt - keepalive!.echo)
        }
        precondition(sum == 5 * times, "a keepalive reads otherwise than it was written")
      }
    },
  ]

  private static var differentKeepalives: [Keepalive] {
    let heard = ReplicatedSocket(.overlap).keepalive
    return (0..<places).map { number in
      var keepalive = heard
      keepalive.sentAt = Int64(number) + 5
      keepalive.echo = Int64(number)
      return keepalive
    }
  }
}

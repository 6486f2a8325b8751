import Packet
import Simulation
import Testing

@testable import Replication

@Suite struct RecordHeaderTests {
  private func bytes(_ change: (inout [UInt8]) -> Void = { _ in }) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: RecordHeader.byteCount)
    let header = RecordHeader(
      kind: .prlSegment, byteCount: 1_000, handle: Handle(slot: 1, generation: 0xabcdef, index: 0x1234_5678))
    bytes.withUnsafeMutableBytes { header.store(in: $0) }
    change(&bytes)
    return bytes
  }

  private func read(_ bytes: [UInt8], limit: Int = 1 << 20) throws(RecordError) -> RecordHeader {
    let result = bytes.withUnsafeBytes { pointer in
      Result { () throws(RecordError) in try RecordHeader(pointer, lengthLimit: limit) }
    }
    return try result.get()
  }

  @Test("The layout is the one that both REs rely on: type, subtype, version, flags, length, handle")
  func layout() {
    #expect(bytes() == [3, 1, 1, 0, 0, 0, 3, 0xe8, 1, 0xab, 0xcd, 0xef, 0x12, 0x34, 0x56, 0x78])
  }

  @Test(arguments: RecordKind.allCases) func everyKindSurvives(kind: RecordKind) throws {
    let header = RecordHeader(kind: kind, byteCount: 16, handle: Handle(rawValue: .max))
    var bytes = bytes()
    bytes.withUnsafeMutableBytes { header.store(in: $0) }
    #expect(try read(bytes) == header)
    #expect(kind.layer.rawValue == bytes[0])
  }

  @Test func whatIsNotUnderstoodIsRefusedWithItsReason() {
    #expect(throws: RecordError.unknownKind(type: 9, subtype: 1)) { try read(bytes { $0[0] = 9 }) }
    #expect(throws: RecordError.unknownKind(type: 3, subtype: 99)) { try read(bytes { $0[1] = 99 }) }
    #expect(throws: RecordError.unknownVersion(2)) { try read(bytes { $0[2] = 2 }) }
    #expect(throws: RecordError.unknownFlags(0x80)) { try read(bytes { $0[3] = 0x80 }) }
    #expect(throws: RecordError.lengthOutOfRange(15, limit: 1 << 20)) {
      try read(bytes { $0.replaceSubrange(4..<8, with: [0, 0, 0, 15]) })
    }
    #expect(throws: RecordError.lengthOutOfRange(1_000, limit: 999)) { try read(bytes(), limit: 999) }
    #expect(throws: RecordError.lengthOutOfRange(.max, limit: 1 << 20)) {
      try read(bytes { $0.replaceSubrange(4..<8, with: [255, 255, 255, 255]) })
    }
  }
}

@Suite struct ControlBlockTests {
  private var block: ControlBlock {
    ControlBlock(
      sendUnacknowledged: SequenceNumber(0xffff_ff00), sendNext: SequenceNumber(0x100), sendWindow: 5_000,
      sendWindowUpdate: SequenceNumber(900), maximumSendWindow: 9_000,
      receiveAcknowledged: SequenceNumber(1_000), receiveNext: SequenceNumber(1_200), receiveWindow: 4_000,
      timestampRecent: 50, timestampSent: 70,
      negotiated: NegotiatedOptions(
        maximumSegmentSize: 1_448, sendWindowScale: 7, receiveWindowScale: nil, sackPermitted: true,
        timestamps: true))
  }

  private func read(_ bytes: [UInt8]) throws(RecordError) -> ControlBlock {
    let result = bytes.withUnsafeBytes { pointer in
      Result { () throws(RecordError) in
        var reader = ByteReader(UnsafeRawBufferPointer(rebasing: pointer[RecordHeader.byteCount...]))
        let block = try ControlBlock(&reader)
        try reader.finish()
        return block
      }
    }
    return try result.get()
  }

  private func written(_ block: ControlBlock) -> [UInt8] {
    var writer = ByteWriter(.psrmUpdate)
    block.write(to: &writer)
    return writer.record()
  }

  @Test func aBlockSurvivesItsRecord() throws {
    var block = block
    block.receiveEdge = block.receiveEdge + 77
    #expect(try read(written(block)) == block)
    block.negotiated.sendWindowScale = nil
    block.negotiated.receiveWindowScale = 14
    block.negotiated.timestamps = false
    #expect(try read(written(block)) == block)
  }

  @Test func aBlockThatContradictsItselfIsRefused() {
    var sent = block
    sent.sendNext = sent.sendUnacknowledged - 1
    #expect(throws: RecordError.invalidField("control block")) { try read(written(sent)) }
    var edge = block
    edge.receiveEdge = edge.advertisedEdge - 1
    #expect(throws: RecordError.invalidField("control block")) { try read(written(edge)) }
    var scale = block
    scale.negotiated.sendWindowScale = 15
    #expect(throws: RecordError.invalidField("window scale")) { try read(written(scale)) }
    #expect(throws: RecordError.truncatedBody) { try read(written(block).dropLast()) }
    #expect(throws: RecordError.surplusBytes(1)) { try read(written(block) + [0]) }
  }

  @Test func theRightEdgeOfTheWindowNeverMovesBack() {
    var generator = SeededGenerator(seed: 12)
    var block = block
    for _ in 0..<2_000 {
      let before = block.receiveEdge
      block.noteSent(
        end: block.sendNext,
        acknowledgment: block.receiveAcknowledged + Int.random(in: -50...50, using: &generator),
        window: UInt32.random(in: 0...8_000, using: &generator), timestamps: nil)
      #expect(block.receiveEdge >= before)
      #expect(block.advertisedEdge <= block.receiveEdge)
    }
  }

  @Test func acknowledgementsOfTheUnsentAndOldOnesMoveNothing() {
    for acknowledgment in [block.sendNext + 1, block.sendUnacknowledged - 1] {
      var changed = block
      changed.noteReceived(
        sequence: SequenceNumber(1_200), acknowledgment: acknowledgment, window: 1, timestamps: nil)
      #expect(changed == block)
    }
  }

  @Test("The peer's window is taken from the latest segment (RFC 9293, section 3.10.7.4)")
  func windowUpdates() {
    func window(after sequence: UInt32, _ acknowledgment: SequenceNumber, _ window: UInt32) -> UInt32 {
      var changed = block
      changed.noteReceived(
        sequence: SequenceNumber(sequence), acknowledgment: acknowledgment, window: window, timestamps: nil)
      return changed.sendWindow
    }
    let una = block.sendUnacknowledged
    #expect(window(after: 901, una, 100) == 100)
    #expect(window(after: 899, una, 6_000) == 5_000)
    #expect(window(after: 899, una + 1, 100) == 100)
    #expect(window(after: 900, una, 6_000) == 6_000)
    #expect(window(after: 900, una, 4_000) == 5_000)
    #expect(window(after: 900, una, 0) == 0)
  }

  @Test("TS.Recent follows only segments that touch the last acknowledgement (RFC 7323, section 4.3)")
  func timestamps() {
    func recent(_ sequence: UInt32, _ value: UInt32) -> UInt32 {
      var changed = block
      changed.noteReceived(
        sequence: SequenceNumber(sequence), acknowledgment: block.sendUnacknowledged, window: 0,
        timestamps: TCPTimestamps(value: value, echo: 0))
      return changed.timestampRecent
    }
    #expect(recent(1_000, 60) == 60)
    #expect(recent(1_001, 60) == 50)
    #expect(recent(1_000, 49) == 50)
  }
}

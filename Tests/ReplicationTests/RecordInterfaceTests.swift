import Packet
import Simulation
import Testing

@testable import Replication

/// Promise 9: of a record that was taken the peer gets all, whoever is primary in the end; and what was not taken is not
/// there at all.
@Suite struct RecordInterfaceTests {
  private func replicated(
    mode: ReplicationNode.Mode = .overlap, limit: Int = 1 << 20, startAt: UInt32 = 1_000,
    capacity: Int = 1_000,
    sendCapacity: Int = .max
  ) throws -> (SimulatedPair, Conversation) {
    let pair = SimulatedPair(mode: mode, limit: limit)
    pair.start()
    let conversation = pair.converse(startAt: startAt, capacity: capacity, sendCapacity: sendCapacity)
    try pair.replicate(conversation)
    pair.settle()
    try pair.beginRecords(conversation)
    return (pair, conversation)
  }

  @Test(
    "4.5 Wherever the primary is lost, records are whole on the new one", .timeLimit(.minutes(4)),
    arguments: [ReplicationNode.Mode.overlap, .strict])
  func lostAnywhere(mode: ReplicationNode.Mode) throws {
    var begin = 0
    func play(_ pair: SimulatedPair, _ conversation: Conversation) throws {
      try pair.replicate(conversation)
      pair.settle()
      try pair.beginRecords(conversation)
      begin = pair.link.delivered[0]
      for size in [19, 300, 1, 999, 2_500, 40] {
        pair.localGives(conversation, size)
        pair.settle(atMost: 7)
      }
      pair.settle()
      for _ in 0..<5 {
        pair.peerReads(conversation)
        pair.settle(atMost: 9)
        pair.localGives(conversation, 700)
        pair.peerWrites(conversation, 90)
      }
      pair.settle()
    }
    let rehearsal = SimulatedPair(mode: mode, seed: 3)
    rehearsal.start()
    let whole = rehearsal.converse(startAt: .max - 71_000)
    try play(rehearsal, whole)
    let count = rehearsal.link.delivered[0]
    #expect(rehearsal.violations == [])
    #expect(count - begin > 20)
    // Every ninth point, others in either mode: each is a run of its own.
    for lost in stride(from: begin + (mode == .strict ? 2 : 1), to: count, by: 9) {
      let pair = SimulatedPair(mode: mode, seed: 3)
      pair.start()
      let conversation = pair.converse(startAt: .max - 71_000)
      pair.interruption = (lost, { pair.killPrimary(kernelLives: lost.isMultiple(of: 2)) })
      try play(pair, conversation)
      guard pair.takeOver() else {
        Issue.record("no takeover after \(lost) records")
        continue
      }
      guard let handle = conversation.secondaryHandle,
        try pair.engines[1].node.socket(handle).phase == .snooping
      else { continue }
      try pair.merge(conversation)
      pair.finish(slot: 1, peerTotal: 900, localTotal: conversation.localWritten + 500)
      #expect(pair.violations.prefix(3) == [], "after \(lost) records")
    }
  }

  @Test("A record is on snd as soon as the secondary has it, though the peer's window is closed")
  func closedWindow() throws {
    let (pair, conversation) = try replicated(capacity: 400)
    pair.localGives(conversation, 5_000)
    pair.settle()
    #expect(conversation.snooped.snd == 5_000)
    #expect(conversation.endLeft - conversation.localStart == 400)
    #expect(pair.engines[0].safeRecords[conversation.primaryHandle!] == 1)
    pair.killPrimary(kernelLives: true)
    #expect(pair.takeOver())
    let plan = try #require(try? pair.engines[1].node.socket(conversation.secondaryHandle!).block)
    #expect(plan.sendNext == conversation.localStart + 400)
    try pair.merge(conversation)
    pair.finish(slot: 1, peerTotal: 0, localTotal: 5_000)
    #expect(pair.violations.prefix(3) == [])
  }

  @Test("Nothing leaves beyond what the secondary takes for sent")
  func sendLimit() throws {
    let (pair, conversation) = try replicated(capacity: 400)
    pair.localGives(conversation, 2_000)
    pair.settle()
    // The window opens, and the secondary does not hear of it.
    pair.link.mute = [0]
    pair.peerReads(conversation)
    pair.settle()
    #expect(conversation.endLeft - conversation.localStart == 400)
    pair.killPrimary(kernelLives: true)
    #expect(pair.takeOver())
    try pair.merge(conversation)
    pair.finish(slot: 1, peerTotal: 0, localTotal: 2_000)
    #expect(pair.violations.prefix(3) == [])
  }

  @Test("What the kernel has not taken when replication ends is still written, and nothing is lost or twice")
  func unreplicated() throws {
    let (pair, conversation) = try replicated(capacity: 400, sendCapacity: 600)
    pair.localGives(conversation, 3_000)
    pair.localGives(conversation, 700)
    pair.settle()
    let handle = conversation.primaryHandle!
    try pair.engines[0].node.unreplicate(handle, now: pair.now)
    pair.engines[0].perform()
    #expect(pair.localGives(conversation, 10) == .later)
    pair.settle()
    #expect(pair.engines[0].unreplicated[handle] == .requested)
    let left = try #require(pair.engines[0].leftRecords[handle])
    #expect(left.byteCount > 2_000 && left.acceptedCount == 2)
    #expect(pair.localGives(conversation, 10) == .refused)
    while pair.engines[0].leftRecords[handle]?.isEmpty == false {
      pair.peerReads(conversation)
      pair.settle()
      pair.engines[0].writeRecords(handle)
    }
    pair.finish(slot: 0, peerTotal: 0, localTotal: 3_700)
    #expect(pair.violations.prefix(3) == [])
  }

  @Test("A limit that is reached makes a record wait, and waiting ends when there is room")
  func waiting() throws {
    let (pair, conversation) = try replicated(limit: 3_000, capacity: 1_000, sendCapacity: 1_500)
    let handle = conversation.primaryHandle!
    #expect(pair.localGives(conversation, 2_000) == .taken)
    #expect(pair.localGives(conversation, 2_500) == .later)
    pair.settle()
    #expect(pair.engines[0].haveRoom.isEmpty)
    pair.peerReads(conversation)
    pair.settle()
    #expect(pair.engines[0].haveRoom == [handle])
    #expect(pair.localGives(conversation, 2_500) == .taken)
    // An application that is gone is not made to wait.
    #expect(pair.localGives(conversation, 300, isLast: true) == .taken)
    #expect(pair.engines[0].unreplicated.isEmpty)
    #expect(pair.violations == [])
  }

  @Test("A plain write in record mode ends replication, and says why")
  func plainWrite() throws {
    let (pair, conversation) = try replicated()
    pair.localGives(conversation, 100)
    pair.settle()
    pair.localWrites(conversation, 50)
    pair.settle()
    #expect(pair.engines[0].unreplicated[conversation.primaryHandle!] == .plainWrite)
    pair.finish(slot: 0, peerTotal: 10, localTotal: 300)
    #expect(pair.violations == [])
  }

  @Test("A shutdown before all records are written ends replication, and says why")
  func cutShort() throws {
    let (pair, conversation) = try replicated(capacity: 4_000, sendCapacity: 600)
    pair.localGives(conversation, 3_000)
    pair.localCloses(conversation)
    pair.settle()
    #expect(pair.engines[0].unreplicated[conversation.primaryHandle!] == .recordsCutShort)
  }

  @Test("Record mode begins where the log stands, and not before")
  func beginning() throws {
    let pair = SimulatedPair()
    pair.start()
    let conversation = pair.converse()
    try pair.replicate(conversation)
    pair.settle()
    let handle = conversation.primaryHandle!
    pair.engines[0].sockets[conversation.flow]!.write(conversation.nextLocalBytes(70))
    #expect(throws: SocketError.plainBytes(handle, count: 70)) { try pair.beginRecords(conversation) }
    pair.engines[0].transmit(conversation.flow)
    try pair.beginRecords(conversation)
    #expect(throws: SocketError.recordMode(handle)) { try pair.beginRecords(conversation) }
    pair.localGives(conversation, 30)
    pair.settle()
    try pair.engines[0].node.endRecords(handle)
    pair.localWrites(conversation, 30)
    pair.settle()
    try pair.beginRecords(conversation)
    pair.localGives(conversation, 30)
    pair.finish(slot: 0, peerTotal: 10, localTotal: 160)
    #expect(pair.violations == [])
  }

  @Test("A handover leaves what is not written to the new primary; should nobody take it, it is written here")
  func takenBack() throws {
    let (pair, conversation) = try replicated(capacity: 400, sendCapacity: 600)
    pair.localGives(conversation, 3_000)
    pair.settle()
    let handle = conversation.primaryHandle!
    try pair.engines[0].node.releaseMastership(now: pair.now)
    #expect(pair.engines[0].node.unwrittenRecord(handle) == nil)
    pair.engines[0].perform()
    pair.settle()
    pair.advance(milliseconds: 100)
    #expect(pair.engines[1].node.arbiter.phase == .primary)
    try pair.merge(conversation)
    pair.finish(slot: 1, peerTotal: 0, localTotal: 3_000)
    #expect(pair.violations.prefix(3) == [])
  }

  @Test("Framing gives records whole, however the bytes come, and refuses what is none")
  func framing() throws {
    var bytes: [UInt8] = []
    for count in [1, 300, 7] {
      bytes +=
        [0, 0, UInt8(count >> 8), UInt8(count & 255)] + [UInt8](repeating: UInt8(count & 255), count: count)
    }
    for step in [1, 2, 5, 400] {
      var framing = RecordFraming(limit: 300)
      var sizes: [Int] = []
      for start in stride(from: 0, to: bytes.count, by: step) {
        var piece = bytes[start..<min(start + step, bytes.count)]
        while !piece.isEmpty {
          let (used, record) = try piece.withUnsafeBytes { try framing.take($0) }
          piece = piece.dropFirst(used)
          if let record {
            let count = record.count - RecordFraming.headroom
            sizes.append(count)
            #expect(record.dropFirst(RecordFraming.headroom).allSatisfy { $0 == UInt8(count & 255) })
          }
        }
      }
      #expect(sizes == [1, 300, 7])
      #expect(!framing.isInsideRecord)
    }
    var framing = RecordFraming(limit: 300)
    #expect(throws: RecordFraming.Failure.empty) {
      try [0, 0, 0, 0].withUnsafeBytes { try framing.take($0) }
    }
    framing = RecordFraming(limit: 300)
    #expect(throws: RecordFraming.Failure.tooLong(301, limit: 300)) {
      try [UInt8]([0, 0, 1, 45]).withUnsafeBytes { try framing.take($0) }
    }
  }
}

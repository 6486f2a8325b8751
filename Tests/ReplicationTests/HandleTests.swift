import Simulation
import Testing

@testable import Replication

@Suite struct HandleTests {
  @Test func aHandleIsSlotGenerationAndIndex() {
    let handle = Handle(slot: 1, generation: 0x00_001d, index: 0)
    #expect("\(handle)" == "0x100001d00000000")
    #expect(handle.slot == 1 && handle.generation == 0x1d && handle.index == 0)
    #expect(
      Handle(slot: 0, generation: 0x1_ff_ffff, index: .max)
        == Handle(slot: 0, generation: 0xff_ffff, index: .max))
  }

  @Test("What is printed is read back, with and without prefix")
  func text() {
    for handle in [
      Handle(slot: 1, generation: 0xff_ffff, index: .max), Handle(slot: 0, generation: 1, index: 0),
    ] {
      #expect(Handle("\(handle)") == handle)
      #expect(Handle("\(handle)".dropFirst(2)) == handle)
      #expect(Handle("\(handle)".uppercased().replacing("0X", with: "0X")) == handle)
    }
  }

  @Test(
    "What is no handle is refused",
    arguments: ["", "0x", "0xg", "-1", "+1", " 1", "0x10000000000000000", "١"])
  func noHandle(text: String) {
    #expect(Handle(text) == nil)
  }
}

@Suite struct HandleTableTests {
  @Test func generationsRiseAndIndexesComeBack() throws {
    var table = HandleTable(slot: 1, limit: 3)
    let first = try table.allocate().handle
    let second = try table.allocate().handle
    #expect(first.slot == 1 && first.generation == 1 && first.index == 0)
    #expect(second.generation == 2 && second.index == 1)
    try table.free(first)
    let third = try table.allocate().handle
    #expect(third.generation == 3 && third.index == first.index)
    #expect(table.count == 2)
  }

  @Test func theTableIsFullAtItsLimitAndNotBefore() throws {
    var table = HandleTable(slot: 0, limit: 5)
    let all = try (0..<5).map { _ in try table.allocate().handle }
    #expect(throws: HandleError.tableFull(limit: 5)) { _ = try table.allocate() }
    #expect(Set(all).count == 5)
    try table.free(all[2])
    _ = try table.allocate()
    #expect(throws: HandleError.tableFull(limit: 5)) { _ = try table.allocate() }
  }

  @Test("Stale, foreign and made-up handles are refused, each by its name")
  func refused() throws {
    var table = HandleTable(slot: 0, limit: 4)
    let handle = try table.allocate().handle
    let other = try table.allocate().handle
    try table.free(handle)
    #expect(throws: HandleError.stale(handle)) { _ = try table.place(of: handle) }
    #expect(throws: HandleError.stale(handle)) { try table.free(handle) }
    let successor = try table.allocate().handle
    #expect(successor.index == handle.index)
    #expect(throws: HandleError.stale(handle)) { _ = try table.place(of: handle) }

    let foreign = Handle(slot: 1, generation: other.generation, index: other.index)
    #expect(throws: HandleError.foreign(foreign)) { _ = try table.place(of: foreign) }
    for madeUp in [
      Handle(rawValue: 0), Handle(slot: 0, generation: 99, index: 0),
      Handle(slot: 0, generation: 0, index: 1),
      Handle(slot: 0, generation: 1, index: 3), Handle(slot: 0, generation: 1, index: 4),
      Handle(slot: 0, generation: 1, index: .max),
    ] {
      #expect(throws: HandleError.neverAllocated(madeUp)) { _ = try table.place(of: madeUp) }
    }
    #expect(try table.place(of: other) == 1)
  }

  @Test("When generations are used up indexes move on, so that no pair comes back")
  func rounds() throws {
    var table = HandleTable(slot: 0, limit: 2, firstGeneration: HandleTable.lastGenerationOfRound - 1)
    var seen: Set<Handle> = []
    var last: Handle?
    for _ in 0..<6 {
      let (handle, place) = try table.allocate()
      #expect(seen.insert(handle).inserted)
      #expect(place < 2)
      #expect(try table.place(of: handle) == place)
      if let last { #expect(throws: HandleError.stale(last)) { _ = try table.place(of: last) } }
      try table.free(handle)
      last = handle
    }
    #expect(seen.map(\.index).max() == 2)
    #expect(seen.contains(Handle(slot: 0, generation: 1, index: 2)))
  }

  @Test func aTableWhosePairsAreAllUsedSaysSo() throws {
    let limit = 1 << 20
    var table = HandleTable(
      slot: 0, limit: limit, firstGeneration: HandleTable.lastGenerationOfRound,
      firstRound: UInt32(Int(UInt32.max) / limit - 1))
    try table.free(try table.allocate().handle)
    #expect(throws: HandleError.exhausted) { _ = try table.allocate() }
  }

  @Test("A handle of an earlier run of the engine names no socket of this one")
  func handlesOfAnotherRun() throws {
    var generator = SeededGenerator(seed: 3)
    for _ in 0..<200 {
      var runs = (0..<2).map { _ in
        let incarnation = UInt64.random(in: 1...UInt64.max, using: &generator)
        return HandleTable(
          slot: 0, limit: 4, firstGeneration: HandleTable.firstGeneration(ofRun: incarnation))
      }
      let old = try (0..<4).map { _ in try runs[0].allocate().handle }
      for _ in 0..<4 { _ = try runs[1].allocate() }
      for handle in old { #expect(throws: HandleError.self) { _ = try runs[1].place(of: handle) } }
    }
    for incarnation in [1, UInt64(HandleTable.lastGenerationOfRound), .max] {
      let first = HandleTable.firstGeneration(ofRun: incarnation)
      #expect(first >= 1 && first <= HandleTable.lastGenerationOfRound / 2 + 1)
    }
  }

  @Test func anyOrderOfAllocationsKeepsTheTableTrue() throws {
    var generator = SeededGenerator(seed: 11)
    var table = HandleTable(slot: 1, limit: 20)
    var live: [Handle: Int] = [:]
    var dead: [Handle] = []
    for _ in 0..<3_000 {
      if Bool.random(using: &generator), live.count < 20 {
        let (handle, place) = try table.allocate()
        #expect(!live.values.contains(place))
        live[handle] = place
      } else if let handle = live.keys.sorted(by: { $0.rawValue < $1.rawValue }).randomElement(
        using: &generator)
      {
        try table.free(handle)
        live[handle] = nil
        dead.append(handle)
      }
      #expect(table.count == live.count)
    }
    for (handle, place) in live { #expect(try table.place(of: handle) == place) }
    for handle in dead.suffix(300) {
      #expect(throws: HandleError.stale(handle)) { _ = try table.place(of: handle) }
    }
  }
}

/// TESTPLAN 6.1: the handle of the other RE is the word of an application, which may be wrong.
@Suite struct MadeUpSecondaryTests {
  @Test(
    "A socket that is to be replicated under a handle that never was is refused, and no other notices",
    arguments: [Handle(slot: 1, generation: 99, index: 7), Handle(slot: 1, generation: 1, index: 0)])
  func refused(madeUp: Handle) throws {
    let pair = SimulatedPair(mode: .overlap)
    pair.start()
    let first = pair.converse()
    try pair.replicate(first)
    pair.settle()

    let second = pair.converse()
    let handle = try pair.engines[0].node.allocate()
    for _ in 0..<2 {
      try pair.engines[0].node.replicate(handle, secondary: madeUp, flow: second.flow)
      pair.engines[0].perform()
      // Data in the queues makes for more records of the handshake.
      pair.localWrites(second, 100)
      pair.settle()
      #expect(pair.engines[0].refused[handle] == .notAttached)
      #expect(try pair.engines[0].node.socket(handle).phase == .unreplicated(.notAttached))
    }
    for impossible in [Handle(slot: 1, generation: 0, index: 0), Handle(slot: 200, generation: 1, index: 0)] {
      #expect(throws: SocketError.handle(.neverAllocated(impossible))) {
        try pair.engines[0].node.replicate(handle, secondary: impossible, flow: second.flow)
      }
    }
    try pair.engines[0].node.free(handle)
    pair.settle()

    #expect(pair.engines[0].node.peerName != nil, "the link is up")
    #expect(try pair.engines[0].node.socket(first.primaryHandle!).phase == .replicating)
    try pair.replicate(second)
    pair.settle()
    #expect(try pair.engines[0].node.socket(second.primaryHandle!).phase == .replicating)
    #expect(pair.violations.isEmpty, "\(pair.violations)")
  }
}

/// Why a handle was not allocated, or not accepted.
public enum HandleError: Error, Hashable, Sendable, CustomStringConvertible {
  case tableFull(limit: Int)
  case exhausted
  /// Allocated by the other RE.
  case foreign(Handle)
  /// Was allocated once, and its socket is gone.
  case stale(Handle)
  case neverAllocated(Handle)

  public var description: String {
    switch self {
    case .tableFull(let limit): "all \(limit) handles are in use (limits.sockets)"
    case .exhausted: "every pair of generation and index has been used; restart jsrd"
    case .foreign(let handle): "handle \(handle) belongs to the other RE"
    case .stale(let handle): "handle \(handle) is stale: its socket is gone"
    case .neverAllocated(let handle): "handle \(handle) was never allocated"
    }
  }
}

/// Allocates handles: a free place in the socket table, and a generation that rises with every allocation.
///
/// The index of a handle is its place plus a multiple of the table's size. When the 24 bits of generations
/// are used up, the next multiple begins, so that no pair of generation and index ever comes back.
struct HandleTable {
  let slot: UInt8
  let limit: Int
  /// The handle that stands at each place, `nil` where none does.
  private var handles: [Handle?] = []
  private var freePlaces: [Int32] = []
  private var lastGeneration: UInt32 = 0
  private var round: UInt32 = 0

  static let lastGenerationOfRound: UInt32 = 0xff_ffff

  /// - Parameters:
  ///   - firstGeneration: what the first handle gets; tests start near the end of a round.
  ///   - firstRound: the multiple of the table's size that its index begins with.
  init(slot: UInt8, limit: Int, firstGeneration: UInt32 = 1, firstRound: UInt32 = 0) {
    precondition((1...Int(Int32.max)).contains(limit), "a table has between 1 and 2³¹ - 1 places")
    self.slot = slot
    self.limit = limit
    lastGeneration = firstGeneration - 1
    round = firstRound
  }

  /// Where the generations of a run of the engine begin: somewhere in the first half of a round, by its random number.
  static func firstGeneration(ofRun incarnation: UInt64) -> UInt32 {
    1 + UInt32(incarnation % UInt64(lastGenerationOfRound / 2))
  }

  /// Handles in use.
  var count: Int { handles.count - freePlaces.count }

  /// A new handle and the place in the socket table that goes with it.
  mutating func allocate() throws(HandleError) -> (handle: Handle, place: Int) {
    guard count < limit else { throw .tableFull(limit: limit) }
    if lastGeneration == Self.lastGenerationOfRound {
      guard UInt64(round + 2) * UInt64(limit) <= UInt64(UInt32.max) else { throw .exhausted }
      round += 1
      lastGeneration = 0
    }
    lastGeneration += planted(.generationReused) && !freePlaces.isEmpty ? 0 : 1
    let place: Int
    if let free = freePlaces.popLast() {
      place = Int(free)
    } else {
      place = handles.count
      handles.append(nil)
    }
    let handle = Handle(
      slot: slot, generation: lastGeneration, index: round * UInt32(limit) + UInt32(place))
    handles[place] = handle
    return (handle, place)
  }

  /// The place in the socket table that `handle` names.
  func place(of handle: Handle) throws(HandleError) -> Int {
    guard handle.slot == slot else { throw .foreign(handle) }
    let place = Int(handle.index) % limit
    if place < handles.count, let found = handles[place], found == handle || planted(.staleHandleAccepted) {
      return place
    }
    let itsRound = handle.index / UInt32(limit)
    let wasAllocated =
      handle.generation != 0 && place < handles.count
      && (itsRound < round || (itsRound == round && handle.generation <= lastGeneration))
    throw wasAllocated ? .stale(handle) : .neverAllocated(handle)
  }

  mutating func free(_ handle: Handle) throws(HandleError) {
    let place = try place(of: handle)
    handles[place] = nil
    freePlaces.append(Int32(place))
  }
}

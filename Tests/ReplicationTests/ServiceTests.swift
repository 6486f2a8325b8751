import Packet
import Testing

@testable import Replication

@Suite("Services, under which instances find each other")
struct ServiceTests {
  static let echo = ServiceName("echo")!

  /// A pair in step, with `echo` registered on both sides, and a handle of the primary.
  static func pair(registered: Bool = true, versions: ClosedRange<UInt16> = LinkVersion.supported) throws
    -> (SimulatedPair, Handle)
  {
    let pair = SimulatedPair(linkVersions: [versions, LinkVersion.supported])
    pair.start()
    if registered {
      for engine in pair.engines {
        try engine.node.register(echo)
        engine.perform()
      }
      pair.settle()
    }
    return (pair, try pair.engines[0].node.allocate())
  }

  static func request(_ handle: Handle, port: UInt16 = 4000, note: [UInt8] = [1, 2]) -> ReplicationRequest {
    let (local, peer) = (IPAddress("5.5.5.5")!, IPAddress("5.5.5.4")!)
    return ReplicationRequest(
      service: echo, primary: handle,
      flow: Flow(.tcp, local: Endpoint(local, 16000), remote: Endpoint(peer, port)), note: note)
  }

  static func ask(_ pair: SimulatedPair, _ request: ReplicationRequest) throws {
    try pair.engines[0].node.request(request, now: pair.now)
    pair.engines[0].perform()
    pair.settle()
  }

  static func refusal(_ pair: SimulatedPair, of handle: Handle) -> RequestRefusal.Reason? {
    for case .refused(handle, let refusal) in pair.engines[0].services { return refusal.reason }
    return nil
  }

  @Test("have names of 1 to 64 printable characters")
  func names() {
    #expect(ServiceName("jsrutil:16000")?.description == "jsrutil:16000")
    #expect(ServiceName(String(repeating: "x", count: 64)) != nil)
    for name in ["", "a b", "a\n", "ä", String(repeating: "x", count: 65)] {
      #expect(ServiceName(name) == nil)
    }
  }

  @Test("belong to one instance on an RE, of which the primary's hears when it can ask")
  func availability() throws {
    let (pair, _) = try Self.pair(registered: false)
    let (primary, secondary) = (pair.engines[0], pair.engines[1])
    try primary.node.register(Self.echo)
    #expect(throws: SocketError.serviceTaken(Self.echo)) { try primary.node.register(Self.echo) }
    primary.perform()
    pair.settle()
    #expect(primary.services == [])
    try secondary.node.register(Self.echo)
    secondary.perform()
    pair.settle()
    #expect(primary.services == [.availabilityChanged(Self.echo, true)])
    secondary.node.unregister(Self.echo)
    secondary.perform()
    pair.settle()
    #expect(primary.services.last == .availabilityChanged(Self.echo, false))
    #expect(secondary.services == [], "the secondary cannot ask")
    for number in 1..<Services.limit { try primary.node.register(ServiceName("s\(number)")!) }
    #expect(throws: SocketError.tooManyServices(limit: Services.limit)) {
      try primary.node.register(ServiceName("more")!)
    }
  }

  @Test("bring a request to the instance there, and its pair back")
  func accepted() throws {
    let (pair, handle) = try Self.pair()
    let request = Self.request(handle)
    try Self.ask(pair, request)
    guard case .requested(let asked) = pair.engines[1].services.last else {
      Issue.record("nothing was asked: \(pair.engines[1].services)")
      return
    }
    #expect(asked.primary == handle && asked.flow == request.flow && asked.note == [1, 2])
    #expect(throws: SocketError.requestPending(handle)) { try Self.ask(pair, request) }
    let secondary = pair.engines[1]
    #expect(secondary.node.service(requestedFor: handle) == Self.echo)
    let pairHandle = try secondary.node.attach(primary: handle)
    try secondary.node.answerRequest(handle, with: pairHandle)
    #expect(throws: SocketError.noRequest(handle)) {
      try secondary.node.answerRequest(handle, with: pairHandle)
    }
    secondary.perform()
    pair.settle()
    #expect(pair.engines[0].services.last == .answered(handle, secondary: pairHandle))

    // The handshake comes to nothing: the pair goes.
    pair.engines[0].node.withdrawRequest(handle)
    pair.engines[0].perform()
    pair.settle()
    #expect(secondary.unreplicated[pairHandle] == .requested)
  }

  @Test("refuse what nobody answers, declines, or has no use for any more")
  func refused() throws {
    let (pair, handle) = try Self.pair()
    let (primary, secondary) = (pair.engines[0], pair.engines[1])
    try Self.ask(pair, Self.request(handle))
    try secondary.node.declineRequest(handle, because: String(repeating: "ä", count: 150))
    secondary.perform()
    pair.settle()
    #expect(Self.refusal(pair, of: handle) == .declined(String(repeating: "ä", count: 100)))

    let silent = try primary.node.allocate()
    try Self.ask(pair, Self.request(silent))
    pair.advance(milliseconds: 3_000)
    #expect(Self.refusal(pair, of: silent) == .timedOut)
    #expect(secondary.node.service(requestedFor: silent) == nil, "it was withdrawn")

    let freed = try primary.node.allocate()
    try Self.ask(pair, Self.request(freed))
    try primary.node.free(freed)
    primary.perform()
    #expect(Self.refusal(pair, of: freed) == .withdrawn)

    let last = try primary.node.allocate()
    try Self.ask(pair, Self.request(last))
    secondary.node.unregister(Self.echo)
    secondary.perform()
    pair.settle()
    #expect(Self.refusal(pair, of: last) == .notRegistered)
    let refusal = RequestRefusal(service: Self.echo, reason: .notRegistered)
    #expect("\(refusal)".contains("echo"))
    #expect(throws: SocketError.requestRefused(refusal)) { try Self.ask(pair, Self.request(last)) }
  }

  @Test("end every request that is not answered in time, and leave nothing of it")
  func silence() throws {
    let (pair, _) = try Self.pair()
    let (primary, secondary) = (pair.engines[0], pair.engines[1])
    let handles = try (0..<60).map { _ in try primary.node.allocate() }
    for (index, handle) in handles.enumerated() {
      try Self.ask(pair, Self.request(handle, port: UInt16(5000 + index)))
    }
    #expect(secondary.services.count == 60)
    #expect(primary.node.services.openCount == 60)
    pair.advance(milliseconds: 3_000)
    #expect(primary.node.services.openCount == 0)
    #expect(secondary.node.services.openCount == 0)
  }

  @Test("end with the link, and come back with it")
  func linkLost() throws {
    let (pair, handle) = try Self.pair()
    try Self.ask(pair, Self.request(handle))
    pair.closeLink(by: 0)
    pair.settle()
    #expect(Self.refusal(pair, of: handle) == .linkLost)
    #expect(pair.engines[0].services.contains(.availabilityChanged(Self.echo, false)))
    #expect(pair.engines[1].node.service(requestedFor: handle) == nil)
  }

  @Test("do not exist for an engine of before, which is told nothing of them")
  func tooOld() throws {
    let (pair, handle) = try Self.pair(versions: 1...1)
    #expect(pair.engines[1].node.linkVersion == 1)
    #expect(pair.engines.allSatisfy { $0.services == [] && $0.linkClosings == [] })
    let refusal = RequestRefusal(service: Self.echo, reason: .engineTooOld(version: 1))
    #expect(throws: SocketError.requestRefused(refusal)) { try Self.ask(pair, Self.request(handle)) }
    #expect("\(refusal)".contains("too old"))
  }
}

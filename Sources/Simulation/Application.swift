import Packet
import Replication

/// One instance of the application, on one RE: serves connections while its RE is primary, snoops while it is
/// secondary, and merges what it has snooped when mastership comes.
final class Application {
  /// What it holds of a connection.
  private enum Holding {
    /// A live socket of its own.
    case live(Live)
    case pair(Handle, EngineProcess.Pair)
  }

  private final class Live {
    let socket: KernelSocket
    var handle: Handle?
    var state = State.plain
    /// Counts offers, so that an answer to an old one is known.
    var offer = 0
    var isWorking = false
    /// Over which it gives records.
    var pipe: RecordPipe?
    var isBeginningRecords = false
    init(_ socket: KernelSocket) { self.socket = socket }

    enum State {
      case plain, offering
      /// The descriptor is given away until the handshake is over.
      case handshake
      case replicated
    }
  }

  unowned(unsafe) let machine: Machine
  private let world: World
  private var isAlive = true
  private(set) var isStuck = false
  private var holdings: [Int: Holding] = [:]
  private var isPrimary = false
  private var standbyIsUp = false
  private var otherCanBeAsked = false
  /// What a stuck application has not heard yet.
  private var unheard: [(Application) -> Void] = []

  init(machine: Machine) {
    self.machine = machine
    world = machine.world
  }

  private var name: String { "\(machine.name) application" }
  var isWell: Bool { isAlive && !isStuck }

  func start() { if machine.engine != nil { engineCame() } }

  func die() {
    isAlive = false
    holdings = [:]
  }

  func stick() { isStuck = true }

  func unstick() {
    isStuck = false
    let events = unheard
    unheard = []
    for event in events where isAlive { event(self) }
    for number in holdings.keys.sorted() { if let conversation = conversation(number) { work(conversation) } }
  }

  private func conversation(_ number: Int) -> Conversation? {
    switch holdings[number] {
    case .live(let live): live.socket.conversation
    case .pair(_, let pair): pair.conversation
    case nil: nil
    }
  }

  private var random: RandomStreams { world.random }

  private func after(_ delay: TrueTime, _ body: @escaping (Application) -> Void) {
    machine.after(delay) { [weak self] in
      guard let self, isAlive else { return }
      if isStuck { unheard.append(body) } else { body(self) }
    }
  }

  /// An event of the engine, which takes a moment to arrive.
  private func hear(_ body: @escaping (Application) -> Void) {
    after(.microseconds(.random(in: 20...200, using: &random.applications)), body)
  }

  private func ask(_ body: @escaping (EngineProcess) -> Void) { machine.engine?.input(.request(body)) }

  // MARK: The engine's events

  func engineCame() {
    hear { application in
      guard let engine = application.machine.engine else { return }
      application.isPrimary = engine.phase == .primary
      application.standbyIsUp = engine.node.arbiter.standbyIsReady
      if application.world.scenario.meetsThroughEngines { application.ask { $0.register() } }
      application.replicateAll()
    }
  }

  func engineGone() {
    // Descriptors of pairs come to their end; live sockets stay.
    for number in holdings.keys.sorted() {
      switch holdings[number]! {
      case .live(let live):
        live.handle = nil
        live.state = .plain
        live.offer += 1
        if live.pipe != nil {
          // What the kernel had of the records when the engine ended is what there is of them.
          live.pipe = nil
          live.socket.writePosition = live.socket.tcp.dataEnd - live.socket.conversation.localStart
        }
        live.isBeginningRecords = false
      case .pair: holdings[number] = nil
      }
    }
    standbyIsUp = false
    otherCanBeAsked = false
    isPrimary = false
  }

  func roleChanged(_ phase: MastershipPhase) {
    guard phase == .primary || phase == .secondary else { return }
    hear { application in
      application.isPrimary = phase == .primary
      if phase == .primary { application.mergeAll() }
    }
  }

  func standbyChanged(_ isUp: Bool) {
    hear { application in
      application.standbyIsUp = isUp
      if isUp { application.replicateAll() }
    }
  }

  func serviceChanged(_ isAvailable: Bool) {
    hear { application in
      application.otherCanBeAsked = isAvailable
      if isAvailable { application.replicateAll() }
    }
  }

  /// Secondary: the other instance asks through the engines.
  func requested(_ primary: Handle, _ conversation: Conversation) {
    hear { application in
      let unwillingness = application.world.scenario.unwillingness
      if unwillingness > 0, application.random.applications.chance(unwillingness) {
        application.ask { $0.decline(primary) }
      } else {
        application.offered(primary, conversation, isRequest: true) { _ in }
      }
    }
  }

  func replicated(_ handle: Handle) {
    hear { application in
      guard let live = application.live(handle), live.state == .handshake else { return }
      live.state = .replicated
      application.work(live.socket.conversation)
    }
  }

  func refused(_ handle: Handle, _ reason: String) {
    hear { application in
      guard let live = application.live(handle) else {
        // The other RE has the connection, and this instance a pair of it already.
        application.ask { $0.free(handle) }
        return
      }
      application.world.tell(
        application.name, "\(live.socket.conversation.name) is not replicated: \(reason)")
      application.backToPlain(live)
    }
  }

  func unreplicated(_ handle: Handle, _ reason: UnreplicateReason) {
    hear { application in
      if let live = application.live(handle) {
        if reason == .mastershipLost {
          application.holdings[live.socket.conversation.number] = nil
        } else {
          application.backToPlain(live)
        }
        return
      }
      for (number, holding) in application.holdings {
        if case .pair(handle, _) = holding { application.holdings[number] = nil }
      }
    }
  }

  /// The kernel has ended every connection of the replicated addresses.
  func connectionsDestroyed() {
    hear { application in
      for number in application.holdings.keys.sorted() {
        guard case .live(let live) = application.holdings[number]!,
          application.machine.sockets[live.socket.conversation.flow] !== live.socket
        else { continue }
        if let handle = live.handle { application.ask { $0.free(handle) } }
        application.holdings[number] = nil
      }
    }
  }

  private func live(_ handle: Handle) -> Live? {
    for case .live(let live) in holdings.values where live.handle == handle { return live }
    return nil
  }

  private func backToPlain(_ live: Live) {
    if let handle = live.handle { ask { $0.free(handle) } }
    live.handle = nil
    live.state = .plain
    live.offer += 1
    work(live.socket.conversation)
    replicateLater(live)
  }

  // MARK: Connections

  /// A new connection was accepted.
  func accepted(_ socket: KernelSocket) {
    let live = Live(socket)
    holdings[socket.conversation.number] = .live(live)
    replicateLater(live, soon: true)
    work(socket.conversation)
  }

  func holdsPair(of conversation: Conversation) -> Bool {
    if case .pair = holdings[conversation.number] { true } else { false }
  }

  /// Whether the connection is replicated, as far as this instance was told.
  func isReplicated(_ conversation: Conversation) -> Bool {
    if case .live(let live) = holdings[conversation.number] { live.state == .replicated } else { false }
  }

  private func replicateAll() {
    for number in holdings.keys.sorted() {
      if case .live(let live) = holdings[number]! { replicateLater(live, soon: true) }
    }
  }

  private func replicateLater(_ live: Live, soon: Bool = false) {
    let delay: TrueTime = .milliseconds(.random(in: soon ? 0...20 : 50...400, using: &random.applications))
    after(delay) { $0.offer(live) }
  }

  private func holds(_ live: Live) -> Bool {
    if case .live(let held) = holdings[live.socket.conversation.number], held === live { true } else { false }
  }

  /// Tells the other instance of a connection, over the applications' own channel.
  private func offer(_ live: Live) {
    if holds(live), live.pipe != nil { return replicateLater(live) }
    guard holds(live), live.state == .plain, isPrimary, standbyIsUp,
      !live.socket.sawEnd || !live.socket.tcp.isClosed
    else { return }
    live.state = .offering
    live.offer += 1
    let offer = live.offer
    ask { [weak self] engine in
      let handle = engine.allocate()
      self?.hear { $0.named(handle, live, offer) }
    }
    // Nobody answers, or the engine is gone: again later.
    after(.seconds(1)) { application in
      guard application.holds(live), live.offer == offer, live.state == .offering else { return }
      application.backToPlain(live)
    }
  }

  private func named(_ handle: Handle?, _ live: Live, _ offer: Int) {
    guard holds(live), live.offer == offer, live.state == .offering, let handle else {
      if let handle { ask { $0.free(handle) } }
      return
    }
    live.handle = handle
    if otherCanBeAsked {
      live.state = .handshake
      return ask { [weak self] engine in
        if let reason = engine.request(handle, live.socket) { self?.refused(handle, reason) }
      }
    }
    let other = world.machines[1 - machine.slot]
    let conversation = live.socket.conversation
    guard world.link.pathWorks else { return }
    world.after(.microseconds(.random(in: 100...1_000, using: &random.applications))) {
      guard let peer = other.application, other.isOn else { return }
      peer.after(0) { peer in
        peer.offered(handle, conversation) { [weak self] secondary in
          self?.after(.microseconds(300)) { $0.answered(secondary, handle, live, offer) }
        }
      }
    }
  }

  /// Secondary: the other instance has a connection to be snooped.
  private func offered(
    _ primary: Handle, _ conversation: Conversation, isRequest: Bool = false,
    _ answer: @escaping (Handle) -> Void
  ) {
    guard !isPrimary else { return }
    if case .pair(let old, _) = holdings[conversation.number] {
      ask { $0.close(old) }
      holdings[conversation.number] = nil
    }
    ask { [weak self] engine in
      guard let self, isAlive,
        let (handle, pair) =
          isRequest
          ? engine.accept(primary, conversation) : engine.attach(primary: primary, conversation)
      else { return }
      hear { application in
        // The answer of an engine that is gone comes before the news of its end.
        guard application.machine.engine === engine else { return }
        if case .pair(let old, _) = application.holdings[conversation.number] {
          application.ask { $0.close(old) }
        }
        application.holdings[conversation.number] = .pair(handle, pair)
        answer(handle)
        application.watch(pair)
        // Of what was accepted for nothing the engine tells.
        if !isRequest { application.after(.seconds(3)) { $0.giveUpIfUnused(handle, conversation) } }
      }
    }
  }

  /// The other instance never began the handshake.
  private func giveUpIfUnused(_ handle: Handle, _ conversation: Conversation) {
    guard case .pair(handle, _) = holdings[conversation.number] else { return }
    ask { [weak self] engine in
      guard (try? engine.node.socket(handle).phase) == .attached else { return }
      engine.close(handle)
      self?.hear { application in
        if case .pair(handle, _) = application.holdings[conversation.number] {
          application.holdings[conversation.number] = nil
        }
      }
    }
  }

  private func answered(_ secondary: Handle, _ handle: Handle, _ live: Live, _ offer: Int) {
    guard holds(live), live.offer == offer, live.state == .offering, live.handle == handle else { return }
    live.state = .handshake
    ask { [weak self] engine in
      if let reason = engine.replicate(handle, secondary: secondary, live.socket) {
        self?.refused(handle, reason)
      }
    }
  }

  /// Stops replicating what is replicated, as an operator may ask; it begins again by itself.
  func unreplicateAll() {
    for number in holdings.keys.sorted() {
      if case .live(let live) = holdings[number]!, live.state == .replicated, let handle = live.handle {
        ask { $0.unreplicate(handle) }
      }
    }
  }

  // MARK: Reading and writing

  func becameReadable(_ socket: KernelSocket) {
    guard isWell, socket.applicationHasIt, socket.conversation.plan.pause <= .milliseconds(1) else { return }
    guard case .live(let live) = holdings[socket.conversation.number], live.socket === socket else { return }
    if socket.udp == nil { read(live) } else { after(.microseconds(50)) { $0.answer(live) } }
  }

  private func read(_ live: Live) {
    guard live.state != .handshake else { return }
    let socket = live.socket
    let bytes = socket.tcp.read()
    if !bytes.isEmpty {
      Judge.read(bytes, socket, on: machine)
      socket.readPosition += bytes.count
    }
    if socket.tcp.peerHasClosed, socket.tcp.readableByteCount == 0, !socket.sawEnd {
      socket.sawEnd = true
      Judge.readEnd(socket, on: machine)
    }
  }

  /// Reads and writes, now and again and again.
  private func work(_ conversation: Conversation) {
    guard isWell, case .live(let live) = holdings[conversation.number] else { return }
    guard !live.isWorking else { return }
    live.isWorking = true
    let pause = world.pause(of: conversation)
    let delay: TrueTime = .random(in: pause / 2...pause, using: &random.applications)
    after(delay) { application in
      live.isWorking = false
      guard application.holds(live) else { return }
      application.workOnce(live)
      if application.holds(live) { application.work(conversation) }
    }
  }

  private func workOnce(_ live: Live) {
    let socket = live.socket
    let conversation = socket.conversation
    guard machine.sockets[conversation.flow] === socket else {
      // The connection is over: reset, or finished.
      return close(live)
    }
    if world.isHealing || socket.udp != nil, conversation.isForgotten, !conversation.mustLive {
      // The peer has forgotten the connection: nobody will ever say anything on it again.
      return close(live)
    }
    guard live.state != .handshake else { return }
    if socket.udp != nil {
      answer(live)
      if random.applications.chance(0.05) { send(nil, to: 0, live) }
      return
    }
    read(live)
    if let end = live.pipe?.endedAt {
      live.pipe = nil
      socket.writePosition = end
    }
    if !socket.tcp.isClosed {
      let budget = Int.random(in: 1...world.largestWrite(of: conversation), using: &random.applications)
      if let pipe = live.pipe {
        give(pipe, budget)
      } else if conversation.plan.recordSize == nil || live.state != .replicated
        || !conversation.isBetweenRecords(socket.writePosition)
      {
        write(socket, budget)
      } else {
        beginRecords(live)
      }
      if live.pipe == nil, !live.isBeginningRecords, socket.writePosition >= conversation.plan.localTotal {
        socket.tcp.close()
      }
    }
    machine.transmit(socket)
    if socket.sawEnd, socket.tcp.isClosed { close(live) }
  }

  private func write(_ socket: KernelSocket, _ budget: Int) {
    let conversation = socket.conversation
    let room = min(
      socket.tcp.writableByteCount, conversation.plan.localTotal - socket.writePosition, budget)
    guard room > 0 else { return }
    var end = socket.writePosition + room
    if conversation.plan.recordSize != nil {
      // Not into a record that can be given as one.
      end = min(end, conversation.recordEnd(at: socket.writePosition))
      conversation.noteWrittenPlainly(socket.writePosition)
    }
    socket.tcp.write(conversation.localBytes(socket.writePosition..<end))
    socket.writePosition = end
  }

  // MARK: Datagrams

  /// Answers what peers have asked.
  private func answer(_ live: Live) {
    guard holds(live), live.state != .handshake else { return }
    while let datagram = live.socket.udp.read() {
      // What was meant for a socket that is gone is of no interest here.
      guard DatagramPeers.conversation(ofPort: datagram.peerPort) == live.socket.conversation.number else {
        continue
      }
      guard let text = datagram.text else {
        machine.send(ModelDatagram(nil, peerPort: datagram.peerPort, byteCount: 0), on: live.socket)
        continue
      }
      if let request = text.request { send(request, to: datagram.peerPort, live) }
    }
  }

  /// Answers a request, or tells the first peer something that it has not asked for.
  private func send(_ request: Int?, to port: UInt16, _ live: Live) {
    let socket = live.socket
    let conversation = socket.conversation
    let text = ModelDatagram.Text(
      conversation: conversation.number, isFromPeer: false, number: socket.udp.nextNumber, request: request)
    socket.udp.nextNumber += 1
    let size = Int.random(in: 1...conversation.datagrams!.plan.largestPayload, using: &random.applications)
    machine.send(
      ModelDatagram(
        text, peerPort: request == nil ? DatagramPeers.port(of: conversation.number, peer: 0) : port,
        byteCount: size), on: socket)
  }

  // MARK: Records

  /// Gives so many bytes in records, and at least one record, or what its channel takes of them.
  private func give(_ pipe: RecordPipe, _ budget: Int) {
    guard !pipe.isShut else { return }
    let conversation = pipe.conversation
    pipe.push()
    let end = pipe.givenUpTo + budget
    while !pipe.mustWait, pipe.givenUpTo < min(end, conversation.plan.localTotal) {
      pipe.give(upTo: conversation.recordEnd(at: pipe.givenUpTo))
    }
    if !pipe.mustWait, pipe.givenUpTo == conversation.plan.localTotal { pipe.hasEnded = true }
    ask { $0.recordsGiven(pipe) }
  }

  private func beginRecords(_ live: Live) {
    guard !live.isBeginningRecords, let handle = live.handle,
      live.socket.writePosition < live.socket.conversation.plan.localTotal
    else { return }
    live.isBeginningRecords = true
    let conversation = live.socket.conversation
    let pipe = RecordPipe(
      conversation, at: live.socket.writePosition, capacity: conversation.plan.recordChannel,
      limit: world.scenario.limits.record)
    ask { [weak self] engine in
      let refusal = engine.beginRecords(handle, pipe)
      // The answer brings the channel, whatever has become of the replication meanwhile.
      self?.after(.microseconds(100)) { application in
        guard application.holds(live), live.isBeginningRecords else {
          pipe.hasEnded = true
          return application.ask { $0.recordsGiven(pipe) }
        }
        live.isBeginningRecords = false
        if let refusal {
          application.world.tell(application.name, "\(conversation.name) takes no records: \(refusal)")
        } else {
          live.pipe = pipe
        }
      }
    }
  }

  private func close(_ live: Live) {
    let socket = live.socket
    holdings[socket.conversation.number] = nil
    socket.applicationHasIt = false
    if let handle = live.handle {
      ask { $0.close(handle) }
    }
    machine.closeIfUnowned(socket)
  }

  // MARK: Snooping

  private func watch(_ pair: EngineProcess.Pair) {
    let stuckUntil = pair.conversation.plan.opensAt + pair.conversation.plan.snooperStuckFor
    if world.now < stuckUntil, !world.isHealing {
      after(min(stuckUntil - world.now, .milliseconds(50))) { $0.watch(pair) }
      return
    }
    becameReadable(pair)
  }

  func becameReadable(_ pair: EngineProcess.Pair) {
    guard isWell, !pair.isBeingRead, pair.rcv.readable + pair.snd.readable > 0 else { return }
    let stuckUntil = pair.conversation.plan.opensAt + pair.conversation.plan.snooperStuckFor
    if world.now < stuckUntil, !world.isHealing { return }
    pair.isBeingRead = true
    after(.microseconds(.random(in: 10...300, using: &random.applications))) { application in
      pair.isBeingRead = false
      pair.rcv.take(pair.rcv.readable)
      pair.snd.take(pair.snd.readable)
      application.machine.engine?.relieved(pair)
      application.becameReadable(pair)
    }
  }

  // MARK: Mastership has come

  private func mergeAll() {
    for number in holdings.keys.sorted() {
      guard case .pair(let handle, let pair) = holdings[number]! else { continue }
      after(.microseconds(.random(in: 0...2_000, using: &random.applications))) { application in
        application.merge(handle, pair)
      }
    }
  }

  private func merge(_ handle: Handle, _ pair: EngineProcess.Pair) {
    ask { [weak self] engine in
      guard let self, isAlive, case .pair(handle, _) = holdings[pair.conversation.number] else { return }
      switch engine.merge(handle, pair.conversation) {
      case .success(let socket):
        let live = Live(socket)
        holdings[pair.conversation.number] = .live(live)
        hear { application in
          application.work(pair.conversation)
          application.replicateLater(live, soon: true)
        }
      case .failure(let refusal):
        world.tell(name, "\(pair.conversation.name) cannot be merged: \(refusal.reason)")
        Judge.mergeRefused(pair, refusal.reason, on: machine)
        holdings[pair.conversation.number] = nil
        engine.close(handle)
      }
    }
  }
}

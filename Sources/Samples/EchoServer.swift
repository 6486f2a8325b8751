import Descriptors
import Glibc
import JSR

/// `jsrutil`: an echo server whose connections survive the loss of its routing engine.
///
/// Theory of operation. Two instances run, one on each routing engine. The primary serves the peers; for
/// every connection it offers its handle to the secondary over a channel of their own, and when the
/// secondary has made its snoop pair, the engine replicates the socket. The secondary runs the same
/// transform on what it snoops (`Snooper`), so when mastership comes to it, it merges every pair into a live
/// socket and knows to the byte what is still to be sent.
///
/// One thread does everything that touches a byte, in one loop around epoll: a round trip through the
/// server is one wait, one read and one write. Calls to the engine run in tasks and report to the loop
/// through a mailbox (`EngineClient`); a socket is out of the loop as long as the engine has it.
///
/// A connection that is already under way can be replicated too (a secondary that comes late, a connection
/// that was merged). The engine would take it at any moment, but the other *instance* has to know where the
/// conversation stands. So the server stops reading, waits until the peer has acknowledged all it was sent
/// (`SIOCOUTQ`, tcp(7)), and puts the little that is left to know into the offer (`ResumePoint`).
///
/// On SIGTERM or SIGINT it does what daemons do: every connection is closed, so the peers see a FIN. To move
/// connections without closing them, move mastership first (`jsrctl request master switch`).
public final class EchoServer {
  enum Watcher {
    case mailbox
    case peers(ListeningSocket)
    case instances
    case channel
    case connection(ServedConnection)
    /// The channel of its records.
    case records(ServedConnection)
    case rcv(SnoopedPair)
    case snd(SnoopedPair)
    case live(SnoopedPair)
  }

  /// What the one line a second of `--quiet` tells.
  struct Counts: Equatable {
    var messages: UInt64 = 0
    var bytesIn: UInt64 = 0
    var bytesOut: UInt64 = 0
    var matches: UInt64 = 0
    var mismatches: UInt64 = 0
  }

  /// Of every connection, in bytes, of which the kernel makes twice as many. An engine replicates no socket with more
  /// unread than a snoop pair holds (`limits.snoop-buffer`, 4 MiB), and left to itself the kernel lets a receive
  /// queue grow to 32 MiB while the server brings a connection to rest.
  private static let receiveBufferByteCount: Int32 = 1 << 20
  /// Bytes of one read.
  private static let readByteCount = 128 * 1024
  /// How often the loop looks at what has no descriptor, in milliseconds.
  private static let tickMilliseconds: Int32 = 100
  /// How long connections may take to close when the server ends, in nanoseconds.
  private static let endingTime: UInt64 = 2_000_000_000

  let options: EchoServerOptions
  let line: LineOutput
  let poll: EventPoll<Watcher>
  let engine: EngineClient
  let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: readByteCount, alignment: 64)
  private let connectToEngine: EngineClient.Connector
  private let signals: AwaitedSignals
  private let peerListeners: [ListeningSocket]
  private let instanceListener: ListeningSocket?
  let otherAddress: SocketAddress?
  /// Where a connection to the other instance comes from, if that is not left to the kernel.
  private let channelAddress: SocketAddress?

  var part: Role
  var slot: UInt8?
  var session: (any EngineSession)?
  var channel: InstanceChannel?
  var connections: [UInt64: ServedConnection] = [:]
  var connectionsByHandle: [Handle: ServedConnection] = [:]
  /// Connections that are being brought to rest; looked at every millisecond.
  var quiescing: [UInt64: ServedConnection] = [:]
  /// Connections that are served while others are protected; see `protectSoon`.
  var awaitingProtection: [ServedConnection] = []
  /// Connections that are at rest for their handshake, or have been.
  var beingProtected: [ServedConnection] = []
  var pairs: [Handle: SnoopedPair] = [:]
  /// Pairs whose merge was asked for and is not over.
  var mergesUnderWay = 0
  var counts = Counts()
  private var lastConnectionID: UInt64 = 0
  private var reportedCounts = Counts()
  private var nextReport: UInt64 = 0
  private var reportedProblem: String?
  private var endAt: UInt64?
  private var pendingCloses = 0
  /// The engine has said that no secondary stands by: an offer would only keep a connection waiting.
  private(set) var secondaryIsLost = false
  private var hadSession = false
  /// With rendezvous: the engine has said that the other instance can be asked.
  private(set) var otherInstanceIsThere = false

  /// Binds everything; an address that is not there or a port in use is seen here.
  public convenience init(_ options: EchoServerOptions) throws {
    let path = options.controlSocket
    try self.init(options, line: LineOutput(descriptor: STDOUT_FILENO)) { () throws(JSRError) in
      try await Session.connect(to: path, application: "jsrutil")
    }
  }

  init(
    _ options: EchoServerOptions, line: LineOutput, connectToEngine: @escaping EngineClient.Connector
  ) throws {
    StreamSocket.raiseDescriptorLimit()
    self.options = options
    self.line = line
    self.connectToEngine = connectToEngine
    signals = try AwaitedSignals(SIGINT, SIGTERM)
    poll = try EventPoll()
    engine = EngineClient(mailbox: try Mailbox())
    peerListeners =
      if let host = options.listenAddress {
        [
          try ListeningSocket(
            at: try SocketAddress(host: host, port: options.port, isNumeric: true),
            receiveBuffer: Self.receiveBufferByteCount, signingKey: options.signingKey, vrf: options.vrf)
        ]
      } else {
        try ListeningSocket.everywhere(
          port: options.port, receiveBuffer: Self.receiveBufferByteCount, signingKey: options.signingKey,
          vrf: options.vrf)
      }
    otherAddress = try options.otherAddress.map {
      try SocketAddress(host: $0, port: options.channelPort, isNumeric: true)
    }
    channelAddress = try options.channelListenAddress.map {
      try SocketAddress(host: $0, port: 0, isNumeric: true)
    }
    if options.isPlain || options.usesRendezvous {
      instanceListener = nil
    } else {
      let any = otherAddress?.family == AF_INET6 ? "::" : "0.0.0.0"
      instanceListener = try ListeningSocket(
        at: try SocketAddress(
          host: options.channelListenAddress ?? any, port: options.channelPort, isNumeric: true))
    }
    part =
      switch options.mode {
      case .primary: .primary
      case .secondary: .secondary
      case .byMastership: options.isPlain ? .primary : .none
      }
    slot = options.slot ?? (options.isPlain ? 0 : nil)
  }

  deinit { buffer.deallocate() }

  /// Serves until SIGTERM or SIGINT.
  public func run() throws {
    try poll.add(engine.mailbox.descriptor, .read, .mailbox)
    if let instanceListener { try poll.add(instanceListener.descriptor, .read, .instances) }
    line(settings)
    let keeper =
      options.isPlain
      ? nil : engine.keepSession(registering: options.service, connectToEngine)
    if slot != nil { try beginAccepting() }

    var nextTick: UInt64 = 0
    while true {
      line.flush()
      try poll.wait(milliseconds: quiescing.isEmpty ? Self.tickMilliseconds : 1, handle)
      checkQuiescing()
      protectWhatWaits()
      let now = MonotonicClock.nanoseconds
      if now >= nextTick {
        nextTick = now + UInt64(Self.tickMilliseconds) * 1_000_000
        tick(now)
      }
      if let endAt, pendingCloses == 0 && connections.isEmpty || now >= endAt { break }
    }
    keeper?.cancel()
    session?.close()
    line("END")
    line.flush()
  }

  private func handle(_ watcher: Watcher, _ readiness: EventPoll<Watcher>.Readiness) {
    switch watcher {
    case .mailbox: for notice in engine.mailbox.takeAll() { handle(notice) }
    case .peers(let listener): acceptPeers(listener)
    case .instances: acceptInstance()
    case .channel: channelIsReady(readiness)
    case .connection(let connection):
      if readiness.canRead { read(connection) }
      if readiness.canWrite, connections[connection.id] === connection { flush(connection) }
    case .records(let connection): recordsReady(connection)
    case .rcv(let pair): readRcv(pair)
    case .snd(let pair): readSnd(pair)
    case .live(let pair): readLive(pair)
    }
  }

  private func handle(_ notice: EngineNotice) {
    switch notice {
    case .stop: end()
    case .ready(let session, let role): sessionIsReady(session, role)
    case .unreachable(let error): report(problem: "ENGINE \(error)")
    case .event(let event): handle(event)
    case .allocated(let id, let result): allocated(id, result)
    case .handshakeOver(let id, let refusal): handshakeOver(id, refusal)
    case .recordsBegan(let id, let result): recordsBegan(id, result)
    case .unreplicationRefused(let id, let error): unreplicationRefused(id, error)
    case .attached(let primary, let point, let result): attached(primary, point, result)
    case .merged(let handle, let result): merged(handle, result)
    case .closed(let handle, let refusal):
      pendingCloses -= 1
      if let refusal { line("CLOSE of handle \(handle): \(refusal)") }
    }
  }

  private func handle(_ event: Event) {
    switch event {
    case .replicated: break
    case .unreplicated(let handle, let reason):
      if let connection = connectionsByHandle[handle] {
        lostProtection(connection, reason: reason)
      } else if let pair = pairs[handle] {
        snoopingEnds(pair, reason: reason)
      }
    case .secondaryUp:
      line("SECONDARY up")
      secondaryIsLost = false
      retryEverything()
    case .secondaryDown:
      line("SECONDARY down")
      secondaryIsLost = true
      withdrawOffers("the secondary is lost")
    case .mastershipGained: become(.primary)
    case .mastershipLost: become(.secondary)
    case .serviceAvailable:
      line("INSTANCE there")
      otherInstanceIsThere = true
      retryEverything()
    case .serviceUnavailable:
      line("INSTANCE not there")
      otherInstanceIsThere = false
    case .replicationRequested(let request): requested(request)
    case .requestWithdrawn(_, let primary): detail("WITHDRAWN handle \(primary)")
    case .peerClosed(let handle): detail("PEER closed its direction, handle \(handle)")
    case .missed(let count): missed(count)
    case .engineGone: engineIsGone()
    }
  }

  private func sessionIsReady(_ session: any EngineSession, _ role: Role) {
    let isFirst = !hadSession
    hadSession = true
    self.session = session
    reportedProblem = nil
    secondaryIsLost = false
    line("ENGINE \(session.node) slot \(session.slot) version \(session.engineVersion) role \(role.rawValue)")
    if slot == nil {
      slot = session.slot
      do {
        try beginAccepting()
      } catch {
        report(problem: "PEERS cannot be accepted: \(error)")
      }
    }
    // The mode names the part only until mastership has spoken.
    if role != .none, options.mode == .byMastership || !isFirst { become(role) }
    retryEverything()
  }

  private func engineIsGone() {
    guard session != nil else { return }
    session = nil
    otherInstanceIsThere = false
    line("ENGINE gone: open connections go on unreplicated")
    for connection in connections.values {
      switch connection.protection {
      case .replicated, .offered, .settling, .unreplicating:
        connection.protection = .none
        quiescing[connection.id] = nil
        resume(connection)
      case .none, .quiescing, .allocating, .handshake: break
      }
      connection.mergedHandle = nil
    }
    connectionsByHandle.removeAll()
    for pair in pairs.values where !pair.isMerged { drop(pair, "the engine is gone") }
  }

  /// Events were lost, so everything is asked for again.
  private func missed(_ count: Int) {
    line("EVENTS \(count) missed")
    // If it is not so, the engine refuses.
    otherInstanceIsThere = options.usesRendezvous
    guard let session else { return }
    let mailbox = engine.mailbox
    Task {
      if let role = try? await session.role(), role != .none {
        mailbox.post(.event(role == .primary ? .mastershipGained : .mastershipLost))
      }
    }
  }

  private func become(_ role: Role) {
    guard role != .none, role != part else { return }
    part = role
    line("ROLE \(role.rawValue)")
    closeChannel("the role has changed")
    switch role {
    case .primary: mergeAll()
    case .secondary: abandonReplicated()
    case .none: break
    }
  }

  private func tick(_ now: UInt64) {
    if signals.take() != nil { end() }
    if !options.isPlain, endAt == nil {
      if part == .secondary, channel == nil, !options.usesRendezvous { connectToPrimary() }
      expireOffers(now)
      protectWhatIsDue(now)
    }
    dropEndedPairs(now)
    if options.isQuiet, now >= nextReport {
      nextReport = now + 1_000_000_000
      reportCounts()
    }
  }

  private func end() {
    guard endAt == nil else { return }
    endAt = MonotonicClock.nanoseconds + Self.endingTime
    line("ENDING, \(connections.count) connections are closed")
    for listener in peerListeners { poll.remove(listener.descriptor) }
    if let instanceListener { poll.remove(instanceListener.descriptor) }
    for connection in connections.values where connection.isOurs { beginClosing(connection) }
    for pair in pairs.values { drop(pair, "the server ends") }
    closeChannel("the server ends")
  }

  /// The server is about to end: nothing new is begun.
  var isEnding: Bool { endAt != nil }

  /// Closes a socket that the engine knows under `handle`, in order.
  func closeThroughEngine(_ session: any EngineSession, _ descriptor: Int32, _ handle: Handle) {
    pendingCloses += 1
    engine.close(session, descriptor: descriptor, handle)
  }

  func nextConnectionID() -> UInt64 {
    lastConnectionID += 1
    return lastConnectionID
  }

  private func beginAccepting() throws {
    for listener in peerListeners { try poll.add(listener.descriptor, .read, .peers(listener)) }
  }

  private func acceptPeers(_ listener: ListeningSocket) {
    guard let slot else { return }
    do {
      while let accepted = try listener.accept() {
        try StreamSocket.sendAtOnce(accepted.rawValue)
        serve(
          ServedConnection(
            id: nextConnectionID(), descriptor: accepted.release(),
            conversation: Conversation(slot: slot, verifiesPayload: options.verifiesPayload)))
      }
    } catch {
      report(problem: "PEERS cannot be accepted: \(error)")
    }
  }

  private func acceptInstance() {
    guard let instanceListener else { return }
    do {
      while let accepted = try instanceListener.accept() {
        guard part == .primary, !isEnding else { continue }
        let remote = StreamSocket.remoteAddress(of: accepted.rawValue)
        if let otherAddress, remote?.host != otherAddress.host {
          line("CHANNEL refused from \(remote?.description ?? "nobody"): --ore says \(otherAddress.host)")
          continue
        }
        closeChannel("the other instance has connected again")
        try StreamSocket.sendAtOnce(accepted.rawValue)
        try StreamSocket.noticeSilence(accepted.rawValue)
        let channel = InstanceChannel(accepted, isConnecting: false)
        try poll.add(channel.descriptor.rawValue, .read, .channel)
        self.channel = channel
        line("CHANNEL up, the other instance is at \(remote?.description ?? "?")")
        retryEverything()
      }
    } catch {
      report(problem: "CHANNEL cannot be accepted: \(error)")
    }
  }

  private func connectToPrimary() {
    guard let otherAddress, session != nil else { return }
    do {
      let channel = InstanceChannel(
        try StreamSocket.connecting(to: otherAddress, from: channelAddress), isConnecting: true)
      try poll.add(channel.descriptor.rawValue, .write, .channel)
      self.channel = channel
    } catch {
      report(problem: "CHANNEL \(error)")
    }
  }

  private func channelIsReady(_ readiness: EventPoll<Watcher>.Readiness) {
    guard let channel else { return }
    do {
      if channel.isConnecting {
        let code = StreamSocket.connectError(channel.descriptor.rawValue)
        guard code == 0 else {
          poll.remove(channel.descriptor.rawValue)
          self.channel = nil
          return
        }
        channel.isConnecting = false
        try StreamSocket.sendAtOnce(channel.descriptor.rawValue)
        try StreamSocket.noticeSilence(channel.descriptor.rawValue)
        line("CHANNEL up, to \(otherAddress?.description ?? "?")")
      } else if readiness.canRead {
        let isOpen = try channel.receive(buffer)
        try handleMessages(of: channel)
        if !isOpen {
          closeChannel("the other instance has closed it")
          return
        }
      }
      if readiness.canWrite { try channel.flush() }
      watchChannel()
    } catch {
      closeChannel("\(error)")
    }
  }

  private func handleMessages(of channel: InstanceChannel) throws(ChannelMessageError) {
    switch part {
    case .primary: while let answer = try channel.nextAnswer() { offerAnswered(answer) }
    case .secondary: while let offer = try channel.nextOffer() { offered(offer) }
    case .none: break
    }
  }

  /// Sends one message to the other instance; a channel that does not take it is closed.
  func send(_ message: [UInt8]) {
    guard let channel else { return }
    do {
      try channel.send(message)
      watchChannel()
    } catch {
      closeChannel("\(error)")
    }
  }

  private func watchChannel() {
    guard let channel else { return }
    do {
      try poll.change(channel.descriptor.rawValue, to: channel.hasOutput ? [.read, .write] : .read)
    } catch {
      closeChannel("\(error)")
    }
  }

  private func closeChannel(_ reason: String) {
    guard let channel else { return }
    poll.remove(channel.descriptor.rawValue)
    self.channel = nil
    if !channel.isConnecting { line("CHANNEL down: \(reason)") }
    withdrawOffers(reason)
  }

  /// A line that `--quiet` leaves out.
  func detail(_ text: @autoclosure () -> String) {
    if !options.isQuiet { line(text()) }
  }

  /// A line about something that is tried again and again, printed when it changes.
  func report(problem: String) {
    guard problem != reportedProblem else { return }
    reportedProblem = problem
    line(problem)
  }

  private func reportCounts() {
    guard counts != reportedCounts else { return }
    let replicated = connections.values.count { if case .replicated = $0.protection { true } else { false } }
    line(
      "COUNTS \(part.rawValue) connections \(connections.count) replicated \(replicated)"
        + " snooped \(pairs.count) messages \(counts.messages) (+\(counts.messages - reportedCounts.messages))"
        + " bytes in \(counts.bytesIn) out \(counts.bytesOut)"
        + " matches \(counts.matches) mismatches \(counts.mismatches)")
    reportedCounts = counts
  }

  private var settings: String {
    let address = options.listenAddress ?? "all addresses"
    var words = ["jsrutil", "mode \(options.mode.rawValue)", "port \(options.port) of \(address)"]
    if options.isPlain {
      words.append("plain, slot \(slot ?? 0)")
    } else {
      if let service = options.service {
        words.append("rendezvous \(service)")
      } else {
        words.append("channel port \(options.channelPort)")
        words.append("other instance \(options.otherAddress ?? "connects")")
      }
      words.append("engine \(options.controlSocket)")
    }
    if let count = options.unreplicateAfter { words.append("unreplicate after \(count) messages") }
    if options.givesRecords { words.append("echoes as records") }
    words.append(options.verifiesPayload ? "payload verified" : "payload not verified")
    return words.joined(separator: ", ")
  }
}

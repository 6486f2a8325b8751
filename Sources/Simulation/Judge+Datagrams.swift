import Packet
import Replication

/// What is held against the replication of one UDP socket, from its handshake on.
final class DatagramLedger {
  /// What the primary's kernel was given, the unread ones of the handshake first.
  fileprivate(set) var released: [ModelDatagram]
  /// The same, as it came to the secondary.
  fileprivate(set) var received: [ModelDatagram] = []
  /// Numbers of the datagrams that the secondary has of those that the primary sends.
  fileprivate var sent: Set<Int> = []
  fileprivate var lastSent = -1
  /// Empty ones have no numbers.
  fileprivate var emptySent = 0
  fileprivate var emptyLeft = 0
  /// What the primary's application was to send next.
  let nextNumber: Int

  init(unread: [ModelDatagram], nextNumber: Int) {
    released = unread
    self.nextNumber = nextNumber
  }

  /// What an application that has seen all of `snd` sends next.
  var nextNumberOnSecondary: Int { max(nextNumber, lastSent + 1) }
}

/// A datagram between the application that sent it and the wire.
struct DatagramOnItsWay {
  let socket: KernelSocket
  let datagram: ModelDatagram
  /// What its kernel had been given of what the secondary must have.
  let ledger: DatagramLedger?
  let seen: Int
}

extension Judge {
  // MARK: What leaves

  /// - Parameter byEngine: the engine has put it on the wire, not the kernel itself.
  static func datagramLeaves(
    _ frame: [UInt8], _ packet: UDPPacket, byEngine: Bool, from machine: Machine
  ) {
    let world = machine.world
    guard let conversation = world.conversation(ofPeerPort: packet.destination.port),
      let exchange = conversation.datagrams
    else { return world.broken(.protocolUse, "a datagram of no conversation leaves \(machine.name)") }
    world.statistics.datagramsLeft += 1
    guard let sent = world.takeOnItsWay(FrameStamp.read(frame)) else {
      return world.broken(
        .stream, "\(machine.name) puts a datagram of \(conversation.name) on the wire twice")
    }
    let datagram = sent.datagram
    world.tell(machine.name, "out \(conversation.name) \(datagram)")
    if ModelDatagram(frame[packet.payload], peerPort: packet.destination.port) != datagram
      || packet.source != conversation.flow.local
    {
      world.broken(.stream, "\(machine.name) sends \(datagram) of \(conversation.name) otherwise than it was")
    }
    if byEngine, let number = datagram.text?.number {
      if conversation.mustLive, number <= exchange.lastNumberLeft {
        world.broken(
          .stream,
          "\(machine.name) sends \(datagram) of \(conversation.name) after \(exchange.lastNumberLeft)")
      }
      exchange.lastNumberLeft = max(exchange.lastNumberLeft, number)
    }
    conversation.lastSpeaker = machine.slot
    guard let (_, pair) = mirroringPair(of: conversation, servedBy: machine), let ledger = pair.ledger else {
      return
    }
    let other = world.machines[1 - machine.slot]
    if let number = datagram.text?.number {
      if !ledger.sent.contains(number) {
        world.broken(
          .promise2, "\(machine.name) sends \(datagram) of \(conversation.name), which \(other.name) lacks")
      }
    } else {
      ledger.emptyLeft += 1
      if ledger.emptyLeft > ledger.emptySent {
        world.broken(
          .promise2,
          "\(machine.name) sends \(ledger.emptyLeft) empty datagrams of \(conversation.name), \(other.name) has "
            + "\(ledger.emptySent)")
      }
    }
    if sent.ledger === ledger, sent.seen > ledger.received.count {
      world.broken(
        .promise1,
        "\(machine.name) sends \(datagram) of \(conversation.name), before which its kernel had \(sent.seen) "
          + "datagrams, \(other.name) has \(ledger.received.count)")
    }
  }

  // MARK: What the kernel gets

  /// A datagram is about to reach a kernel's socket.
  static func datagramDelivered(
    _ datagram: ModelDatagram, _ stamp: UInt64, to socket: KernelSocket, byEngine: Bool, on machine: Machine
  ) {
    let world = machine.world
    let conversation = socket.conversation
    guard let owner = world.conversation(ofPeerPort: datagram.peerPort) else { return }
    guard owner === conversation else {
      // The kernel has nobody else for it.
      if owner.mustLive {
        world.broken(.stream, "\(machine.name) gives a datagram of \(owner.name) to \(conversation.name)")
      }
      return
    }
    if byEngine {
      if stamp <= socket.lastStamp {
        world.broken(
          .stream, "\(machine.name) delivers \(datagram) of \(conversation.name) twice, or too late")
      }
      socket.lastStamp = stamp
    }
    guard let ledger = socket.ledger else { return }
    ledger.released.append(datagram)
    let count = ledger.released.count
    if count <= ledger.received.count {
      if ledger.received[count - 1] != datagram {
        world.broken(
          .promise5,
          "\(machine.name) delivers \(datagram) of \(conversation.name), the other RE has "
            + "\(ledger.received[count - 1]) in its place")
      }
    } else if world.scenario.mode == .strict, machine.engine?.view(of: conversation)?.phase == .replicating,
      mirroringPair(of: conversation, servedBy: machine)?.pair.ledger === ledger
    {
      world.broken(
        .promise1,
        "\(machine.name) delivers \(datagram) of \(conversation.name) in strict mode, which the other RE lacks"
      )
    }
  }

  /// The kernel has no socket for a datagram, and says so, if the fence lets it.
  static func portIsUnreachable(_ datagram: ModelDatagram, on machine: Machine) {
    guard machine.leaseIsInForce,
      let conversation = machine.world.conversation(ofPeerPort: datagram.peerPort), conversation.mustLive
    else { return }
    machine.world.broken(.promise8, "\(machine.name) has no socket for \(datagram) of \(conversation.name)")
  }

  // MARK: Replication

  /// The handshake reads the socket: the snoop pair begins here.
  static func datagramHandshake(_ socket: KernelSocket, _ pair: EngineProcess.Pair?) {
    let ledger = DatagramLedger(
      unread: socket.udp.queue.filter {
        DatagramPeers.conversation(ofPort: $0.peerPort) == socket.conversation.number
      },
      nextNumber: socket.udp.nextNumber)
    socket.ledger = ledger
    pair?.ledger = ledger
  }

  /// The primary appends a datagram to the log.
  static func datagramLogged(_ record: DatagramRecord, on machine: Machine) {
    let world = machine.world
    guard let conversation = world.conversation(record.handle),
      let owner = world.conversation(ofPeerPort: record.remote.port)
    else { return world.broken(.protocolUse, "\(machine.name) logs a datagram of nobody") }
    // As long as a socket is not replicated, what it does on the local end of an unconnected one counts as that one's.
    if owner !== conversation, conversation.flow.remote.port != 0 || machine.engine?.view(of: owner) != nil {
      world.broken(
        .promise5, "\(machine.name) logs a datagram of \(owner.name) as one of \(conversation.name)")
    }
  }

  /// A datagram has come to the secondary, which is about to show it.
  static func datagramReceived(
    _ payload: ArraySlice<UInt8>, remote: Endpoint, local: Endpoint, _ pair: EngineProcess.Pair,
    _ stream: SnoopStream, on machine: Machine
  ) {
    let world = machine.world
    let conversation = pair.conversation
    guard let datagram = ModelDatagram(payload, peerPort: remote.port), local == conversation.flow.local,
      remote.address == Conversation.peerAddress,
      let owner = world.conversation(ofPeerPort: remote.port),
      datagram.text.map({ $0.isFromPeer == (stream == .rcv) && $0.conversation == owner.number }) ?? true
    else {
      return world.broken(.promise5, "\(stream) of \(conversation.name) gets what nobody sent from \(remote)")
    }
    guard owner === conversation, let ledger = pair.ledger else { return }
    if stream == .snd {
      guard let number = datagram.text?.number else {
        ledger.emptySent += 1
        return
      }
      if number <= ledger.lastSent {
        world.broken(.promise5, "snd of \(conversation.name) gets \(datagram) after \(ledger.lastSent)")
      }
      ledger.lastSent = number
      ledger.sent.insert(number)
      return
    }
    ledger.received.append(datagram)
    let count = ledger.received.count
    if count <= ledger.released.count, ledger.released[count - 1] != datagram {
      world.broken(
        .promise5,
        "rcv of \(conversation.name) gets \(datagram), the primary's kernel \(ledger.released[count - 1])")
    }
  }

  /// A pair becomes a socket.
  static func merged(_ plan: DatagramMergePlan, _ pair: EngineProcess.Pair, on machine: Machine) {
    if plan.flow != pair.conversation.flow || plan.options != pair.conversation.datagramOptions {
      machine.world.broken(.promise3, "\(pair.conversation.name) is merged as \(plan.flow)")
    }
  }
}

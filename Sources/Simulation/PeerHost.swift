import Packet
import Replication

/// The machines of the peers, all in one: their kernels and their applications, which know nothing of JSR.
enum PeerHost {
  /// A peer connects. The connection exists from here on, at both ends: its SYNs are not simulated. Or the application
  /// makes a UDP socket, which peers talk to.
  static func open(_ plan: Scenario.Plan, number: Int, in world: World) {
    guard !world.isHealing else { return }
    guard
      let machine = world.machines.first(where: {
        $0.isOn && !$0.isStopped && $0.hasAddresses && $0.leaseIsInForce && $0.engine?.phase == .primary
          && $0.application?.isWell == true && world.uplink.owner == $0.slot
      })
    else {
      world.after(.milliseconds(50)) { open(plan, number: number, in: world) }
      return
    }
    let conversation = Conversation(number: number, plan: plan, now: now(world), openedAt: world.now)
    world.add(conversation)
    Judge.opened(conversation, on: machine)
    world.statistics.conversations += 1
    let socket: KernelSocket
    if let datagrams = plan.datagrams {
      world.statistics.datagramConversations += 1
      world.tell("peer", "\(conversation.name) begins, with \(machine.name): \(conversation.flow)")
      socket = KernelSocket(conversation, udp: ModelUDP(limit: datagrams.queueLimit))
    } else {
      world.tell(
        "peer",
        "\(conversation.name) opens, to \(machine.name); sequence numbers \(plan.peerStart) and \(plan.localStart)"
      )
      socket = KernelSocket(
        conversation,
        tcp: ModelTCP(
          sendFrom: conversation.localStart, receiveFrom: conversation.peerStart, options: plan.local,
          timestampOffset: 77 &+ UInt32(machine.slot) &* 0x8000_0000, now: machine.now),
        readPosition: 0, writePosition: 0)
    }
    machine.add(socket)
    if machine.engine?.isWell != true {
      // A kernel accepts connections also while its engine sleeps; that one may find out that it lost its lease.
      Judge.lose(conversation, "was opened while the engine of \(machine.name) slept")
    }
    machine.application!.accepted(socket)
    if plan.datagrams != nil { return DatagramPeers.work(conversation, in: world) }
    work(conversation, in: world)
    if let resetsAfter = plan.peerResetsAfter { world.after(resetsAfter) { reset(conversation, in: world) } }
  }

  /// The peers' clock.
  private static func now(_ world: World) -> Instant { Instant(nanoseconds: world.now + 5_000_000_000) }

  private static func send(_ outputs: [ModelTCP.Output], _ conversation: Conversation, in world: World) {
    for output in outputs {
      let frame = conversation.frame(output, fromPeer: true)
      conversation.keepOld(frame, in: world)
      world.uplink.sendFromPeer(frame)
    }
    arm(conversation, in: world)
  }

  private static func arm(_ conversation: Conversation, in world: World) {
    guard let deadline = conversation.peer?.deadline else { return }
    let at = max(world.now, deadline.nanoseconds - 5_000_000_000)
    if let timer = conversation.peerTimer, timer <= at { return }
    conversation.peerTimer = at
    world.after(at - world.now) {
      guard conversation.peerTimer == at else { return }
      conversation.peerTimer = nil
      guard let outputs = conversation.peer?.expire(now: now(world)) else { return }
      send(outputs, conversation, in: world)
    }
  }

  /// How long a peer bears the silence of a connection that may have been lost.
  private static let patience: TrueTime = .seconds(3)

  private static func work(_ conversation: Conversation, in world: World) {
    let pause = world.pause(of: conversation)
    world.after(.random(in: pause / 2...pause, using: &world.random.peers)) {
      guard conversation.peer != nil, !conversation.peerIsDone else { return }
      if case .lost = conversation.fate, world.now - conversation.peerHeardAt > patience {
        world.tell("peer", "\(conversation.name) is given up: nothing is heard of it")
        conversation.peer = nil
        return
      }
      workOnce(conversation, in: world)
      work(conversation, in: world)
    }
  }

  private static func workOnce(_ conversation: Conversation, in world: World) {
    read(conversation, in: world)
    let room = min(
      conversation.peer!.isClosed ? 0 : conversation.peer!.writableByteCount,
      conversation.plan.peerTotal - conversation.peerWritten,
      .random(in: 1...world.largestWrite(of: conversation), using: &world.random.peers))
    if room > 0 {
      let end = conversation.peerWritten + room
      conversation.peer!.write(conversation.peerBytes(conversation.peerWritten..<end))
      conversation.peerWritten = end
    }
    if conversation.peerWritten >= conversation.plan.peerTotal, !conversation.peer!.isClosed {
      conversation.peer!.close()
    }
    send(conversation.peer!.output(now: now(world)), conversation, in: world)
    finishIfDone(conversation, in: world)
  }

  private static func read(_ conversation: Conversation, in world: World) {
    let bytes = conversation.peer!.read()
    guard !bytes.isEmpty else { return }
    for (offset, byte) in bytes.enumerated()
    where byte != conversation.localByte(conversation.peerRead + offset) {
      world.broken(
        .stream, "the peer of \(conversation.name) reads a wrong byte at \(conversation.peerRead + offset)")
      return
    }
    conversation.peerRead += bytes.count
    if conversation.peerRead > conversation.plan.localTotal {
      world.broken(.stream, "the peer of \(conversation.name) reads more than was ever written")
    }
  }

  private static func finishIfDone(_ conversation: Conversation, in world: World) {
    guard !conversation.peerIsDone, conversation.peer!.peerHasClosed,
      conversation.peer!.readableByteCount == 0,
      conversation.peer!.finIsAcknowledged
    else { return }
    conversation.peerIsDone = true
    if conversation.peerRead != conversation.plan.localTotal {
      world.broken(
        .stream,
        "the peer of \(conversation.name) reads the end after \(conversation.peerRead) of "
          + "\(conversation.plan.localTotal) bytes")
    }
    world.tell("peer", "\(conversation.name) has come to its end")
    // TIME-WAIT, long enough for a lost acknowledgement of the FIN.
    world.after(.seconds(8)) { conversation.peer = nil }
  }

  private static func reset(_ conversation: Conversation, in world: World) {
    guard conversation.peer != nil, !conversation.peerIsDone else { return }
    world.tell("peer", "\(conversation.name) is reset by its peer")
    conversation.fate = conversation.fate ?? .resetByPeer
    let output = conversation.peer!.abort(now: now(world))
    send([output], conversation, in: world)
    conversation.peer = nil
  }

  /// A frame arrives from an RE.
  static func receive(_ frame: [UInt8], in world: World) {
    if case .udp(let packet) = ModelPacket(frame) {
      guard frame.withUnsafeBytes({ packet.checksumIsValid($0) }) else { return }
      return DatagramPeers.receive(packet, frame, in: world)
    }
    frame.withUnsafeBytes { bytes in
      guard let packet = TCPPacket(bytes), packet.checksumIsValid(bytes),
        let conversation = world.conversation(packet.outboundFlow())
      else { return }
      guard conversation.peer != nil else { return answerWithReset(packet, conversation, in: world) }
      conversation.peerHeardAt = world.now
      conversation.peer!.receive(
        packet.segment, UnsafeRawBufferPointer(rebasing: bytes[packet.segment.payload]), now: now(world))
      if conversation.peer!.heardOfTheUnsent, conversation.mustLive {
        world.broken(.promise3, "the peer of \(conversation.name) is acknowledged bytes that it never sent")
      }
      if conversation.peer!.isReset { return wasReset(conversation, in: world) }
      if conversation.plan.pause <= .milliseconds(1) { read(conversation, in: world) }
      send(conversation.peer!.output(now: now(world)), conversation, in: world)
    }
  }

  private static func wasReset(_ conversation: Conversation, in world: World) {
    if conversation.mustLive {
      world.broken(.promise8, "the peer of \(conversation.name) is reset")
    }
    conversation.peer = nil
  }

  private static func answerWithReset(_ packet: TCPPacket, _ conversation: Conversation, in world: World) {
    guard !packet.segment.flags.contains(.rst) else { return }
    let output = ModelTCP.Output(
      sequence: packet.segment.acknowledgment, acknowledgment: packet.segment.end, flags: [.rst, .ack],
      window: 0, timestamps: nil, payload: [])
    world.uplink.sendFromPeer(conversation.frame(output, fromPeer: true))
  }

  // MARK: Faults

  /// The network delivers again what it delivered long ago.
  static func replayOldFrames(in world: World) {
    for conversation in world.conversations where !conversation.isForgotten {
      for frame in conversation.oldFrames { world.uplink.sendFromPeer(frame) }
    }
  }

  /// Somebody who does not know the connections' state sends segments to them.
  static func forge(in world: World) {
    for conversation in world.conversations {
      guard let peer = conversation.peer else { continue }
      for _ in 0..<6 {
        let isFar = world.random.peers.chance(0.5)
        let distance = isFar ? Int.random(in: -1 << 30...1 << 30, using: &world.random.peers) : 200_000
        let payload = [UInt8](repeating: 0xee, count: [0, 1, 50].randomElement(using: &world.random.peers)!)
        let flags: TCPFlags = [[.ack], [.ack, .fin], [.rst], [.syn], [.ack, .psh], []].randomElement(
          using: &world.random.peers)!
        // Never inside both windows: such a segment is not to be told from the peer's own.
        let sequence = peer.sendNext + (distance == 0 ? 1 << 20 : distance) + 100_000
        let output = ModelTCP.Output(
          sequence: sequence, acknowledgment: peer.receiveNext + distance, flags: flags, window: 100,
          timestamps: world.random.peers.chance(0.5)
            ? TCPTimestamps(value: .random(in: .min ... .max, using: &world.random.peers), echo: 0) : nil,
          payload: payload)
        world.uplink.sendFromPeer(conversation.frame(output, fromPeer: true))
      }
    }
  }
}

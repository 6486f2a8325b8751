import Packet
import Replication

/// A conversation over UDP, as its peers see it: they make requests, and ask again for what is not answered.
final class DatagramExchange {
  let plan: Scenario.DatagramPlan
  /// What was not asked for yet begins here.
  var nextRequest = 0
  /// When those were asked for last that are not answered.
  var unanswered: [Int: TrueTime] = [:]
  var nextNumber = 0
  /// Nobody answers: the peers have turned to something else.
  var isGivenUp = false
  /// Of the datagrams that an engine has put on the wire, the number of the last one.
  var lastNumberLeft = -1

  init(_ plan: Scenario.DatagramPlan) { self.plan = plan }

  var isAnswered: Bool { nextRequest == plan.requestCount && unanswered.isEmpty }
}

/// The peers' machines, as far as they speak UDP.
enum DatagramPeers {
  /// Of the first peer of the first conversation; each has a few.
  private static let firstPort: UInt16 = 50_000
  static let portsPerConversation = 4
  /// How long peers bear the silence of a conversation that may have been lost.
  private static let patience: TrueTime = .seconds(3)

  static func port(of conversation: Int, peer: Int) -> UInt16 {
    firstPort + UInt16(conversation * portsPerConversation + peer)
  }

  /// The number of the conversation that a peer's port belongs to.
  static func conversation(ofPort port: UInt16) -> Int? {
    port < firstPort ? nil : Int(port - firstPort) / portsPerConversation
  }

  static func work(_ conversation: Conversation, in world: World) {
    let pause = world.pause(of: conversation)
    world.after(.random(in: pause / 2...pause, using: &world.random.peers)) {
      guard let exchange = conversation.datagrams, !conversation.peerIsDone else { return }
      if case .lost = conversation.fate, world.now - conversation.peerHeardAt > patience {
        world.tell("peer", "\(conversation.name) is given up: nothing is heard of it")
        exchange.isGivenUp = true
        return
      }
      askOnce(conversation, exchange, in: world)
      work(conversation, in: world)
    }
  }

  private static func askOnce(
    _ conversation: Conversation, _ exchange: DatagramExchange, in world: World
  ) {
    for (request, askedAt) in exchange.unanswered.sorted(by: { $0.key < $1.key })
    where world.now - askedAt >= exchange.plan.patience {
      ask(request, conversation, exchange, in: world)
    }
    while exchange.unanswered.count < exchange.plan.window,
      exchange.nextRequest < exchange.plan.requestCount
    {
      ask(exchange.nextRequest, conversation, exchange, in: world)
      exchange.nextRequest += 1
    }
    if world.random.peers.chance(exchange.plan.empties) {
      send(
        ModelDatagram(nil, peerPort: port(of: conversation.number, peer: 0), byteCount: 0), conversation,
        in: world)
    }
  }

  private static func ask(
    _ request: Int, _ conversation: Conversation, _ exchange: DatagramExchange, in world: World
  ) {
    exchange.unanswered[request] = world.now
    let text = ModelDatagram.Text(
      conversation: conversation.number, isFromPeer: true, number: exchange.nextNumber, request: request)
    exchange.nextNumber += 1
    send(
      ModelDatagram(
        text, peerPort: port(of: conversation.number, peer: request % exchange.plan.peerCount),
        byteCount: .random(in: 1...exchange.plan.largestPayload, using: &world.random.peers)),
      conversation, in: world)
  }

  private static func send(_ datagram: ModelDatagram, _ conversation: Conversation, in world: World) {
    let frame = datagram.frame(
      from: Endpoint(Conversation.peerAddress, datagram.peerPort), to: conversation.flow.local)
    conversation.keepOld(frame, in: world)
    world.uplink.sendFromPeer(frame)
  }

  /// A datagram arrives from an RE.
  static func receive(_ packet: UDPPacket, _ frame: [UInt8], in world: World) {
    guard let conversation = world.conversation(ofPeerPort: packet.destination.port),
      let exchange = conversation.datagrams
    else { return }
    conversation.peerHeardAt = world.now
    guard let datagram = ModelDatagram(frame[packet.payload], peerPort: packet.destination.port) else {
      return world.broken(.stream, "a peer of \(conversation.name) reads what nobody wrote")
    }
    guard let request = datagram.text?.request else { return }
    guard exchange.unanswered.removeValue(forKey: request) != nil, exchange.isAnswered else { return }
    conversation.peerIsDone = true
    world.tell("peer", "\(conversation.name) has all of its answers")
  }
}

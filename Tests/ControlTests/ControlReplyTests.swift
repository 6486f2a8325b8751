import Control
import Replication
import Testing

@Suite("A reply")
struct ControlReplyTests {
  static let handle = Handle(slot: 0, generation: 2, index: 1)

  static let status = StatusReport(
    node: "re0", slot: 0, role: .primary, mastership: "primary, peer in step", lease: .timed, term: 4,
    peer: .init(node: "re1", slot: 1, linkUp: true, linkVersion: 2, role: .secondary, inStep: true), arbiter: "pair",
    mode: "overlap", addresses: ["5.5.5.5/24"], uplinks: [.init(name: "eth0", running: true)],
    version: "0.1", uptimeMilliseconds: 12_345)

  static func socket(_ index: UInt32) -> SocketReport {
    SocketReport(
      handle: Handle(slot: 0, generation: index, index: index), peerHandle: index % 2 == 0 ? nil : handle,
      role: .primary, state: .replicating, application: "jsrutil", proto: "tcp", local: "5.5.5.5:16000",
      foreign: "5.5.5.4:\(40_000 + index % 20_000)", sdrl: .init(initialized: true, logPosition: 17),
      prl: .init(initialized: true, logPosition: 18), psrm: .init(initialized: false, logPosition: 0))
  }

  static func connection(_ index: UInt32) -> ConnectionReport {
    ConnectionReport(
      proto: "tcp", receiveQueue: 0, sendQueue: 112, local: "5.5.5.5:16000", foreign: "5.5.5.4:40000",
      state: "ESTABLISHED", role: .primary, handle: Handle(slot: 0, generation: index, index: index),
      sendUnacknowledged: 4_294_967_295, sendNext: 111, receiveNext: index, sendWindow: 65_535,
      receiveWindow: 65_536, receiveRightEdge: 65_536 &+ index, maximumSegmentSize: 1448, sendWindowScale: 7,
      receiveWindowScale: nil, sack: true, timestamps: true, timestampRecent: 5, timestampLast: 6)
  }

  static let bodies: [ControlReply.Body] = [
    .done, .welcome(.init(node: "re0", slot: 1, engineVersion: "0.1")), .handle(handle), .status(status),
    .socket(socket(1)), .sockets([]), .sockets([socket(0), socket(1)]), .connections([connection(3)]),
    .statistics([.init(layer: "sdrl", name: "held_packets", value: -1, unit: "packets")]),
    .memory([.init(area: "hold_buffer", used: 1 << 40, limit: nil, unit: "bytes")]),
    .setting(.init(name: .psrmTimeout, value: "500ms")), .recordChannel(limit: 1 << 20),
  ]

  static func read(_ message: [UInt8]) throws -> ControlReply {
    guard case .reply(let reply) = try EngineMessage(reading: message) else {
      throw ControlError(.malformed, "not a reply")
    }
    return reply
  }

  @Test("of every kind is read back as it was written", arguments: bodies)
  func roundTrip(_ body: ControlReply.Body) throws {
    let reply = ControlReply(id: 3, outcome: .success(body))
    var pages = ReplyPages(reply)
    let first = pages.next()
    let message = try #require(first)
    #expect(pages.next() == nil)
    #expect(try Self.read(message) == reply)
  }

  @Test("that refuses carries a code and a message, cut to a length that fits")
  func refusal() throws {
    var pages = ReplyPages(
      ControlReply(
        id: 8, outcome: .failure(ControlError(.wrongState, String(repeating: "ä", count: 100_000)))))
    let first = pages.next()
    let message = try #require(first)
    #expect(message.count < 2048)
    let reply = try Self.read(message)
    guard case .failure(let error) = reply.outcome else {
      Issue.record("the refusal was lost")
      return
    }
    #expect(reply.id == 8)
    #expect(error.code == .wrongState)
    #expect(error.message.hasPrefix("ääää"))
  }

  @Test("with a code of a newer engine still says its message")
  func newerCode() throws {
    let json = #"{"version":1,"id":1,"more":false,"error":{"code":"quantum","message":"no"}}"#
    #expect(
      try Self.read(Array(json.utf8)) == ControlReply(id: 1, outcome: .failure(ControlError(.other, "no"))))
  }

  @Test("has the fields that others script against")
  func fields() throws {
    let document = try ControlReply.Body.connections([Self.connection(3)]).document()
    #expect(
      document == #"""
        [{"foreign":"5.5.5.4:40000","handle":"0x300000003","local":"5.5.5.5:16000","mss":1448,"proto":"tcp",\#
        "rcv_nxt":3,"rcv_right_edge":65539,"rcv_wnd":65536,"recv_q":0,"role":"primary","sack":true,"send_q":112,\#
        "snd_nxt":111,"snd_una":4294967295,"snd_wnd":65535,"snd_wscale":7,"state":"ESTABLISHED",\#
        "timestamps":true,"ts_last":6,"ts_recent":5}]
        """#)
    #expect(
      try ControlReply.Body.status(Self.status).document() == #"""
        {"addresses":["5.5.5.5/24"],"arbiter":"pair","lease":"timed","mastership":"primary, peer in step",\#
        "mode":"overlap","node":"re0","peer":{"in_step":true,"link_up":true,"link_version":2,"node":"re1",\#
        "role":"secondary","slot":1},"role":"primary","slot":0,"term":4,"uplinks":[{"name":"eth0","running":true}],\#
        "uptime_ms":12345,"version":"0.1"}
        """#)
    #expect(
      try ControlReply.Body.sockets([Self.socket(1)]).document() == #"""
        [{"application":"jsrutil","foreign":"5.5.5.4:40001","handle":"0x100000001","local":"5.5.5.5:16000",\#
        "peer_handle":"0x200000001","prl":{"initialized":true,"log_position":18},"proto":"tcp",\#
        "psrm":{"initialized":false,"log_position":0},"role":"primary","sdrl":{"initialized":true,\#
        "log_position":17},"state":"replicating"}]
        """#)
  }

  @Test("has the fields that others script against, for settings and memory")
  func settingFields() throws {
    #expect(
      try ControlReply.Body.setting(.init(name: .prlTimeout, value: "500ms")).document()
        == #"{"name":"prl.timeout","value":"500ms"}"#)
    let areas = [
      MemoryReport(area: "hold_buffer", used: 7, limit: 67_108_864, unit: "bytes"),
      MemoryReport(area: "resident", used: 8, limit: nil, unit: "bytes"),
    ]
    #expect(
      try ControlReply.Body.memory(areas).document() == #"""
        [{"area":"hold_buffer","limit":67108864,"unit":"bytes","used":7},\#
        {"area":"resident","unit":"bytes","used":8}]
        """#)
    #expect(try ControlReply.Body.done.document() == "{}")
  }

  @Test(
    "too long for a message comes in several, and is whole again when they are joined",
    arguments: [1, 150, 151, 5000])
  func pages(_ count: UInt32) throws {
    let list = (0..<count).map(Self.connection)
    var pages = ReplyPages(ControlReply(id: 77, outcome: .success(.connections(list))))
    var whole: ControlReply?
    var messages = 0
    while let message = pages.next() {
      messages += 1
      #expect(message.count <= ControlProtocol.messageLimit)
      let part = try Self.read(message)
      #expect(part.id == 77)
      #expect(whole?.more != false, "a message came after the one that said it was the last")
      if whole == nil { whole = part } else { try whole?.append(part) }
    }
    #expect(whole == ControlReply(id: 77, outcome: .success(.connections(list))))
    // Full pages: no more of them than the bytes need, give or take one.
    #expect(messages <= 1 + Int(count) * 400 / ControlProtocol.messageLimit * 2)
  }

  @Test("with an element that no message can hold becomes a refusal")
  func hugeElement() throws {
    var giant = Self.socket(1)
    giant.application = String(repeating: "x", count: ControlProtocol.messageLimit)
    var pages = ReplyPages(ControlReply(id: 5, outcome: .success(.sockets([giant]))))
    let first = pages.next()
    let reply = try Self.read(try #require(first))
    guard case .failure(let error) = reply.outcome else {
      Issue.record("a message longer than the limit was made")
      return
    }
    #expect(error.code == .oversized)
    #expect(pages.next() == nil)
  }

  @Test("in parts that do not belong together is refused by the reader")
  func strangers() {
    var head = ControlReply(id: 1, more: true, outcome: .success(.sockets([Self.socket(1)])))
    #expect(throws: ControlError.self) {
      try head.append(ControlReply(id: 1, outcome: .success(.connections([]))))
    }
    #expect(throws: ControlError.self) { try head.append(ControlReply(id: 1, outcome: .success(.done))) }
  }

  @Test("of another version is refused by the reader")
  func version() throws {
    let error = try #require(throws: ControlError.self) {
      try EngineMessage(reading: Array(#"{"version":2,"id":1,"more":false,"result":{}}"#.utf8))
    }
    #expect(error.code == .version)
  }
}

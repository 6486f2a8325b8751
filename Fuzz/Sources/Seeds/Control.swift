import Control
import Replication

extension Seeds {
  static func controlSeeds() -> [[UInt8]] {
    requests + replies + events + [Array("0x100001d00000000".utf8), Array("[]".utf8)]
  }

  private static let handle = Handle(slot: 1, generation: 29, index: 0)

  private static var requests: [[UInt8]] {
    let bodies: [ControlRequest.Body] = [
      .hello(application: "bird", protocolVersion: 1), .allocate, .free(handle), .attach(primary: handle),
      .replicate(primary: handle, secondary: handle), .unreplicate(handle), .merge(handle), .close(handle),
      .beginRecords(handle), .registerService("echo"), .unregisterService("echo"),
      .requestReplication(primary: handle, service: "echo", note: [1, 2]),
      .acceptReplication(primary: handle),
      .declineReplication(primary: handle, reason: "not now"),
      .status(handle), .subscribe(.own), .subscribe(.all),
      .hello(application: "jsrctl", protocolVersion: 1, role: .operator),
      .set(name: "prl.timeout", value: "500ms"), .get(name: "mode"), .logLevel(.debug),
      .holdAcknowledgements(of: .psrm, isOn: true),
    ]
    let all =
      bodies + ControlRequest.Report.allCases.map { .show($0) }
      + ControlRequest.MastershipAction.allCases.map { .master($0) }
    return all.compactMap { try? ControlRequest(id: 7, body: $0).message() }
  }

  private static var replies: [[UInt8]] {
    let status = StatusReport(
      node: "re0", slot: 0, role: .primary, mastership: "primary", lease: .timed, term: 4,
      peer: .init(node: "re1", slot: 1, linkUp: true, role: .secondary, inStep: true), arbiter: "pair",
      mode: "overlap", addresses: ["5.5.5.5/24"], uplinks: [.init(name: "eth0", running: true)],
      version: "0.1", uptimeMilliseconds: 12_345)
    let socket = SocketReport(
      handle: handle, peerHandle: handle, role: .primary, state: .replicating, application: "jsrutil",
      proto: "tcp", local: "5.5.5.5:16000", foreign: "5.5.5.4:40000",
      sdrl: .init(initialized: true, logPosition: 17), prl: .init(initialized: true, logPosition: 18),
      psrm: .init(initialized: false, logPosition: 0))
    let connection = ConnectionReport(
      proto: "tcp", receiveQueue: 0, sendQueue: 112, local: "5.5.5.5:16000", foreign: "5.5.5.4:40000",
      state: "ESTABLISHED", role: .primary, handle: handle, sendUnacknowledged: .max, sendNext: 111,
      receiveNext: 3, sendWindow: 65_535, receiveWindow: 65_536, receiveRightEdge: 65_539,
      maximumSegmentSize: 1448, sendWindowScale: 7, receiveWindowScale: nil, sack: true, timestamps: true,
      timestampRecent: 5, timestampLast: 6)
    let figure = StatisticsReport(layer: "sdrl", name: "held_packets", value: -1, unit: "packets")
    let bodies: [ControlReply.Body] = [
      .done, .welcome(.init(node: "re0", slot: 1, engineVersion: "0.1")), .handle(handle), .status(status),
      .socket(socket), .sockets([]), .sockets([socket, socket]), .connections([connection, connection]),
      .statistics([figure, figure]),
    ]
    let outcomes: [Result<ControlReply.Body, ControlError>] =
      bodies.map { .success($0) } + [.failure(ControlError(.wrongState, "ä \"line\"\n"))]
    return outcomes.compactMap { outcome in
      var pages = ReplyPages(ControlReply(id: 3, outcome: outcome))
      return pages.next()
    }
  }

  private static var events: [[UInt8]] {
    let kinds: [ControlEvent.Kind] = [
      .replicated(handle), .unreplicated(handle, reason: "PRL timeout"), .secondaryUp,
      .secondaryDown(reason: "silent"), .mastershipGained, .mastershipLost(reason: "switched"),
      .peerClosed(handle), .missed(count: 12), .serviceAvailable("echo"), .serviceUnavailable("echo"),
      .replicationRequested(
        .init(
          service: "echo", primary: handle, local: "5.5.5.5:16000", foreign: "5.5.5.4:40000", note: [1, 2])),
      .requestWithdrawn(service: "echo", primary: handle),
    ]
    return kinds.compactMap { try? ControlEvent($0, timeMilliseconds: 1_700_000_000_000).message() }
  }
}

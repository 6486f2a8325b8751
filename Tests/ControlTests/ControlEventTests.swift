import Control
import Replication
import Testing

@Suite("An event")
struct ControlEventTests {
  static let handle = Handle(slot: 1, generation: 2, index: 3)
  static let kinds: [(ControlEvent.Kind, String)] = [
    (.replicated(handle), #"{"event":"replicated","handle":"0x100000200000003","time_ms":5,"version":1}"#),
    (
      .unreplicated(handle, reason: "prl timeout"),
      #"{"event":"unreplicated","handle":"0x100000200000003","reason":"prl timeout","time_ms":5,"version":1}"#
    ),
    (.secondaryUp, #"{"event":"secondary_up","time_ms":5,"version":1}"#),
    (
      .secondaryDown(reason: "silent"),
      #"{"event":"secondary_down","reason":"silent","time_ms":5,"version":1}"#
    ),
    (.mastershipGained, #"{"event":"mastership_gained","time_ms":5,"version":1}"#),
    (
      .mastershipLost(reason: "switched"),
      #"{"event":"mastership_lost","reason":"switched","time_ms":5,"version":1}"#
    ),
    (.peerClosed(handle), #"{"event":"peer_closed","handle":"0x100000200000003","time_ms":5,"version":1}"#),
    (.serviceAvailable("echo"), #"{"event":"service_available","service":"echo","time_ms":5,"version":1}"#),
    (
      .serviceUnavailable("echo"),
      #"{"event":"service_unavailable","service":"echo","time_ms":5,"version":1}"#
    ),
    (
      .replicationRequested(
        .init(service: "echo", primary: handle, local: "5.5.5.5:1", foreign: "5.5.5.4:2", note: [0, 255])),
      #"{"event":"replication_requested","foreign":"5.5.5.4:2","local":"5.5.5.5:1","note":[0,255],"primary":"0x100000200000003","service":"echo","time_ms":5,"version":1}"#
    ),
    (
      .requestWithdrawn(service: "echo", primary: handle),
      #"{"event":"request_withdrawn","primary":"0x100000200000003","service":"echo","time_ms":5,"version":1}"#
    ),
    (.missed(count: 12), #"{"count":12,"event":"missed","time_ms":5,"version":1}"#),
  ]

  @Test("is the JSON document that monitor prints, and is read back as it was", arguments: kinds)
  func document(_ kind: ControlEvent.Kind, _ json: String) throws {
    let event = ControlEvent(kind, timeMilliseconds: 5)
    #expect(String(decoding: try event.message(), as: UTF8.self) == json)
    #expect(try EngineMessage(reading: Array(json.utf8)) == .event(event))
  }
}

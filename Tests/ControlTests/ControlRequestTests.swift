import Control
import Foundation
import Replication
import Testing

@Suite("A request")
struct ControlRequestTests {
  static let handle = Handle(slot: 1, generation: 0x1d, index: 0)
  static let other = Handle(slot: 0, generation: 7, index: 3)

  static let bodies: [(ControlRequest.Body, String)] = [
    (
      .hello(application: "bird", protocolVersion: 1),
      #"{"application":"bird","id":9,"protocol_version":1,"request":"hello","version":1}"#
    ),
    (
      .hello(application: "jsrctl", protocolVersion: 1, role: .operator),
      #"{"application":"jsrctl","id":9,"protocol_version":1,"request":"hello","role":"operator","version":1}"#
    ),
    (
      .set(name: "prl.timeout", value: "500ms"),
      #"{"id":9,"name":"prl.timeout","request":"set","value":"500ms","version":1}"#
    ),
    (.get(name: "mode"), #"{"id":9,"name":"mode","request":"get","version":1}"#),
    (.logLevel(.debug), #"{"id":9,"level":"debug","request":"log_level","version":1}"#),
    (
      .holdAcknowledgements(of: .psrm, isOn: true),
      #"{"id":9,"layer":"psrm","on":true,"request":"hold_acknowledgements","version":1}"#
    ),
    (.show(.memory), #"{"id":9,"report":"memory","request":"show","version":1}"#),
    (.allocate, #"{"id":9,"request":"allocate","version":1}"#),
    (.free(handle), #"{"handle":"0x100001d00000000","id":9,"request":"free","version":1}"#),
    (.attach(primary: handle), #"{"id":9,"primary":"0x100001d00000000","request":"attach","version":1}"#),
    (
      .replicate(primary: other, secondary: handle),
      #"{"id":9,"primary":"0x700000003","request":"replicate","secondary":"0x100001d00000000","version":1}"#
    ),
    (.unreplicate(handle), #"{"handle":"0x100001d00000000","id":9,"request":"unreplicate","version":1}"#),
    (.merge(handle), #"{"handle":"0x100001d00000000","id":9,"request":"merge","version":1}"#),
    (
      .merge(handle, signingKey: [0, 1, 0xfe]),
      #"{"handle":"0x100001d00000000","id":9,"request":"merge","signing_key":"AAH+","version":1}"#
    ),
    (.close(handle), #"{"handle":"0x100001d00000000","id":9,"request":"close","version":1}"#),
    (.registerService("echo"), #"{"id":9,"request":"register_service","service":"echo","version":1}"#),
    (.unregisterService("echo"), #"{"id":9,"request":"unregister_service","service":"echo","version":1}"#),
    (
      .requestReplication(primary: handle, service: "echo", note: [0, 255]),
      #"{"id":9,"note":[0,255],"primary":"0x100001d00000000","request":"request_replication","service":"echo","version":1}"#
    ),
    (
      .requestReplication(primary: handle, service: "echo", note: []),
      #"{"id":9,"primary":"0x100001d00000000","request":"request_replication","service":"echo","version":1}"#
    ),
    (
      .acceptReplication(primary: handle),
      #"{"id":9,"primary":"0x100001d00000000","request":"accept_replication","version":1}"#
    ),
    (
      .declineReplication(primary: handle, reason: "busy"),
      #"{"id":9,"primary":"0x100001d00000000","reason":"busy","request":"decline_replication","version":1}"#
    ),
    (.beginRecords(handle), #"{"handle":"0x100001d00000000","id":9,"request":"begin_records","version":1}"#),
    (.status(handle), #"{"handle":"0x100001d00000000","id":9,"request":"status","version":1}"#),
    (.subscribe(.own), #"{"id":9,"request":"subscribe","scope":"own","version":1}"#),
    (.show(.connections), #"{"id":9,"report":"connections","request":"show","version":1}"#),
    (.master(.switch), #"{"action":"switch","id":9,"request":"master","version":1}"#),
  ]

  @Test("is the JSON document that others script against, and is read back as it was", arguments: bodies)
  func document(_ body: ControlRequest.Body, _ json: String) throws {
    let request = ControlRequest(id: 9, body: body)
    #expect(String(decoding: try request.message(), as: UTF8.self) == json)
    #expect(try ControlRequest(reading: Array(json.utf8)) == request)
  }

  @Test("comes with a descriptor only where a socket is handed over")
  func descriptors() {
    for (body, _) in Self.bodies {
      let expected =
        switch body {
        case .replicate, .requestReplication: 1
        default: 0
        }
      #expect(ControlRequest(id: 1, body: body).descriptorCount == expected)
    }
  }

  @Test(
    "that cannot be read is refused with its id, a code, and the name of what is wrong",
    arguments: [
      ("", 0, RefusalCode.malformed, "not a JSON document"),
      ("hello", 0, .malformed, "not a JSON document"),
      ("[]", 0, .malformed, "not a JSON object"),
      (#"{"version":1"#, 0, .malformed, "not a JSON document"),
      (#"{"id":5}"#, 5, .malformed, "\"version\" is missing"),
      (#"{"version":"1","id":5}"#, 0, .malformed, "\"version\" is not of type Int"),
      (#"{"version":2,"id":5,"request":"allocate"}"#, 5, .version, "version 2"),
      (#"{"version":1,"request":"allocate"}"#, 0, .malformed, "\"id\" is missing"),
      (#"{"version":1,"id":-5,"request":"allocate"}"#, 0, .malformed, "not a JSON document"),
      (#"{"version":1,"id":5}"#, 5, .malformed, "\"request\" is missing"),
      (#"{"version":1,"id":5,"request":"destroy"}"#, 5, .malformed, "there is no request \"destroy\""),
      (#"{"version":1,"id":5,"request":"free"}"#, 5, .malformed, "\"handle\" is missing"),
      (#"{"version":1,"id":5,"request":"free","handle":17}"#, 5, .malformed, "\"handle\" is not of type"),
      (#"{"version":1,"id":5,"request":"free","handle":"17"}"#, 5, .malformed, "\"17\" is not a handle"),
      (
        #"{"version":1,"id":5,"request":"free","handle":"0x10000000000000000"}"#, 5, .malformed,
        "is not a handle"
      ),
      (#"{"version":1,"id":5,"request":"show","report":"all"}"#, 5, .malformed, "there is no report \"all\""),
      (
        #"{"version":1,"id":5,"request":"hello","application":"x","protocol_version":1,"role":"king"}"#, 5,
        .malformed, "there is no role \"king\""
      ),
      (#"{"version":1,"id":5,"request":"set","name":"prl.timeout"}"#, 5, .malformed, "\"value\" is missing"),
      (
        #"{"version":1,"id":5,"request":"set","name":"prl.timeout","value":5}"#, 5, .malformed,
        "\"value\" is not of type String"
      ),
      (#"{"version":1,"id":5,"request":"get"}"#, 5, .malformed, "\"name\" is missing"),
      (
        #"{"version":1,"id":5,"request":"log_level","level":"loud"}"#, 5, .malformed,
        "there is no level \"loud\""
      ),
      (
        #"{"version":1,"id":5,"request":"hold_acknowledgements","layer":"iha","on":true}"#, 5, .malformed,
        "there is no layer \"iha\""
      ),
      (
        #"{"version":1,"id":5,"request":"hold_acknowledgements","layer":"prl","on":"yes"}"#, 5, .malformed,
        "\"on\" is not of type Bool"
      ),
      (
        #"{"version":1,"id":5,"request":"master","action":"win"}"#, 5, .malformed,
        "there is no action \"win\""
      ),
    ])
  func unreadable(_ json: String, _ id: UInt64, _ code: RefusalCode, _ says: String) throws {
    let error = try #require(throws: ControlRequest.Unreadable.self) {
      try ControlRequest(reading: Array(json.utf8))
    }
    #expect(error.id == id)
    #expect(error.error.code == code)
    #expect(error.error.message.contains(says), "says: \(error.error.message)")
  }

  @Test("of an application is not for an operator, nor the other way round")
  func roles() {
    for (body, _) in Self.bodies {
      let expected: (application: Bool, operator: Bool) =
        switch body {
        case .allocate, .free, .attach, .replicate, .merge, .close, .beginRecords, .registerService,
          .unregisterService, .requestReplication, .acceptReplication, .declineReplication:
          (true, false)
        case .set, .logLevel, .holdAcknowledgements: (false, true)
        default: (true, true)
        }
      #expect(body.isAllowed(to: .application) == expected.application, "\(body)")
      #expect(body.isAllowed(to: .operator) == expected.operator, "\(body)")
    }
  }

  @Test("of random bytes is refused and nothing worse")
  func garbage() {
    var generator = SystemRandomNumberGenerator()
    for _ in 0..<2000 {
      var bytes = [UInt8](#"{"version":1,"id":5,"request":"free","handle":"0x1"}"#.utf8)
      for _ in 0..<4 { bytes[Int.random(in: 0..<bytes.count, using: &generator)] = .random(in: 0...255) }
      do throws(ControlRequest.Unreadable) {
        _ = try ControlRequest(reading: bytes)
      } catch {
        #expect(!error.error.message.isEmpty)
      }
    }
  }
}

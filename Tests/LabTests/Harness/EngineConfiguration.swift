/// The configuration of one engine of the lab: what jsrd's defaults are not for the lab, and what a case
/// wants to be otherwise.
struct EngineConfiguration: Sendable {
  /// Fault injection is allowed.
  var debug = false

  enum Mode: String, Sendable, CaseIterable { case overlap, strict }

  var mode = Mode.overlap
  var uplinks = ["eth0"]
  /// The lab whose routing instance blue the engine serves, a network namespace, beside that of its own.
  var blueOf: String?
  /// The engine serves a routing instance blue that is a VRF of this device, with eth1, over IPv4.
  var vrf: String?
  var logLevel = "info"
  /// `limits.sockets`; `nil` for jsrd's default.
  var socketLimit: Int?
  /// re1 finds re0 behind a relay on this port of its own.
  var relayPort: UInt16?

  /// `link.min-version` and `link.max-version`; `nil` for all that the engine speaks.
  var linkVersions: ClosedRange<Int>?
  /// Where the keys of the link are; `nil` for those that all labs share.
  var keys: String?
  /// The name in this engine's certificate; `nil` for the usual one.
  var certificateName: String?
  /// The link is plain text.
  var insecure = false

  /// What becomes of the sockets of an application that dies.
  enum ApplicationFailurePolicy: String, Sendable, CaseIterable { case switchover, close }

  /// `nil` leaves it to the default.
  var onApplicationFailure: ApplicationFailurePolicy?

  /// The file for one engine; re0 has the higher priority and starts as primary.
  func text(for node: Node) throws -> String {
    let isFirst = node == .re0
    let keys = try keys ?? LinkKeyFiles.shared
    let files = "certificate: \(keys)/\(node).pem, key: \(keys)/\(node).key, ca: \(keys)/ca.pem"
    let tls = "tls: { \(files)\(certificateName.map { ", name: \($0)" } ?? "") }"
    let addresses = Family.allCases.map { "\"\($0.prefix)\"" }.joined(separator: ", ")
    let instance =
      blueOf.map {
        "{ name: blue, netns: jsr-\($0)-\(node.rawValue)-blue, addresses: [ \(addresses) ], uplinks: [ eth0 ] }"
      } ?? vrf.map { "{ name: blue, vrf: \($0), addresses: [ \(Family.v4.prefix) ], uplinks: [ eth1 ] }" }
    return """
      node: \(node.rawValue)
      slot: \(isFirst ? 0 : 1)
      link:
        listen: \(isFirst ? "10.77.0.1" : "10.77.0.2"):7000
        connect: \(isFirst ? "10.77.0.2:7000" : relayPort.map { "10.77.0.2:\($0)" } ?? "10.77.0.1:7000")
        \(insecure ? "insecure: true" : tls)
        \(linkVersions.map { "min-version: \($0.lowerBound)\n  max-version: \($0.upperBound)" } ?? "")
      addresses: [ \(addresses) ]
      uplinks: [ \(uplinks.joined(separator: ", ")) ]
      \(instance.map { "instances: [ \($0) ]" } ?? "")
      debug: \(debug)
      mastership:
        arbiter: pair
        priority: \(isFirst ? 100 : 90)
        keepalive: { interval: 100ms, misses: 3 }
      control: /run/jsr/jsrd.sock
      mode: \(mode.rawValue)
      log: { level: \(logLevel), destination: stderr }
      \(socketLimit.map { "limits: { sockets: \($0) }" } ?? "")

      """ + (onApplicationFailure.map { "on-application-failure: \($0.rawValue)\n" } ?? "")
  }
}

import ArgumentParser
import Samples

@main
struct MiniInstanceCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "jsrutil_mini",
    abstract:
      "Exchanges short numbered text messages over a replicated UDP socket, or follows the instance that does.",
    discussion: """
      To be started on both REs with the same PEER and PORT; the two instances meet through the engines. After a \
      switchover the one that followed goes on with the next number. SIGINT and SIGTERM end it; the exit status is 0 \
      only if no message of the peer came twice.
      """)

  @Option(
    help: ArgumentHelp(
      "The replicated address; by default the one that packets to PEER leave from.", valueName: "address"))
  var local: String?
  @Option(
    help: ArgumentHelp("The device of a VRF that the peer is in; needs --local.", valueName: "device"))
  var vrf: String?
  @Option(name: .customShort("p"), help: "The local port, the same on both REs.")
  var port: UInt16 = 16001
  @Flag(help: "Do not connect the socket: send to PEER by address.")
  var unconnected = false
  @Option(name: .customShort("w"), help: "Milliseconds between two messages.")
  var pause: UInt32 = 100
  @Option(name: .customShort("l"), help: "Bytes of blanks behind each message; many make fragments of it.")
  var length = 0
  @Option(
    help: ArgumentHelp(
      "The name to meet by, instead of jsrutil_mini:PORT; for several routing instances.", valueName: "name"))
  var service: String?
  @Option(help: ArgumentHelp("The engine's control socket.", valueName: "path"))
  var socket = EchoServerOptions.defaultControlSocket
  @Flag(help: "Print no line for each message.")
  var quiet = false
  @Argument(help: "The peer's address or name.")
  var peer: String
  @Argument(help: ArgumentHelp("The peer's UDP port.", valueName: "port"))
  var peerPort: UInt16
  @Argument(
    help: ArgumentHelp("0: begin as the primary instance; 1: as the secondary one.", valueName: "0|1"))
  var part: Int

  func validate() throws {
    guard part == 0 || part == 1 else {
      throw ValidationError("the last argument is 0 (primary) or 1 (secondary)")
    }
    guard vrf == nil || local != nil else { throw ValidationError("--vrf needs --local") }
    guard port > 0, peerPort > 0 else { throw ValidationError("ports are between 1 and 65535") }
    guard pause > 0 else { throw ValidationError("-w must be at least 1") }
    guard (0...65_000).contains(length) else { throw ValidationError("-l must be between 0 and 65000") }
  }

  func run() throws {
    var options = MiniInstance.Options(peer: peer, peerPort: peerPort, isPrimary: part == 0)
    options.local = local
    options.vrf = vrf
    options.localPort = port
    options.isUnconnected = unconnected
    options.pauseMilliseconds = UInt64(pause)
    options.padding = length
    options.service = service
    options.controlSocket = socket
    options.isQuiet = quiet
    if try !MiniInstance(options).run() { throw ExitCode(1) }
  }
}

import ArgumentParser
import Samples

extension EchoServerOptions.Mode: ExpressibleByArgument {}

@main
struct EchoServerCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "jsrutil",
    abstract: "An echo server that replicates every connection to its other instance on the other RE.",
    discussion: """
      SIGINT and SIGTERM end it in order: the peers of all its connections see a FIN. To move connections \
      without closing them, move mastership first: jsrctl request master switch.
      """)

  @Option(
    name: .customShort("a"),
    help: """
      nsr_server: the primary instance; nsr_client: the snooping one; jsr_echo_server: whichever mastership \
      makes it.
      """)
  var mode = EchoServerOptions.Mode.byMastership
  @Option(name: .customShort("p"), help: "Port for peers.")
  var port: UInt16 = 16000
  @Option(
    help: ArgumentHelp(
      "Address for peers, instead of all of this machine, IPv4 and IPv6; :: takes both with one socket.",
      valueName: "address"))
  var listen: String?
  @Option(help: ArgumentHelp("The device of a VRF to listen for peers in.", valueName: "device"))
  var vrf: String?
  @Option(help: ArgumentHelp("Port of the channel between the two instances.", valueName: "port"))
  var orePort: UInt16 = 17000
  @Option(
    help: ArgumentHelp(
      "The other RE's address on the inter-RE link. Only an instance that stays primary can do without.",
      valueName: "address"))
  var ore: String?
  @Option(
    help: ArgumentHelp(
      "This RE's address on the inter-RE link, to listen there only.", valueName: "address"))
  var oreListen: String?
  @Flag(help: "Meet the other instance through the engines, without a channel; --ore is not needed then.")
  var rendezvous = false
  @Option(
    help: ArgumentHelp(
      "The name to meet by, instead of jsrutil:PORT; for servers in several routing instances.",
      valueName: "name"))
  var service: String?
  @Option(help: ArgumentHelp("Stop replicating each connection after so many messages.", valueName: "n"))
  var unreplicateAfter: UInt64?
  @Flag(name: .customShort("v"), help: "Verify the pattern of every payload.")
  var verbose = false
  @Option(help: ArgumentHelp("The engine's control socket.", valueName: "path"))
  var socket = EchoServerOptions.defaultControlSocket
  @Flag(help: "No replication: an ordinary echo server.")
  var plain = false
  @Option(help: ArgumentHelp("The slot to answer with, 0 or 1, instead of the engine's.", valueName: "slot"))
  var node: UInt8?
  @Flag(help: "Send echoes through the record interface while a connection is replicated.")
  var records = false
  @Option(
    help: ArgumentHelp(
      "Sign every segment with this key (TCP_MD5SIG), which peers must have too.", valueName: "key"))
  var md5: String?
  @Flag(help: "One line a second instead of a line for each connection and message.")
  var quiet = false

  func validate() throws {
    guard plain || rendezvous || mode == .primary || ore != nil else {
      throw ValidationError(
        "--ore is missing: the instance on the other RE must be known to \(mode.rawValue)")
    }
    guard md5.map({ (1...80).contains($0.utf8.count) }) ?? true else {
      throw ValidationError("--md5 takes a key of 1 to 80 bytes")
    }
    guard (node ?? 0) <= 1 else { throw ValidationError("--node must be 0 or 1") }
    guard unreplicateAfter != 0 else { throw ValidationError("--unreplicate-after must be at least 1") }
  }

  func run() throws {
    var options = EchoServerOptions()
    options.mode = mode
    options.controlSocket = socket
    options.port = port
    options.listenAddress = listen
    options.vrf = vrf
    options.channelPort = orePort
    options.channelListenAddress = oreListen
    options.otherAddress = ore
    options.unreplicateAfter = unreplicateAfter
    options.isPlain = plain
    options.serviceName = service
    options.slot = node
    options.verifiesPayload = verbose
    options.signingKey = md5.map { Array($0.utf8) }
    options.isQuiet = quiet
    options.givesRecords = records
    options.usesRendezvous = rendezvous
    try EchoServer(options).run()
  }
}

import ArgumentParser
import Samples

extension TrafficPeerOptions.Kind: ExpressibleByArgument {}

@main
struct PeerCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "jsrpeer",
    abstract: "Sends messages over TCP and checks every byte that comes back.",
    discussion: """
      The exit status is 0 only if every message of every connection came back right, and there was at least \
      one on each. SIGINT and SIGTERM stop the sending; answers that are out are awaited for up to 5 seconds. \
      SIGHUP begins anew what is measured: times, gaps, bytes.
      """)

  @Option(name: .customShort("n"), help: "How many connections, at most 65536.")
  var connections = 5
  @Option(name: .customShort("m"), help: "Messages on each connection, 0 for no end.")
  var messages: UInt32 = 1
  @Option(name: .customShort("l"), help: "Payload bytes of each message; 12 bytes of header are added.")
  var length: UInt32 = 100
  @Option(name: .customShort("w"), help: "Milliseconds between an answer and the next message.")
  var pause: UInt32 = 0
  @Option(name: .customShort("p"), help: "The server's port.")
  var port: UInt16 = 16000
  @Flag(name: .customShort("v"), help: "Print what was verified.")
  var verbose = false
  @Option(help: ArgumentHelp("Local address to connect from.", valueName: "address"))
  var source: String?
  @Option(help: ArgumentHelp("Stop sending after so many seconds.", valueName: "seconds"))
  var duration: Double?
  @Option(help: "What the server does with a message: echo it, sink it, or be the source of its payload.")
  var kind = TrafficPeerOptions.Kind.echo
  @Option(help: ArgumentHelp("Messages on their way at once on each connection.", valueName: "count"))
  var pipeline = 1
  @Option(
    help: ArgumentHelp(
      "How often each connection is closed and made again after its messages.", valueName: "n"))
  var rounds: UInt64 = 1
  @Flag(help: "Close the sending direction after the last message and expect the server to do the same.")
  var halfClose = false
  @Option(
    help: ArgumentHelp(
      "Sign every segment with this key (TCP_MD5SIG), which the server must have too.", valueName: "key"))
  var md5: String?
  @Flag(help: "Print no line for each message.")
  var quiet = false
  @Flag(help: "Print the summary as one line of JSON.")
  var json = false
  @Argument(
    help: ArgumentHelp(
      "The server's address or name, IPv4 or IPv6; with several, the connections go to them in turn.",
      valueName: "host"))
  var hosts: [String]

  func validate() throws {
    guard (1...65536).contains(connections) else {
      throw ValidationError("-n must be between 1 and 65536")
    }
    guard (1...65536).contains(pipeline) else {
      throw ValidationError("--pipeline must be between 1 and 65536")
    }
    guard md5.map({ (1...80).contains($0.utf8.count) }) ?? true else {
      throw ValidationError("--md5 takes a key of 1 to 80 bytes")
    }
    guard rounds >= 1 else { throw ValidationError("--rounds must be at least 1") }
    guard duration.map({ $0 > 0 && $0 <= 1e8 }) ?? true else {
      throw ValidationError("--duration must be between 0 and 100000000 seconds")
    }
    guard messages != 0 || rounds == 1 else {
      throw ValidationError("endless messages (-m 0) leave nothing for a second round")
    }
  }

  func run() throws {
    var options = TrafficPeerOptions(hosts: hosts)
    options.port = port
    options.sourceAddress = source
    options.connections = connections
    options.messages = messages
    options.length = length
    options.pauseMilliseconds = UInt64(pause)
    options.pipeline = pipeline
    options.rounds = rounds
    options.duration = duration
    options.kind = kind
    options.halfCloses = halfClose
    options.isVerbose = verbose
    options.signingKey = md5.map { Array($0.utf8) }
    options.isQuiet = quiet
    options.printsJSON = json
    let summary = try TrafficPeer(options).run()
    if !summary.isClean { throw ExitCode(1) }
  }
}

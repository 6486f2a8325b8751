import ArgumentParser
import Samples

@main
struct MiniPeerCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "jsrpeer_mini",
    abstract: "Exchanges short numbered text messages over UDP with whoever sends it some.",
    discussion: """
      The exit status is 0 only if every number of every partner came once and in order. SIGINT and SIGTERM end it \
      with a summary.
      """)

  @Option(name: .customShort("w"), help: "Milliseconds between two messages to a partner.")
  var pause: UInt32 = 100
  @Flag(help: "Print no line for each message.")
  var quiet = false
  @Argument(help: "The UDP port to listen at.")
  var port: UInt16

  func validate() throws {
    guard port > 0 else { throw ValidationError("PORT must be between 1 and 65535") }
    guard pause > 0 else { throw ValidationError("-w must be at least 1") }
  }

  func run() throws {
    var options = MiniPeer.Options(port: port)
    options.pauseMilliseconds = UInt64(pause)
    options.isQuiet = quiet
    var peer = MiniPeer(options)
    if try !peer.run() { throw ExitCode(1) }
  }
}

import ArgumentParser
import Control

extension ControlRequest.Report: ExpressibleByArgument {}

struct Show: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Shows a report.",
    discussion: """
      status       role, mastership, lease, the other routing engine, uplinks
      sockets      a line for each handle: state, addresses, what each layer holds
      connections  a line for each replicated connection: queues, sequence numbers, windows, options
      statistics   counts and levels of each layer
      memory       what takes memory, and how much it may take at most
      """)

  @OptionGroup var engine: EngineOptions

  @Argument(help: "What to show: status, sockets, connections, statistics or memory.")
  var report: ControlRequest.Report

  func run() throws {
    try engine.withEngine { client throws(ControlClient.Failure) in
      try engine.printAnswer(try client.request(.show(report)))
    }
  }
}

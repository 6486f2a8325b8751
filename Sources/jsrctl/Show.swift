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

  @Option(
    help: ArgumentHelp(
      "Only what belongs to this routing instance; main is that of the engine.", valueName: "name"))
  var instance: String?

  func validate() throws {
    if instance != nil, report == .memory {
      throw ValidationError("--instance: memory is not divided among routing instances")
    }
  }

  func run() throws {
    try engine.withEngine { client throws(ControlClient.Failure) in
      var answer = try client.request(.show(report))
      if let instance {
        guard case .status(let status) = try client.request(.show(.status)), status.has(instance: instance)
        else {
          throw .refused(
            ControlError(.invalidValue, "there is no routing instance \(instance); see show status"))
        }
        answer = answer.only(instance: instance)
      }
      try engine.printAnswer(answer)
    }
  }
}

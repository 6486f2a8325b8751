import ArgumentParser
import Control

extension ControlRequest.MastershipAction: ExpressibleByArgument {}

struct Request: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Asks for something to be done.", subcommands: [Master.self])

  struct Master: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Moves mastership.",
      discussion: """
        acquire  this routing engine becomes primary, the other one gives way
        release  this routing engine stops being primary
        switch   the two change places
        """)

    @OptionGroup var engine: EngineOptions

    @Argument(help: "What to do: acquire, release or switch.")
    var action: ControlRequest.MastershipAction

    func run() throws {
      try engine.withEngine { client throws(ControlClient.Failure) in
        try engine.printAnswer(try client.request(.master(action)))
      }
    }
  }
}

import ArgumentParser
import Control

extension ControlRequest.LogLevel: ExpressibleByArgument {}

struct Log: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Changes what the engine logs.", subcommands: [Level.self])

  struct Level: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Changes how much the engine logs, until it ends or reads its configuration again.",
      discussion: "trace says the most, critical the least; the default is info.")

    @OptionGroup var engine: EngineOptions

    @Argument(help: "The least important lines that are still logged.")
    var level: ControlRequest.LogLevel

    func run() throws { try engine.order(.logLevel(level)) }
  }
}

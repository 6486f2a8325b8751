import ArgumentParser
import Control

extension SettingName: ExpressibleByArgument {}

struct Get: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Prints a setting of the running engine, as it is in force now.")

  @OptionGroup var engine: EngineOptions

  @Argument(help: "The setting.")
  var name: SettingName

  func run() throws {
    try engine.withEngine { client throws(ControlClient.Failure) in
      try engine.printAnswer(try client.request(.get(name: name.rawValue)))
    }
  }
}

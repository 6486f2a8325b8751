import ArgumentParser
import Control
import Glibc

struct Monitor: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Prints events as they happen, one on a line, until the engine ends.",
    discussion: "Text lines start with the time of day (UTC).")

  @OptionGroup var engine: EngineOptions

  func run() throws {
    try engine.withEngine { client throws(ControlClient.Failure) in
      _ = try client.request(.subscribe(.all))
      while true {
        let event = try client.nextEvent()
        let line: String
        if engine.json {
          do throws(ControlError) {
            line = String(decoding: try event.message(), as: UTF8.self)
          } catch {
            throw .refused(error)
          }
        } else {
          line = event.line
        }
        // A reader that has gone away has seen enough.
        guard puts(line) >= 0, fflush(nil) == 0 else { return }
      }
    }
  }
}

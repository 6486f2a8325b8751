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
          line = "\(Self.timeOfDay(event.timeMilliseconds)) \(event)"
        }
        // A reader that has gone away has seen enough.
        guard puts(line) >= 0, fflush(nil) == 0 else { return }
      }
    }
  }

  /// `12:34:56.789`
  private static func timeOfDay(_ milliseconds: Int64) -> String {
    func digits(_ value: Int64, _ count: Int) -> String {
      let text = String(value)
      return String(repeating: "0", count: max(0, count - text.count)) + text
    }
    let time = milliseconds % 86_400_000
    return digits(time / 3_600_000, 2) + ":" + digits(time / 60_000 % 60, 2) + ":"
      + digits(time / 1000 % 60, 2) + "." + digits(time % 1000, 3)
  }
}

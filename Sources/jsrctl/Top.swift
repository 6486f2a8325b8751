import ArgumentParser
import Control
import Glibc

struct Top: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Shows the engine, its rates, its connections and the last events, again and again.",
    discussion: """
      On a terminal it fills the screen, q ends it, and it goes on when the engine goes away and comes back. \
      Elsewhere it prints a page each time, with --json a document on a line.
      """)

  @OptionGroup var engine: EngineOptions

  @Option(help: ArgumentHelp("Time between two samples, 1 to 3600.", valueName: "seconds"))
  var interval = 1

  @Option(help: ArgumentHelp("End after so many samples.", valueName: "n"))
  var count: Int?

  func validate() throws {
    guard (1...3600).contains(interval) else { throw ValidationError("--interval must be from 1 to 3600") }
    guard (count ?? 1) >= 1 else { throw ValidationError("--count must be at least 1") }
  }

  func run() throws {
    var client: ControlClient?
    // Where there is no engine to begin with, a wrong path is more likely than one that is about to start.
    try engine.withEngine { first throws(ControlClient.Failure) in
      _ = try first.request(.subscribe(.all))
      client = first
    }
    let terminal = engine.json ? nil : Terminal()
    var before: TopSample?
    var events: [String] = []
    var left = count ?? .max
    while true {
      do throws(ControlClient.Failure) {
        if client == nil { client = try connect() }
        guard let connected = client else { return }
        let sample = try TopSample(from: connected)
        events = (events + connected.takeEvents().map(\.line)).suffix(Self.eventLimit)
        guard try show(sample, after: before, events: events, on: terminal) else { return }
        before = sample
      } catch {
        client = nil
        before = nil
        if let terminal {
          terminal.show(screen(of: terminal).lines(unreachable: "\(error)", events: events))
        } else {
          let line = Array("jsrctl: \(error), trying again\n".utf8)
          _ = write(STDERR_FILENO, line, line.count)
        }
      }
      left -= 1
      guard left > 0 else { return }
      if let terminal {
        guard terminal.wait(milliseconds: interval * 1000) else { return }
      } else {
        sleep(UInt32(interval))
      }
    }
  }

  private static let eventLimit = 100
  /// Where there is no terminal: lines that nobody would want to scroll further than.
  private static let page = TopScreen(width: 200, height: 60)

  private func connect() throws(ControlClient.Failure) -> ControlClient {
    let client = try ControlClient(
      connectingTo: engine.socket, application: "jsrctl", role: .operator)
    _ = try client.request(.subscribe(.all))
    return client
  }

  private func screen(of terminal: Terminal) -> TopScreen {
    let size = terminal.size
    return TopScreen(width: size.width, height: size.height)
  }

  /// - Returns: whether somebody still reads it.
  private func show(
    _ sample: TopSample, after before: TopSample?, events: [String], on terminal: Terminal?
  ) throws(ControlClient.Failure) -> Bool {
    if engine.json {
      do throws(ControlError) {
        return puts(try sample.document()) >= 0 && fflush(nil) == 0
      } catch {
        throw .refused(error)
      }
    }
    if let terminal {
      terminal.show(screen(of: terminal).lines(sample, after: before, events: events))
      return true
    }
    let text = Self.page.lines(sample, after: before, events: events).joined(separator: "\n")
    return puts(text + "\n") >= 0 && fflush(nil) == 0
  }
}

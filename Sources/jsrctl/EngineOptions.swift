import ArgumentParser
import Control
import Glibc

/// What every command takes: which engine is asked, and for whom the answer is.
struct EngineOptions: ParsableArguments {
  @Option(help: ArgumentHelp("The engine's control socket.", valueName: "path"))
  var socket = ControlProtocol.defaultPath

  @Flag(help: "Print JSON, one document on a line, instead of text.")
  var json = false

  /// Asks for something whose answer says nothing new: it is printed only as JSON.
  func order(_ request: ControlRequest.Body) throws(ExitCode) {
    try withEngine { client throws(ControlClient.Failure) in
      let answer = try client.request(request)
      if json { try printAnswer(answer) }
    }
  }

  /// Connects to the engine and does `body`; a failure becomes a line on standard error and an exit status.
  func withEngine(
    _ body: (ControlClient) throws(ControlClient.Failure) -> Void
  ) throws(ExitCode) {
    // Whoever reads the output may go away: that is an error of the next write, not a signal.
    signal(SIGPIPE, SIG_IGN)
    do throws(ControlClient.Failure) {
      let client = try ControlClient(
        connectingTo: socket, application: "jsrctl", role: .operator)
      try body(client)
    } catch {
      let line = Array("jsrctl: \(error)\n".utf8)
      _ = write(STDERR_FILENO, line, line.count)
      switch error {
      case .unreachable: throw ExitCode(EX_UNAVAILABLE)
      case .refused: throw .failure
      }
    }
  }

  /// Prints an answer the way the user wants it.
  func printAnswer(_ answer: ControlReply.Body) throws(ControlClient.Failure) {
    do throws(ControlError) {
      let text = json ? try answer.document() : answer.text
      if !text.isEmpty { print(text) }
    } catch {
      throw .refused(error)
    }
  }
}

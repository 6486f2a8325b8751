import ArgumentParser
import Control
import Replication

extension Handle: ExpressibleByArgument {
  public init?(argument: String) {
    guard argument.hasPrefix("0x") else { return nil }
    self.init(argument)
  }
}

struct Unreplicate: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Ends the replication of one socket, whosever it is; the socket goes on.",
    discussion: "On the secondary the snoop pair ends, and the primary's socket goes on alone.")

  @OptionGroup var engine: EngineOptions

  @Argument(
    help: "The handle, as show sockets prints it, such as 0x100001d00000000.",
    completion: .custom { words, _, _ in HandleCompletion.handles(for: words) })
  var handle: Handle

  func run() throws { try engine.order(.unreplicate(handle)) }
}

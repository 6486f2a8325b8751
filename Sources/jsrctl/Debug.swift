import ArgumentParser
import Control

extension ControlRequest.DataLayer: ExpressibleByArgument {}

struct Debug: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Injects faults, if the engine's configuration says debug: true.",
    subcommands: [HoldAcknowledgements.self])

  struct HoldAcknowledgements: ParsableCommand {
    enum Switch: String, CaseIterable, ExpressibleByArgument { case on, off }

    static let configuration = CommandConfiguration(
      commandName: "hold-acks",
      abstract: "Holds the acknowledgements of a layer's records, or lets them go.",
      discussion: """
        On the secondary they are not sent, on the primary not heard. Records behind the first one that is held \
        wait with it; handshakes do not end before all their records are acknowledged.
        """)

    @OptionGroup var engine: EngineOptions

    @Argument(help: "The layer.")
    var layer: ControlRequest.DataLayer

    @Argument(help: "Whether acknowledgements are held.")
    var state: Switch

    func run() throws { try engine.order(.holdAcknowledgements(of: layer, isOn: state == .on)) }
  }
}

import ArgumentParser

@main
struct Jsrctl: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "jsrctl",
    abstract: "Shows and controls the replication engine of this routing engine.",
    discussion: """
      Exit status: 0 done, 1 refused by the engine, 64 wrong usage, 69 engine not reachable.
      """,
    subcommands: [
      Show.self, Request.self, Unreplicate.self, Set.self, Get.self, Log.self, Debug.self, Monitor.self,
      Top.self, LinkKeys.self,
    ])

  @OptionGroup var engine: EngineOptions
}

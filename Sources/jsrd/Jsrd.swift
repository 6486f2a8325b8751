import ArgumentParser
import CLinux
import Descriptors
import Engine
import EngineConfiguration
import Glibc
import LinuxNetworking
import Logging
import Logs
import NIOCore
import NIOPosix

/// The engine of one routing engine, in the foreground.
@main
struct Jsrd: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "jsrd",
    abstract: "Replicates live TCP sockets to the other routing engine.",
    discussion: """
      Runs in the foreground until SIGTERM or SIGINT, which end it in order: mastership is handed over if \
      the other routing engine stands by. SIGHUP reads the configuration again: timeouts, log.level, \
      on-application-failure and debug are taken over at once, the files of link.tls for the next link, and a \
      warning names every other key that has changed, since it takes effect after a restart. Exit status: 0 \
      after a signal, 78 for a wrong configuration, 77 for a missing privilege, 69 for a missing kernel \
      feature or device, 70 if the engine had to give up.
      """,
    version: Engine.version)

  @Option(help: "The configuration file, in YAML.")
  var config: String

  /// Signals are waited for, not handled: they are blocked before there is any other thread. An asynchronous
  /// `main` would not do: it ends in `dispatch_main`, which has the first thread wait in sigsuspend(2) with no
  /// signal blocked, and so die of the first that comes.
  static func main() {
    // Before there is any other thread, too.
    ControlGroup.join()
    do throws(SystemError) {
      try neededCapabilities.union(.netBindService).union(capabilitiesForInstances()).keepOnlyThese()
    } catch {
      end("\(error)", EX_OSERR)
    }
    // A frame of 64 KiB that is held keeps its buffer, and the next one needs a new one. Giving such memory
    // back to the kernel and faulting it in again costs more than handling the frame (mallopt(3)).
    mallopt(M_TRIM_THRESHOLD, 256 << 20)
    mallopt(M_MMAP_THRESHOLD, 32 << 20)
    var signals = awaitedSignals
    pthread_sigmask(SIG_BLOCK, &signals, nil)
    signal(SIGPIPE, SIG_IGN)
    Task.detached {
      await main(nil)
      Glibc.exit(EXIT_SUCCESS)
    }
    while true { pause() }
  }

  /// What nothing works without. CAP_NET_BIND_SERVICE is kept beside, for merging connections of low ports.
  private static let neededCapabilities: Capabilities = [.netAdmin, .netRaw]

  /// What visits to other network namespaces need, if there are routing instances in any. It has to be known before
  /// there is a second thread; what is wrong with the file is said later.
  private static func capabilitiesForInstances() -> Capabilities {
    let words = CommandLine.arguments
    let path =
      words.first { $0.hasPrefix("--config=") }.map { String($0.dropFirst("--config=".count)) }
      ?? words.firstIndex(of: "--config").flatMap { words.dropFirst($0 + 1).first }
    guard let path, let configuration = try? Configuration(contentsOf: path) else { return [] }
    return configuration.instances.contains { $0.place.isNamespace } ? .sysAdmin : []
  }

  /// - Returns: what is in force.
  private static func checkCapabilities() -> Capabilities {
    do throws(SystemError) {
      let effective = try Capabilities.effective()
      let missing = neededCapabilities.subtracting(effective)
      if !missing.isEmpty { end("\(missing) missing: start jsrd as root, or with these", EX_NOPERM) }
      return effective
    } catch {
      end("\(error)", EX_OSERR)
    }
  }

  private static var awaitedSignals: sigset_t {
    var signals = sigset_t()
    sigemptyset(&signals)
    for signal in [SIGTERM, SIGINT, SIGHUP] { sigaddset(&signals, signal) }
    return signals
  }

  func run() async throws {
    let configuration = Self.read(config)
    let capabilities = Self.checkCapabilities()
    let sink = Self.sink(configuration.log)
    LoggingSystem.bootstrap { sink.handler(label: $0) }
    let logger = Logger(label: "jsrd")
    if !capabilities.contains(.netBindService) {
      logger.warning(
        "\(Capabilities.netBindService) missing: connections of local ports below 1024 cannot be merged here")
    }
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let engine: Engine
    do throws(EngineError) {
      engine = try Engine(configuration, on: group.next(), logger: logger) { sink.setLevel($0) }
    } catch {
      sink.close(within: Self.lastWordsTime)
      Self.end("\(error)", error.exitStatus)
    }
    do {
      try await engine.start { _ in
        sink.close(within: Self.lastWordsTime)
        Glibc.exit(EX_SOFTWARE)
      }
    } catch {
      sink.close(within: Self.lastWordsTime)
      Self.end("\(error)", EX_UNAVAILABLE)
    }
    logger.info("jsrd \(Engine.version) is ready: \(configuration.node), slot \(configuration.slot)")
    ServiceNotification.send("READY=1")

    await Self.waitForEnd(of: engine, file: config, logger: logger)
    ServiceNotification.send("STOPPING=1")
    logger.info("jsrd ends")
    await engine.stop()
    try await group.shutdownGracefully()
    sink.close(within: Self.lastWordsTime)
  }

  /// How long the end waits for whoever reads the log.
  private static let lastWordsTime = Duration.seconds(1)

  private static func sink(_ log: Configuration.Log) -> LogSink {
    let destination: LogSink.Destination =
      switch log.destination {
      case .stderr: .standardError
      case .syslog: .syslog
      }
    do throws(SystemError) {
      return try LogSink(name: "jsrd", destination: destination, level: log.level)
    } catch {
      end("\(error)", EX_OSERR)
    }
  }

  private static func read(_ file: String) -> Configuration {
    do throws(ConfigurationError) {
      return try Configuration(contentsOf: file)
    } catch {
      end("\(error)", EX_CONFIG)
    }
  }

  private static func waitForEnd(of engine: Engine, file: String, logger: Logger) async {
    while true {
      let signal = await withCheckedContinuation { continuation in
        // A thread of its own: waiting must not occupy one of the concurrency runtime's.
        SignalWait(awaitedSignals) { continuation.resume(returning: $0) }.start()
      }
      guard signal == SIGHUP else { return }
      do {
        try await engine.reconfigure(try Configuration(contentsOf: file))
      } catch {
        logger.error("configuration not read again, all stays as it was: \(error)")
      }
    }
  }

  private static func end(_ message: String, _ status: Int32) -> Never {
    let line = "jsrd: \(message)\n"
    write(STDERR_FILENO, line, line.utf8.count)
    Glibc.exit(status)
  }
}

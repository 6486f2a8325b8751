import Foundation
import Glibc
import Logging
import Testing

@testable import Logs

@Suite(.timeLimit(.minutes(1))) struct LogSinkTests {
  private func logger(_ sink: LogSink, _ label: String = "jsrd") -> Logger {
    Logger(label: label) { sink.handler(label: $0) }
  }

  private func temporaryPath() -> String {
    FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID()).sock").path
  }

  @Test("Lines arrive in order, from the level that is set, which may change at any time")
  func level() throws {
    let pipe = Pipe()
    let sink = try LogSink(name: "jsrd", destination: .stream(pipe.writing), level: .info)
    let logger = logger(sink)
    logger.debug("one")
    logger.info("two", metadata: ["b": "2", "a": "1"])
    sink.setLevel(.debug)
    #expect(logger.logLevel == .debug)
    logger.debug("three")
    sink.setLevel(.error)
    logger.warning("four")
    logger.error("five")
    sink.close(within: .seconds(10))
    let lines = pipe.lines(until: "five").map { $0.drop { $0 != " " } }
    #expect(lines == [" info jsrd: two a=1 b=2", " debug jsrd: three", " error jsrd: five"])
  }

  @Test("A logger may have a level of its own, which is nobody else's")
  func ownLevel() throws {
    let pipe = Pipe()
    let sink = try LogSink(name: "jsrd", destination: .stream(pipe.writing), level: .info)
    defer { sink.close(within: .seconds(10)) }
    let one = logger(sink)
    var other = one
    other.logLevel = .trace
    #expect(one.logLevel == .info && other.logLevel == .trace)
    sink.setLevel(.warning)
    #expect(one.logLevel == .warning && other.logLevel == .trace)
  }

  @Test("Whoever logs does not wait for a reader that is stuck; what is lost is counted, and told")
  func stuckReader() throws {
    let pipe = Pipe()
    let sink = try LogSink(name: "jsrd", destination: .stream(pipe.writing), level: .debug)
    let logger = logger(sink)
    // More than the pipe and the queue hold together. At debug, where no rate limit cuts anything.
    let text = String(repeating: "x", count: 1_000)
    let began = ContinuousClock.now
    for number in 0..<20_000 { logger.debug("\(number) \(text)") }
    // The reader has not read a byte: writing itself would have waited for ever.
    #expect(ContinuousClock.now - began < .seconds(20))
    let lines = pipe.lines(until: "log lines lost")
    let numbers = lines.compactMap { $0.firstMatch(of: /debug jsrd: (\d+) x/).flatMap { Int($0.1) } }
    #expect(numbers == Array(0..<numbers.count), "a gap where nothing was lost")
    let report = try #require(lines.last)
    let lost = try #require(report.firstMatch(of: /warning jsrd: (\d+) log lines lost/).flatMap { Int($0.1) })
    #expect(numbers.count + lost == 20_000)
    logger.debug("there is room again")
    #expect(pipe.lines(until: "there is room again").count == 1)
    sink.close(within: .seconds(10))
  }

  @Test("The end does not wait for a reader that is stuck")
  func endWithStuckReader() throws {
    let pipe = Pipe()
    let sink = try LogSink(name: "jsrd", destination: .stream(pipe.writing), level: .debug)
    let logger = logger(sink)
    for number in 0..<1_000 { logger.debug("\(String(repeating: "x", count: 1_000)) line \(number).") }
    let began = ContinuousClock.now
    sink.close(within: .milliseconds(100))
    let time = ContinuousClock.now - began
    #expect(time >= .milliseconds(100) && time < .seconds(10))
    // A reader that comes back after all still finds everything.
    #expect(pipe.lines(until: "line 999.").count == 1_000)
  }

  @Test("A flood is cut, and one line says of how many; it hides neither errors nor what debug shows")
  func flood() throws {
    let pipe = Pipe()
    let sink = try LogSink(
      name: "jsrd", destination: .stream(pipe.writing), level: .debug, burst: 20, rate: 1)
    let logger = logger(sink)
    for number in 0..<50 { logger.info("flood \(number)") }
    logger.error("trouble")
    for number in 0..<50 { logger.debug("detail \(number)") }
    let lines = pipe.lines(until: "suppressed")
    #expect(lines.count { $0.contains(" flood ") } == 20)
    #expect(lines.count { $0.contains(" trouble") } == 1)
    #expect(lines.count { $0.contains(" detail ") } == 50)
    #expect(lines.last?.contains("warning jsrd: 30 log lines suppressed: more than 1 a second") == true)
    #expect(lines.count == 72)
    sink.close(within: .seconds(10))
  }

  @Test("A flood that the end cuts short is told of too")
  func floodAtTheEnd() throws {
    let pipe = Pipe()
    let sink = try LogSink(name: "jsrd", destination: .stream(pipe.writing), level: .info, burst: 5, rate: 1)
    let logger = logger(sink)
    for number in 0..<12 { logger.info("flood \(number)") }
    sink.close(within: .seconds(10))
    let lines = pipe.lines(until: "suppressed")
    #expect(lines.count == 6)
    #expect(lines.last?.contains(" 7 log lines suppressed") == true, "\(lines)")
  }

  @Test("A syslog daemon gets a message for each line")
  func syslog() throws {
    let daemon = SyslogDaemon(at: temporaryPath())
    let sink = try LogSink(name: "jsrd", destination: .syslog(path: daemon.path), level: .info)
    let logger = logger(sink)
    logger.info("KKCM link up")
    logger.error("KKCM link lost")
    let first = try #require(daemon.next())
    #expect(first.hasPrefix("<30>") && first.hasSuffix(" jsrd[\(getpid())]: KKCM link up"), "\(first)")
    let second = try #require(daemon.next())
    #expect(second.hasPrefix("<27>") && second.hasSuffix(": KKCM link lost"), "\(second)")
    sink.close(within: .seconds(10))
  }

  @Test("Lines wait for a syslog daemon that is not there yet, or is started again")
  func syslogComesLater() throws {
    let path = temporaryPath()
    let sink = try LogSink(name: "jsrd", destination: .syslog(path: path), level: .info)
    let logger = logger(sink)
    logger.info("one")
    logger.info("two")
    usleep(50_000)
    do {
      let daemon = SyslogDaemon(at: path)
      #expect(daemon.next()?.hasSuffix(": one") == true)
      #expect(daemon.next()?.hasSuffix(": two") == true)
    }
    logger.info("three")
    usleep(50_000)
    let daemon = SyslogDaemon(at: path)
    #expect(daemon.next()?.hasSuffix(": three") == true)
    sink.close(within: .seconds(10))
  }
}

import Glibc
import Logging
import Testing

@testable import Logs

@Suite struct LogLineTests {
  private func line(_ level: Logger.Level = .info, _ text: String) -> LogLine {
    var line = LogLine(level, label: "jsrd", text)
    // 5 January 2026, 00:00:00 UTC.
    line.time = timespec(tv_sec: 1_767_571_200, tv_nsec: 42_000)
    return line
  }

  @Test("On a stream a line says when, how much it matters, and who says it")
  func streamForm() throws {
    let text = String(decoding: line(.warning, "link lost").streamForm(), as: UTF8.self)
    #expect(
      text.contains(/^2026-01-0[45]T\d\d:\d\d:00\.000042[+-]\d{4} warning jsrd: link lost\n$/), "\(text)")
  }

  @Test(
    "A syslog message begins with facility and severity, and a time with the day padded (RFC 3164)",
    arguments: [
      (Logger.Level.trace, 31), (.debug, 31), (.info, 30), (.notice, 29), (.warning, 28), (.error, 27),
      (.critical, 26),
    ])
  func syslogForm(_ level: Logger.Level, _ priority: Int) throws {
    let text = String(decoding: line(level, "link lost").syslogForm(process: 17), as: UTF8.self)
    #expect(text.contains(/^<\d+>Jan  [45] \d\d:\d\d:00 jsrd\[17\]: link lost$/), "\(text)")
    #expect(text.hasPrefix("<\(priority)>"))
  }

  @Test("A syslog message is cut at 1,024 bytes, between two characters", arguments: 0..<4)
  func length(_ shift: Int) throws {
    let text = String(repeating: "x", count: shift) + String(repeating: "\u{1f600}", count: 400)
    let message = line(.info, text).syslogForm(process: 17)
    #expect((1_021...1_024).contains(message.count))
    #expect(String(validating: message, as: UTF8.self) != nil)
    // What fits is left alone.
    let short = line(.info, String(repeating: "ü", count: 400)).syslogForm(process: 17)
    #expect(String(decoding: short, as: UTF8.self).hasSuffix("]: " + String(repeating: "ü", count: 400)))
  }

  @Test("What is quoted makes no lines of its own, and moves no cursor")
  func control() {
    let line = line(.error, "the other RE says: a\nb\u{1b}[2J\u{7f}c")
    for bytes in [line.streamForm().dropLast(), line.syslogForm(process: 17)[...]] {
      #expect(bytes.allSatisfy { $0 >= 0x20 && $0 != 0x7f })
      #expect(String(decoding: bytes, as: UTF8.self).hasSuffix("says: a b [2J c"))
    }
  }
}

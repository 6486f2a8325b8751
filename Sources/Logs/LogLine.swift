import Glibc
import Logging

/// One line, as it was logged; put into the form of its destination by the thread that writes it.
struct LogLine: Sendable {
  var level: Logger.Level
  var label: String
  var text: String
  /// Since 1970.
  var time: timespec

  /// What the line may take in memory, in bytes, about.
  var byteCount: Int { text.utf8.count + 64 }

  init(_ level: Logger.Level, label: String, _ text: String) {
    self.level = level
    self.label = label
    self.text = text
    time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
  }

  /// For a stream: `2026-11-23T09:00:44.123456+0000 info jsrd: text` and a newline.
  func streamForm() -> [UInt8] {
    let micros = String(time.tv_nsec / 1000)
    let fraction = String(repeating: "0", count: 6 - micros.count) + micros
    let stamp = formatted("%Y-%m-%dT%H:%M:%S") + "." + fraction + formatted("%z")
    return Array("\(stamp) \(level) \(label): \(singleLine)\n".utf8)
  }

  /// A datagram for the syslog socket of this machine: `<30>Nov 23 09:00:44 jsrd[17]: text`.
  ///
  /// RFC 3164, section 4.1, without the host name, as syslog(3) writes it: the daemon knows its machine. Not longer
  /// than 1,024 bytes (ibid.); what is beyond is cut off.
  func syslogForm(process: pid_t) -> [UInt8] {
    let priority = Self.facility << 3 | severity
    // Days are padded with a blank (section 4.1.2).
    let stamp = formatted("%b %e %H:%M:%S")
    let text = "<\(priority)>\(stamp) \(label)[\(process)]: \(singleLine)"
    var bytes = Array(text.utf8.prefix(Self.syslogLimit))
    // Not in the middle of a character.
    while String(validating: bytes, as: UTF8.self) == nil { bytes.removeLast() }
    return bytes
  }

  private static let syslogLimit = 1_024
  /// System daemons (RFC 3164, section 4.1.1).
  private static let facility = 3

  /// RFC 3164, section 4.1.1.
  private var severity: Int {
    switch level {
    case .critical: 2
    case .error: 3
    case .warning: 4
    case .notice: 5
    case .info: 6
    case .debug, .trace: 7
    }
  }

  /// The text may quote what came from outside: it must not make lines of its own, nor move a terminal's cursor.
  private var singleLine: String {
    let isClean = text.utf8.allSatisfy { $0 >= 0x20 && $0 != 0x7f }
    if isClean { return text }
    return String(
      String.UnicodeScalarView(text.unicodeScalars.map { $0.value < 0x20 || $0.value == 0x7f ? " " : $0 }))
  }

  /// In local time, by strftime(3).
  private func formatted(_ format: String) -> String {
    var seconds = time.tv_sec
    var fields = tm()
    localtime_r(&seconds, &fields)
    return withUnsafeTemporaryAllocation(of: CChar.self, capacity: 64) { buffer in
      let count = strftime(buffer.baseAddress!, buffer.count, format, &fields)
      return String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
  }
}

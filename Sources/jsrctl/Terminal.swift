import Glibc

/// The terminal while `top` has it: its other screen, keys without waiting for a line, and everything put back
/// as it was when this object goes.
final class Terminal {
  private let before: termios

  /// `nil` if standard input and output are not both a terminal.
  init?() {
    var settings = termios()
    guard isatty(STDOUT_FILENO) == 1, tcgetattr(STDIN_FILENO, &settings) == 0 else { return nil }
    before = settings
    // Control-C is a key like others: it must not end the program before the terminal is put back.
    settings.c_lflag &= ~tcflag_t(ICANON | ECHO | ISIG)
    tcsetattr(STDIN_FILENO, TCSANOW, &settings)
    var signals = Self.signals
    sigprocmask(SIG_BLOCK, &signals, nil)
    Self.write("\u{1b}[?1049h\u{1b}[?25l")
  }

  deinit {
    Self.write("\u{1b}[?25h\u{1b}[?1049l")
    var settings = before
    tcsetattr(STDIN_FILENO, TCSANOW, &settings)
  }

  private static var signals: sigset_t {
    var signals = sigset_t()
    sigemptyset(&signals)
    for signal in [SIGTERM, SIGINT, SIGHUP] { sigaddset(&signals, signal) }
    return signals
  }

  /// Columns and lines; what a terminal has that does not say.
  var size: (width: Int, height: Int) {
    var size = winsize()
    guard ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0, size.ws_row > 0 else {
      return (80, 24)
    }
    return (Int(size.ws_col), Int(size.ws_row))
  }

  /// Shows `lines` in place of what was shown.
  func show(_ lines: [String]) {
    let text = lines.map { $0 + "\u{1b}[K" }.joined(separator: "\r\n")
    Self.write("\u{1b}[H" + text + "\u{1b}[J")
  }

  /// Waits; false if the user or a signal wants an end: `q`, Control-C, Control-D.
  func wait(milliseconds: Int) -> Bool {
    let step = 100
    for _ in 0..<max(1, milliseconds / step) {
      var pending = sigset_t()
      sigpending(&pending)
      if [SIGTERM, SIGINT, SIGHUP].contains(where: { sigismember(&pending, $0) == 1 }) { return false }
      var input = pollfd(fd: STDIN_FILENO, events: Int16(POLLIN), revents: 0)
      guard poll(&input, 1, Int32(step)) > 0 else { continue }
      var key: UInt8 = 0
      guard read(STDIN_FILENO, &key, 1) == 1 else { return false }
      if [UInt8(ascii: "q"), 3, 4].contains(key) { return false }
    }
    return true
  }

  private static func write(_ text: String) {
    var bytes = Array(text.utf8)[...]
    while !bytes.isEmpty {
      let count = bytes.withUnsafeBytes { Glibc.write(STDOUT_FILENO, $0.baseAddress, $0.count) }
      guard count > 0 else { return }
      bytes = bytes.dropFirst(count)
    }
  }
}

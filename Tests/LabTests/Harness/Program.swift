import Foundation
import Glibc
import Synchronization

/// A program that a case started: its pid, what it prints, and how it ended.
///
/// Theory of operation: the child leads a process group of its own, so that a signal typed at the terminal
/// of the test run does not reach it, and is only ever signalled by its pid. The pid stays reserved until
/// the child is reaped; reaping and signalling exclude each other under one lock, so a signal never reaches
/// a stranger that was given the same number. Output is read by a thread of its own: a child never waits
/// for its reader.
final class Program: Sendable {
  /// How a program ended.
  enum End: Hashable, Sendable {
    case exited(Int32)
    case killed(signal: Int32)
  }

  /// For messages and the name of the log file.
  let name: String
  let pid: pid_t

  private struct State {
    var output = BoundedText()
    var errors = BoundedText()
    var openPipes = 2
    var end: End?
  }
  private let state = Mutex(State())

  /// Starts `arguments[0]`, an absolute path.
  init(_ name: String, _ arguments: [String], environment: [String: String] = [:]) throws {
    self.name = name
    let output: Int32
    let errors: Int32
    (pid, output, errors) = try Self.spawning.withLock { _ in try Self.spawn(arguments, environment) }
    for (descriptor, text) in [(output, \State.output), (errors, \State.errors)] {
      Thread.detachNewThread { [self] in read(descriptor, into: text) }
    }
    Thread.detachNewThread { [self] in reap() }
  }

  /// One at a time: between the making of a pipe and its being marked close-on-exec no other child may be
  /// born, or that child would hold the pipe open.
  private static let spawning = Mutex(())

  private static func spawn(
    _ arguments: [String], _ environment: [String: String]
  ) throws -> (pid: pid_t, output: Int32, errors: Int32) {
    let output = try makePipe()
    let errors = try makePipe()
    defer {
      close(output.writing)
      close(errors.writing)
    }

    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_adddup2(&actions, output.writing, 1)
    posix_spawn_file_actions_adddup2(&actions, errors.writing, 2)

    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var signals = sigset_t()
    sigemptyset(&signals)
    posix_spawnattr_setsigmask(&attributes, &signals)
    sigfillset(&signals)
    posix_spawnattr_setsigdefault(&attributes, &signals)
    posix_spawnattr_setpgroup(&attributes, 0)
    posix_spawnattr_setflags(
      &attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK))

    let variables = ProcessInfo.processInfo.environment.merging(environment) { $1 }
    let cArguments: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
    let cVariables: [UnsafeMutablePointer<CChar>?] = variables.map { strdup("\($0)=\($1)") } + [nil]
    defer { for string in cArguments + cVariables { free(string) } }

    var pid: pid_t = 0
    let failure = posix_spawn(&pid, arguments[0], &actions, &attributes, cArguments, cVariables)
    guard failure == 0 else {
      close(output.reading)
      close(errors.reading)
      throw LabFailure("cannot start \(arguments[0]): \(String(cString: strerror(failure)))")
    }
    return (pid, output.reading, errors.reading)
  }

  private static func makePipe() throws -> (reading: Int32, writing: Int32) {
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else { throw LabFailure("pipe: \(String(cString: strerror(errno)))") }
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    return (ends[0], ends[1])
  }

  private func read(_ descriptor: Int32, into text: WritableKeyPath<State, BoundedText>) {
    withUnsafeTemporaryAllocation(byteCount: 1 << 16, alignment: 16) { buffer in
      while true {
        let count = Glibc.read(descriptor, buffer.baseAddress, buffer.count)
        if count < 0, errno == EINTR { continue }
        guard count > 0 else { break }
        state.withLock { $0[keyPath: text].append(UnsafeRawBufferPointer(rebasing: buffer[..<count])) }
      }
    }
    close(descriptor)
    state.withLock {
      $0[keyPath: text].finish()
      $0.openPipes -= 1
    }
  }

  private func reap() {
    // Waits without reaping, so that the pid cannot be given to another process before the lock is held.
    var info = siginfo_t()
    while waitid(P_PID, id_t(pid), &info, WEXITED | WNOWAIT) != 0, errno == EINTR {}
    state.withLock {
      var status: Int32 = 0
      waitpid(pid, &status, 0)
      let signal = status & 0x7f
      $0.end = signal == 0 ? .exited(status >> 8 & 0xff) : .killed(signal: signal)
    }
  }

  /// `nil` while it runs, or has ended but its output is not read to the end yet.
  var end: End? { state.withLock { $0.openPipes == 0 ? $0.end : nil } }
  var isRunning: Bool { state.withLock { $0.end == nil } }

  /// Lines printed to standard output so far, unless there were so many that the oldest are gone.
  var output: [String] { state.withLock { $0.output.lines } }
  /// The same for standard error.
  var errors: [String] { state.withLock { $0.errors.lines } }

  /// Sends `signal` unless the program has ended. SIGSTOP is in force when the call returns.
  func send(_ signal: Int32) {
    state.withLock { if $0.end == nil { kill(pid, signal) } }
  }

  /// Waits for the end.
  @discardableResult
  func waitForEnd(within time: Duration) async throws -> End {
    try await eventually(within: time, "the end of \(name) (pid \(pid))") { end }
  }

  /// Kills the program and waits until it is gone.
  func killAndWait() async throws {
    send(SIGKILL)
    try await eventually(within: .seconds(5), "the death of \(name) (pid \(pid))") { !isRunning }
  }

  /// Waits until a line of output or errors contains `text`.
  @discardableResult
  func waitForLine(containing text: String, within time: Duration) async throws -> String {
    try await eventually(within: time, "a line with '\(text)' from \(name); last: \(lastWords)") {
      let found = (output + errors).first { $0.contains(text) }
      if found == nil, end != nil {
        throw LabFailure("\(name) ended before it printed '\(text)'; last: \(lastWords)")
      }
      return found
    }
  }

  /// The last lines, for messages.
  var lastWords: String { (output.suffix(3) + errors.suffix(3)).joined(separator: " | ") }
}

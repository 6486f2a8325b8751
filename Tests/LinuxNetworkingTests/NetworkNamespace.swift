import CLinux
import Descriptors
import Glibc
import Synchronization

/// What a shell command said when it failed.
struct CommandFailure: Error, CustomStringConvertible {
  var command: String
  var status: Int32
  var description: String { "\(command): status \(status)" }
}

/// Runs a command line and waits for it.
func shell(_ command: String) throws {
  let words = ["sh", "-c", command]
  var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) }
  arguments.append(nil)
  defer { for argument in arguments { free(argument) } }
  var process = pid_t()
  let result = posix_spawn(&process, "/bin/sh", nil, nil, arguments, environ)
  guard result == 0 else { throw SystemError("posix_spawn", code: result) }
  var status: Int32 = 0
  while waitpid(process, &status, 0) < 0, errno == EINTR {}
  guard status == 0 else { throw CommandFailure(command: command, status: status) }
}

/// A network namespace that lives as long as this object.
final class NetworkNamespace: Sendable {
  let name: String
  private static let counter = Atomic<Int>(0)

  init(_ role: String) throws {
    let number = Self.counter.add(1, ordering: .relaxed).newValue
    name = "jsrt-\(getpid())-\(number)-\(role)"
    try shell("ip netns add \(name) && ip -n \(name) link set lo up")
  }

  deinit {
    do {
      try shell("ip netns del \(name)")
    } catch {
      print("network namespace \(name) is left behind: \(error)")
    }
  }

  /// Runs `ip` inside.
  func ip(_ arguments: String) throws { try shell("ip -n \(name) \(arguments)") }

  /// Runs `nft` inside.
  func nft(_ arguments: String) throws { try shell("ip netns exec \(name) nft '\(arguments)'") }

  /// The chains of the table `netdev jsr`, in the order of their names.
  func chains() throws -> [String] {
    let path = "/tmp/\(name).nft"
    defer { unlink(path) }
    try shell("ip netns exec \(name) nft list table netdev jsr >\(path)")
    guard let file = fopen(path, "re") else { throw SystemError("fopen", on: path) }
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 1 << 20)
    let count = fread(&bytes, 1, bytes.count, file)
    return String(decoding: bytes.prefix(count), as: UTF8.self).split(separator: "\n").compactMap { line in
      let words = line.split { $0.isWhitespace }
      return words.count == 3 && words[0] == "chain" ? String(words[1]) : nil
    }.sorted()
  }

  /// Runs `body` on a thread that is inside, and waits for it. Sockets made there stay inside for good.
  func run<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) throws -> Result {
    let path = "/run/netns/\(name)"
    return try Background {
      let namespace = try OwnedDescriptor(returnedBy: "open", open(path, O_RDONLY | O_CLOEXEC))
      guard jsr_enter_network_namespace(namespace.rawValue) == 0 else { throw SystemError("setns") }
      return try body()
    }.join()
  }
}

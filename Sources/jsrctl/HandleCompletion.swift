import Control
import Replication

/// What a shell proposes where a handle is to be typed.
enum HandleCompletion {
  /// The handles of sockets that are replicated at the moment; none if there is no engine.
  ///
  /// - Parameter words: the command line so far, which may say where the engine is.
  static func handles(for words: [String]) -> [String] {
    do throws(ControlClient.Failure) {
      let client = try ControlClient(
        connectingTo: path(in: words), application: "jsrctl", role: .operator)
      guard case .sockets(let sockets) = try client.request(.show(.sockets)) else { return [] }
      return sockets.filter { $0.role != .none }.map(\.handle.description)
    } catch {
      return []
    }
  }

  private static func path(in words: [String]) -> String {
    for (word, next) in zip(words, words.dropFirst()) where word == "--socket" { return next }
    let option = "--socket="
    return words.first { $0.hasPrefix(option) }.map { String($0.dropFirst(option.count)) }
      ?? ControlProtocol.defaultPath
  }
}

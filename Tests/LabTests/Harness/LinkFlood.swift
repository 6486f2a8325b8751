import CLinux
import Foundation
import Glibc
import Synchronization

/// Somebody on re1, and so at the address from which re0 expects the other engine, who has no key: connects
/// to re0 as often as it goes, says nothing or nonsense, and keeps what is not closed.
final class LinkFlood: Sendable {
  private let isOver = Atomic(false)
  private let counter = Atomic(0)
  private let running = Atomic(2)

  init(in lab: Lab) async throws {
    // A thread is in the namespace of the one that starts it.
    try await lab.inside(.re1) { [self] in
      for number in 0..<2 { Thread.detachNewThread { [self] in connect(speaking: number == 0) } }
    }
  }

  /// How many connections there were.
  var count: Int { counter.load(ordering: .relaxed) }

  /// Ends it, and returns when every connection is closed.
  func end() async throws {
    isOver.store(true, ordering: .relaxed)
    try await eventually(within: .seconds(5), "the end of the flood") {
      running.load(ordering: .acquiring) == 0
    }
  }

  private func connect(speaking: Bool) {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = UInt16(7000).bigEndian
    address.sin_addr.s_addr = inet_addr("10.77.0.1")
    var open: [Int32] = []
    while !isOver.load(ordering: .relaxed) {
      // The two share the processors with the engines; an engine that gets none cannot be judged.
      usleep(500)
      let stranger = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
      let result = withUnsafeBytes(of: &address) {
        Glibc.connect(stranger, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t($0.count))
      }
      guard result == 0 else {
        close(stranger)
        continue
      }
      counter.add(1, ordering: .relaxed)
      if speaking { _ = send(stranger, "hello\n", 6, Int32(MSG_NOSIGNAL)) }
      open.append(stranger)
      if open.count > 64 { close(open.removeFirst()) }
    }
    for stranger in open { close(stranger) }
    running.subtract(1, ordering: .releasing)
  }
}

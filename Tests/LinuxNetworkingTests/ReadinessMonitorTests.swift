import CLinux
import Descriptors
import Glibc
import Synchronization
import Testing

@Suite("A readiness monitor")
struct ReadinessMonitorTests {
  /// What was reported, in order.
  private final class Reports: Sendable {
    private let list = Mutex<[(ReadinessMonitor.Token, ReadinessMonitor.Events)]>([])
    func append(_ token: ReadinessMonitor.Token, _ events: ReadinessMonitor.Events) {
      list.withLock { $0.append((token, events)) }
    }
    func count(_ token: ReadinessMonitor.Token) -> Int { list.withLock { $0.count { $0.0 == token } } }
    func last(_ token: ReadinessMonitor.Token) -> ReadinessMonitor.Events? {
      list.withLock { $0.last { $0.0 == token }?.1 }
    }
  }

  private func socketPair() throws -> (Int32, Int32) {
    var pair: [Int32] = [0, 0]
    guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0, &pair) == 0
    else { throw SystemError("socketpair") }
    return (pair[0], pair[1])
  }

  @Test("says when there is something to read, once, until it is armed again")
  func oneShot() throws {
    let reports = Reports()
    let monitor = try ReadinessMonitor { reports.append($0, $1) }
    defer { monitor.close() }
    let (near, far) = try socketPair()
    defer { [near, far].forEach { close($0) } }
    let token = try monitor.add(near, [.read, .readHangUp])
    pause(milliseconds: 20)
    #expect(reports.count(token) == 0)
    #expect(write(far, "x", 1) == 1)
    #expect(eventually { reports.count(token) == 1 })
    pause(milliseconds: 20)
    #expect(reports.count(token) == 1 && reports.last(token) == .read)
    try monitor.rearm(token, [.read, .readHangUp])
    #expect(eventually { reports.count(token) == 2 })
    shutdown(far, Int32(SHUT_WR))
    try monitor.rearm(token, [.readHangUp])
    #expect(eventually { reports.last(token)?.contains(.readHangUp) == true })
  }

  @Test("says when there is room to write again")
  func room() throws {
    let reports = Reports()
    let monitor = try ReadinessMonitor { reports.append($0, $1) }
    defer { monitor.close() }
    let (near, far) = try socketPair()
    defer { [near, far].forEach { close($0) } }
    let block = [UInt8](repeating: 0, count: 65536)
    while write(near, block, block.count) > 0 {}
    let token = try monitor.add(near, .write)
    pause(milliseconds: 20)
    #expect(reports.count(token) == 0)
    var buffer = block
    while read(far, &buffer, buffer.count) > 0 {}
    #expect(eventually { reports.last(token) == .write })
  }

  @Test("never uses a token again, and reports nothing for one that was removed")
  func tokens() throws {
    let reports = Reports()
    let monitor = try ReadinessMonitor { reports.append($0, $1) }
    defer { monitor.close() }
    var seen: Set<ReadinessMonitor.Token> = []
    for _ in 0..<200 {
      let (near, far) = try socketPair()
      let token = try monitor.add(near, .read)
      #expect(seen.insert(token).inserted)
      monitor.remove(token)
      monitor.remove(token)
      // A duplicate keeps the open file, and with it a registration that was not removed, alive.
      let copy = dup(near)
      close(near)
      #expect(write(far, "x", 1) == 1)
      try monitor.rearm(token, .read)
      close(copy)
      close(far)
      #expect(reports.count(token) == 0)
    }
    #expect(monitor.count == 0)
  }

  @Test("can be changed from its own callback and from many threads at once, and falls silent when closed")
  func concurrency() async throws {
    let reports = Reports()
    let holder = Mutex<ReadinessMonitor?>(nil)
    let monitor = try ReadinessMonitor { token, events in
      reports.append(token, events)
      holder.withLock { $0 }?.remove(token)
    }
    holder.withLock { $0 = monitor }
    try await withThrowingTaskGroup(of: Void.self) { group in
      for _ in 0..<4 {
        group.addTask {
          for _ in 0..<100 {
            let (near, far) = try socketPair()
            defer { [near, far].forEach { close($0) } }
            let token = try monitor.add(near, .read, oneShot: false)
            _ = write(far, "x", 1)
            #expect(eventually { reports.count(token) >= 1 })
            monitor.remove(token)
          }
        }
      }
      try await group.waitForAll()
    }
    #expect(monitor.count == 0)
    let (near, far) = try socketPair()
    defer { [near, far].forEach { close($0) } }
    let token = try monitor.add(near, .read)
    holder.withLock { $0 = nil }
    monitor.close()
    monitor.close()
    _ = write(far, "x", 1)
    pause(milliseconds: 20)
    #expect(reports.count(token) == 0)
  }
}

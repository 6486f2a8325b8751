import CLinux
import Descriptors
import Glibc

/// Waits for many descriptors at once, level-triggered, and says whose turn it is.
///
/// The kernel reports a descriptor number together with a count that rises whenever a number is watched
/// anew. Events of one batch may concern a descriptor that an earlier event of the batch has closed, and
/// whose number has been used again since: the count tells them apart (epoll(7), questions 6 and 7).
final class EventPoll<Watcher> {
  struct Interest: OptionSet, Hashable {
    let rawValue: UInt32
    static var read: Interest { Interest(rawValue: EPOLLIN.rawValue) }
    static var write: Interest { Interest(rawValue: EPOLLOUT.rawValue) }
  }

  /// What is the matter with a descriptor. An error or a hang-up counts as both: the call that follows
  /// learns the reason.
  struct Readiness {
    var canRead: Bool
    var canWrite: Bool
  }

  private struct Entry {
    var watcher: Watcher
    var interest: Interest
    var count: UInt32
  }

  private let poll: OwnedDescriptor
  private var entries: [Entry?] = []
  private var count: UInt32 = 0
  private var batch = [epoll_event](repeating: epoll_event(), count: 256)

  init() throws(SystemError) {
    poll = try OwnedDescriptor(returnedBy: "epoll_create1", epoll_create1(Int32(O_CLOEXEC)))
  }

  func add(_ descriptor: Int32, _ interest: Interest, _ watcher: Watcher) throws(SystemError) {
    let index = Int(descriptor)
    if index >= entries.count {
      entries += [Entry?](repeating: nil, count: index + 1 - entries.count)
    }
    count &+= 1
    entries[index] = Entry(watcher: watcher, interest: interest, count: count)
    do {
      try control(EPOLL_CTL_ADD, descriptor, interest)
    } catch {
      entries[index] = nil
      throw error
    }
  }

  /// Changes what is waited for; costs nothing if it is the same as before.
  func change(_ descriptor: Int32, to interest: Interest) throws(SystemError) {
    guard let entry = entries[Int(descriptor)], entry.interest != interest else { return }
    entries[Int(descriptor)]?.interest = interest
    try control(EPOLL_CTL_MOD, descriptor, interest)
  }

  func isWatching(_ descriptor: Int32) -> Bool {
    let index = Int(descriptor)
    return index < entries.count && entries[index] != nil
  }

  /// Stops watching. Must be called before the descriptor is closed or given away.
  func remove(_ descriptor: Int32) {
    let index = Int(descriptor)
    guard index < entries.count, entries[index] != nil else { return }
    entries[index] = nil
    var event = epoll_event()
    _ = epoll_ctl(poll.rawValue, EPOLL_CTL_DEL, descriptor, &event)
  }

  /// Waits for at most `milliseconds`, then calls `body` for every descriptor that is ready.
  func wait(milliseconds: Int32, _ body: (Watcher, Readiness) -> Void) throws(SystemError) {
    let ready = epoll_wait(poll.rawValue, &batch, Int32(batch.count), milliseconds)
    guard ready >= 0 else {
      if errno == EINTR { return }
      throw SystemError("epoll_wait")
    }
    for index in 0..<Int(ready) {
      let event = batch[index]
      let key = event.data.u64
      guard let entry = entries[Int(UInt32(truncatingIfNeeded: key))], entry.count == UInt32(key >> 32) else {
        continue
      }
      let failed = event.events & (EPOLLERR.rawValue | EPOLLHUP.rawValue) != 0
      body(
        entry.watcher,
        Readiness(
          canRead: failed || event.events & EPOLLIN.rawValue != 0,
          canWrite: failed || event.events & EPOLLOUT.rawValue != 0))
    }
  }

  private func control(_ operation: Int32, _ descriptor: Int32, _ interest: Interest) throws(SystemError) {
    let key = UInt64(entries[Int(descriptor)]?.count ?? 0) << 32 | UInt64(descriptor)
    var event = epoll_event(events: interest.rawValue, data: epoll_data_t(u64: key))
    guard epoll_ctl(poll.rawValue, operation, descriptor, &event) == 0 else {
      throw SystemError("epoll_ctl", on: "descriptor \(descriptor)")
    }
  }
}

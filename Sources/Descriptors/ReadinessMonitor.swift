// Theory of operation
//
// epoll(7) reports what was registered beside a descriptor, not the descriptor: here a token that is never
// used twice. The kernel forgets a registration only when the last duplicate of the open file is closed,
// and descriptor numbers are reused at once, so a report may come for a number that already means another
// file. Its token tells: it is looked up when the report is taken, and one that was removed is dropped.

import CLinux
import Glibc
import Synchronization

/// Watches descriptors on a thread of its own, and says when they become readable or writable.
///
/// All methods may be called from any thread, also from within the callback (except ``close()``).
public final class ReadinessMonitor: Sendable {
  /// Names one registration; never used again for another.
  public struct Token: Hashable, Sendable {
    public let rawValue: UInt64
  }

  /// What a descriptor is ready for.
  public struct Events: OptionSet, Hashable, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Bytes can be read, or the end of the stream.
    public static let read = Events(rawValue: EPOLLIN.rawValue)
    public static let write = Events(rawValue: EPOLLOUT.rawValue)
    /// Both directions have ended. Always watched.
    public static let hangUp = Events(rawValue: EPOLLHUP.rawValue)
    /// The peer will send no more.
    public static let readHangUp = Events(rawValue: EPOLLRDHUP.rawValue)
    /// An error is pending. Always watched.
    public static let error = Events(rawValue: EPOLLERR.rawValue)
  }

  private struct State {
    var registrations: [UInt64: Registration] = [:]
    /// 0 is the token of the wake-up descriptor.
    var lastToken: UInt64 = 0
    var thread: pthread_t?
  }

  private struct Registration {
    var descriptor: Int32
    var oneShot: Bool
  }

  private let epoll: OwnedDescriptor
  private let wakeUp: OwnedDescriptor
  private let state = Mutex(State())
  private let callback: @Sendable (Token, Events) -> Void

  /// Starts the thread, which blocks all signals. It keeps the monitor alive until ``close()``.
  ///
  /// - Parameter callback: called on the monitor's thread, for one registration at a time. A call may still
  ///   be under way, for a token that has just been removed, when ``remove(_:)`` returns.
  public init(_ callback: @escaping @Sendable (Token, Events) -> Void) throws(SystemError) {
    self.callback = callback
    epoll = try OwnedDescriptor(returnedBy: "epoll_create1", epoll_create1(Int32(EPOLL_CLOEXEC)))
    wakeUp = try OwnedDescriptor(
      returnedBy: "eventfd", eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK)))
    var event = epoll_event(events: EPOLLIN.rawValue, data: epoll_data_t(u64: 0))
    guard epoll_ctl(epoll.rawValue, EPOLL_CTL_ADD, wakeUp.rawValue, &event) == 0 else {
      throw SystemError("epoll_ctl")
    }

    // The thread leaves signals to others. It inherits this, so there is no moment in which it takes one.
    var all = sigset_t()
    var before = sigset_t()
    sigfillset(&all)
    pthread_sigmask(SIG_SETMASK, &all, &before)
    defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
    var thread = pthread_t()
    let monitor = Unmanaged.passRetained(self)
    let result = pthread_create(
      &thread, nil,
      { argument in
        guard let argument else { return nil }
        Unmanaged<ReadinessMonitor>.fromOpaque(argument).takeRetainedValue().run()
        return nil
      }, monitor.toOpaque())
    guard result == 0 else {
      monitor.release()
      throw SystemError("pthread_create", code: result)
    }
    state.withLock { $0.thread = thread }
  }

  /// Watches `descriptor`, which must stay open until the token is removed.
  ///
  /// - Parameter oneShot: report once, then wait for ``rearm(_:_:)``. Without it, what is not read or written
  ///   is reported again at once.
  /// - Throws: `EPERM` for what is always ready (regular files), `EEXIST` if it is watched already.
  @discardableResult
  public func add(
    _ descriptor: Int32, _ events: Events, oneShot: Bool = true
  ) throws(SystemError) -> Token {
    try state.withLock { state throws(SystemError) in
      let token = state.lastToken + 1
      var event = Self.event(token, events, oneShot)
      guard epoll_ctl(epoll.rawValue, EPOLL_CTL_ADD, descriptor, &event) == 0 else {
        throw SystemError("epoll_ctl(EPOLL_CTL_ADD)")
      }
      state.lastToken = token
      state.registrations[token] = Registration(descriptor: descriptor, oneShot: oneShot)
      return Token(rawValue: token)
    }
  }

  /// Watches for `events` from now on, again if they were reported before. Nothing if the token was removed.
  public func rearm(_ token: Token, _ events: Events) throws(SystemError) {
    try state.withLock { state throws(SystemError) in
      guard let registration = state.registrations[token.rawValue] else { return }
      var event = Self.event(token.rawValue, events, registration.oneShot)
      guard epoll_ctl(epoll.rawValue, EPOLL_CTL_MOD, registration.descriptor, &event) == 0 else {
        throw SystemError("epoll_ctl(EPOLL_CTL_MOD)")
      }
    }
  }

  /// Stops watching. To be called before the descriptor is closed. Nothing if the token was removed.
  public func remove(_ token: Token) {
    state.withLock { state in
      guard let registration = state.registrations.removeValue(forKey: token.rawValue) else { return }
      var event = epoll_event()
      _ = epoll_ctl(epoll.rawValue, EPOLL_CTL_DEL, registration.descriptor, &event)
    }
  }

  /// How many descriptors are watched.
  public var count: Int { state.withLock { $0.registrations.count } }

  /// Ends the thread and waits until it is gone: no call of the callback follows. The descriptors that were
  /// watched stay open. Nothing the second time. Not to be called from the callback.
  public func close() {
    let thread = state.withLock { state -> pthread_t? in
      state.registrations = [:]
      defer { state.thread = nil }
      return state.thread
    }
    guard let thread else { return }
    precondition(pthread_equal(thread, pthread_self()) == 0, "a monitor cannot end itself from its callback")
    eventfd_write(wakeUp.rawValue, 1)
    pthread_join(thread, nil)
  }

  private static func event(_ token: UInt64, _ events: Events, _ oneShot: Bool) -> epoll_event {
    epoll_event(
      events: events.rawValue | (oneShot ? EPOLLONESHOT.rawValue : 0), data: epoll_data_t(u64: token))
  }

  private func run() {
    jsr_name_thread("jsr-readiness")
    var events = [epoll_event](repeating: epoll_event(), count: 64)
    while true {
      let count = epoll_wait(epoll.rawValue, &events, Int32(events.count), -1)
      guard count >= 0 else {
        // Nothing else can happen to a wait on a descriptor that this object owns.
        precondition(errno == EINTR, "epoll_wait: \(SystemError("epoll_wait"))")
        continue
      }
      for event in events.prefix(Int(count)) {
        let token = event.data.u64
        if token == 0 { return }
        if state.withLock({ $0.registrations[token] != nil }) {
          callback(Token(rawValue: token), Events(rawValue: event.events))
        }
      }
    }
  }
}

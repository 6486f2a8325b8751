// Theory of operation
//
// Calls that entered the stand-in hold it, whatever its number means by now. The last of them to leave ends it,
// which its far end sees as a hang-up. Until then:
//
// 1. Calls that move bytes must begin again, with the socket. A signal with a handler does that: they have moved
//    nothing, so the kernel begins them again if the handler says SA_RESTART (signal(7)), and looks the number
//    up anew. The signal is SIGURG, whose default is to be ignored, and which programs that handle it must
//    expect at any time: Go's runtime interrupts threads with it for the same reasons. If the program's own
//    handler lacks SA_RESTART, or the call had a timeout, it fails with EINTR as such programs expect.
//
//    Bytes must never be read from the stand-in, or written to it: they would be made up, or lost. So each
//    thread is watched until it is certain not to be in such a call: it was seen waiting elsewhere, or it
//    has handled a signal since the number means the socket.
//
// 2. Only then calls that wait for readiness (select, poll) can be told of the socket's, by making the stand-in
//    readable or writable. That is done when the socket is, so that nobody is told too early.
//
// A thread that blocks SIGURG and waits in a call that moves bytes stays there, and nobody is told anything until
// it leaves. Threads of Dispatch, and so of Swift's tasks, block signals, and hand that down to threads that they
// start.

import CLinux
import Descriptors
import Glibc

/// Ends the calls that still wait on a stand-in whose socket is back.
enum StandInLeavers {
  /// How long calls that wait for readiness are told of the socket's. After that they are told that it is ready:
  /// they may find that it is not (select(2), "spurious readiness"), but the socket is not kept open for them.
  static let patienceMilliseconds: Int32 = 60_000

  /// Returns at once; what takes time is done on a thread that ends with the last of the calls.
  static func seeOut(number: Int32, socket: consuming OwnedDescriptor, far: consuming OwnedDescriptor) {
    guard !isAbandoned(far.rawValue, within: 0) else { return }
    let (socket, far) = (socket.release(), far.release())
    do throws(SystemError) {
      pthread_detach(
        try LibraryThread.start(named: "jsr-stand-in") {
          seeOut(
            number: number, socket: OwnedDescriptor(owning: socket), far: OwnedDescriptor(owning: far),
            patience: patienceMilliseconds)
        })
    } catch {
      // The far end stays open: to close it would look like the end of the connection.
      close(socket)
    }
  }

  private static func seeOut(
    number: Int32, socket: consuming OwnedDescriptor, far: consuming OwnedDescriptor, patience: Int32
  ) {
    guard jsr_allow_interruption() == 0 else { return waitForEnd(far) }
    var pause: Int32 = 1
    while !interruptTransfers(number) {
      if isAbandoned(far.rawValue, within: pause) { return }
      pause = min(pause * 2, 1000)
    }
    tellOfReadiness(of: socket, far.rawValue, patience)
    waitForEnd(far)
  }

  /// The stand-in has no holder any more.
  private static func isAbandoned(_ far: Int32, within milliseconds: Int32) -> Bool {
    var watched = pollfd(fd: far, events: 0, revents: 0)
    return poll(&watched, 1, milliseconds) > 0
  }

  private static func waitForEnd(_ far: borrowing OwnedDescriptor) {
    while !isAbandoned(far.rawValue, within: -1) {}
  }

  // MARK: Calls that move bytes

  /// Interrupts every thread that may be about to move bytes under `number`.
  ///
  /// - Returns: whether it is certain that none does so on the stand-in.
  private static func interruptTransfers(_ number: Int32) -> Bool {
    guard let threads = try? ProcessFiles.numbers(in: "/proc/self/task") else { return false }
    var areAllClear = true
    for thread in threads where thread != jsr_thread() {
      switch ThreadActivity(of: thread) {
      case .gone, .waiting: continue
      case .transferring(let other) where other != number: continue
      case .transferring, .running:
        // Whatever it did, it has left it when it has handled the signal.
        if !interrupt(thread) { areAllClear = false }
      }
    }
    return areAllClear
  }

  /// - Returns: whether the thread has handled the signal, or is gone.
  private static func interrupt(_ thread: Int32) -> Bool {
    guard let signals = signals(of: thread) else { return true }
    guard !signals.isBlocked, jsr_interrupt_thread(thread) == 0 else { return false }
    for _ in 0..<100 {
      guard let signals = Self.signals(of: thread) else { return true }
      if !signals.isPending { return true }
      usleep(100)
    }
    return false
  }

  /// What `thread` has to do with SIGURG; `nil` if it is gone.
  private static func signals(of thread: Int32) -> (isPending: Bool, isBlocked: Bool)? {
    guard let lines = ProcessFiles.lines(of: "/proc/self/task/\(thread)/status") else { return nil }
    func contains(_ title: String) -> Bool {
      guard let line = lines.first(where: { $0.hasPrefix(title) }),
        let set = UInt64(line.dropFirst(title.count).drop { $0 == "\t" }, radix: 16)
      else { return false }
      return set & 1 << UInt64(SIGURG - 1) != 0
    }
    return (contains("SigPnd:"), contains("SigBlk:"))
  }

  // MARK: Calls that wait for readiness

  /// Makes the stand-in readable when `socket` is, and writable when `socket` is; lets go of `socket` then.
  private static func tellOfReadiness(of socket: consuming OwnedDescriptor, _ far: Int32, _ patience: Int32) {
    var wanted = Int16(POLLIN | POLLOUT)
    var now = timespec()
    clock_gettime(CLOCK_MONOTONIC, &now)
    let end = now.tv_sec * 1000 + now.tv_nsec / 1_000_000 + Int(patience)
    while wanted != 0 {
      var watched = [
        pollfd(fd: far, events: 0, revents: 0), pollfd(fd: socket.rawValue, events: wanted, revents: 0),
      ]
      clock_gettime(CLOCK_MONOTONIC, &now)
      let left = max(0, end - now.tv_sec * 1000 - now.tv_nsec / 1_000_000)
      let count = poll(&watched, 2, Int32(clamping: left))
      if watched[0].revents != 0 { return }
      let isOver = count == 0 || watched[1].revents & Int16(POLLHUP | POLLERR | POLLNVAL) != 0
      if wanted & Int16(POLLIN) != 0, isOver || watched[1].revents & Int16(POLLIN) != 0 {
        wanted &= ~Int16(POLLIN)
        _ = send(far, [0 as UInt8], 1, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
      }
      if wanted & Int16(POLLOUT) != 0, isOver || watched[1].revents & Int16(POLLOUT) != 0 {
        wanted &= ~Int16(POLLOUT)
        var bytes = [UInt8](repeating: 0, count: 4096)
        while recv(far, &bytes, bytes.count, Int32(MSG_DONTWAIT)) > 0 {}
      }
    }
  }
}

import Foundation
import Glibc
import Synchronization

/// Stands between a peer's connection and an application, and copies both directions to a snoop pair, in
/// the order that an engine keeps: nothing reaches the application or the peer that has not been copied.
///
/// Stopping it in the middle is the loss of the primary: what the application had not read, and what it
/// wrote and was not copied, is gone.
final class SnoopingRelay: Sendable {
  private struct State {
    var isStopped = false
    var running = 2
    /// Something taken from the application is not with the peer yet.
    var isCarrying = false
    /// From the peer, not copied yet.
    var uncopied: [UInt8] = []
    /// Copied, not sent to the peer yet.
    var unsent: [UInt8] = []
  }

  private let state = Mutex(State())
  private let peer: Int32
  private let application: Int32
  private let snoop: (rcv: Int32, snd: Int32)?

  /// Owns all descriptors but `peer`.
  init(peer: Int32, application: Int32, snoop: (rcv: Int32, snd: Int32)?, first: [UInt8] = []) {
    self.peer = peer
    self.application = application
    self.snoop = snoop
    Thread.detachNewThread { [self] in
      _ = give(first, to: application)
      inbound()
    }
    Thread.detachNewThread { [self] in outbound() }
  }

  /// Waits until everything that the application has written is copied and with the peer.
  func carryEverything() {
    var waiting = pollfd(fd: application, events: Int16(POLLIN), revents: 0)
    while poll(&waiting, 1, 0) > 0 || state.withLock({ $0.isCarrying }) { usleep(200) }
  }

  /// Ends both directions where they stand.
  ///
  /// - Returns: what came from the peer and was not copied, and what was copied and not sent.
  func stop() -> (uncopied: [UInt8], unsent: [UInt8]) {
    state.withLock { $0.isStopped = true }
    while state.withLock({ $0.running > 0 }) { usleep(1000) }
    return state.withLock { ($0.uncopied, $0.unsent) }
  }

  /// Ends the snoop pair, once the relay is stopped.
  func closeSnoopPair() {
    guard let snoop else { return }
    close(snoop.rcv)
    close(snoop.snd)
  }

  /// The same relay without a snoop pair, once this one is stopped.
  func withoutSnooping(first: [UInt8]) -> SnoopingRelay {
    SnoopingRelay(peer: peer, application: application, snoop: nil, first: first)
  }

  private var isStopped: Bool { state.withLock { $0.isStopped } }

  private func inbound() {
    while let bytes = take(from: peer) {
      if bytes.isEmpty {
        if let snoop { shutdown(snoop.rcv, Int32(SHUT_WR)) }
        shutdown(application, Int32(SHUT_WR))
        break
      }
      if let snoop {
        let rest = give(bytes, to: snoop.rcv)
        if !rest.isEmpty {
          state.withLock { $0.uncopied = rest }
          break
        }
      }
      let rest = give(bytes, to: application)
      if snoop == nil { state.withLock { $0.uncopied = rest } }
    }
    state.withLock { $0.running -= 1 }
  }

  private func outbound() {
    while let bytes = take(from: application) {
      if bytes.isEmpty {
        if let snoop { shutdown(snoop.snd, Int32(SHUT_WR)) }
        shutdown(peer, Int32(SHUT_WR))
        break
      }
      var copied = bytes
      if let snoop { copied.removeLast(give(bytes, to: snoop.snd).count) }
      let rest = give(copied, to: peer)
      state.withLock {
        $0.unsent = rest
        $0.isCarrying = false
      }
    }
    state.withLock { $0.running -= 1 }
  }

  /// What is there to read; empty at the end of the stream, `nil` once stopped.
  private func take(from descriptor: Int32) -> [UInt8]? {
    // An odd size, so that messages are cut in odd places.
    var buffer = [UInt8](repeating: 0, count: 7001)
    while !isStopped {
      guard isReady(descriptor, Int16(POLLIN)), !isStopped else { continue }
      // Before it is taken, so that at no moment it is neither waiting nor being carried.
      if descriptor == application { state.withLock { $0.isCarrying = true } }
      let count = recv(descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT))
      if count >= 0 { return Array(buffer[..<count]) }
      if errno != EAGAIN { return [] }
    }
    return nil
  }

  /// Writes as much of `bytes` as possible until stopped, and returns the rest.
  private func give(_ bytes: [UInt8], to descriptor: Int32) -> [UInt8] {
    var rest = bytes[...]
    while !rest.isEmpty, !isStopped {
      guard isReady(descriptor, Int16(POLLOUT)) else { continue }
      let count = rest.withUnsafeBytes {
        send(descriptor, $0.baseAddress, $0.count, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
      }
      if count >= 0 {
        rest = rest.dropFirst(count)
      } else if errno != EAGAIN {
        break
      }
    }
    return Array(rest)
  }

  private func isReady(_ descriptor: Int32, _ events: Int16) -> Bool {
    var wait = pollfd(fd: descriptor, events: events, revents: 0)
    return poll(&wait, 1, 20) > 0
  }
}

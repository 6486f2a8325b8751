import Control
import Descriptors
import EngineConfiguration
import Logging
import NIOCore
import Packet
import Replication

/// Which stream waits for room in its socket.
struct SnoopWatch {
  var pair: SnoopPair
  var handle: Handle
  var stream: SnoopStream
}

// What the secondary's applications read.
extension Engine {
  /// Sets room aside for bytes that are about to be acknowledged; lets go of a pair that has none left.
  func reserveSnoop(_ count: Int, _ handle: Handle, _ stream: SnoopStream) -> Bool {
    guard let pair = pairs[handle] else { return false }
    guard pair.reserve(count, on: stream, limit: configuration.limits.snoopBuffer) else {
      node.snoopFailed(handle, because: .snoopBufferFull)
      return false
    }
    return true
  }

  func snoop(_ bytes: UnsafeRawBufferPointer, _ handle: Handle, _ stream: SnoopStream) {
    guard let pair = pairs[handle] else { return }
    handleProgress(pair.write(bytes, to: stream), of: pair, handle, stream)
  }

  /// One datagram.
  func snoop(
    _ payload: some Collection<UInt8>, remote: Endpoint, local: Endpoint, _ handle: Handle,
    _ stream: SnoopStream
  ) {
    let (source, destination) = stream == .rcv ? (remote, local) : (local, remote)
    SnoopedDatagram.message(source: source, destination: destination, payload).withUnsafeBytes {
      snoop($0, handle, stream)
    }
  }

  private func handleProgress(
    _ progress: SnoopOutput.Progress, of pair: SnoopPair, _ handle: Handle, _ stream: SnoopStream
  ) {
    switch progress {
    case .done: relieve(pair, handle)
    case .blocked:
      watch(pair, handle, stream)
      // Half of the room is for what is on its way already.
      if pair.longestQueue > configuration.limits.snoopBuffer / 2 {
        node.snoopPressure(handle, isHigh: true)
      } else {
        relieve(pair, handle)
      }
    case .broken:
      if pairs[handle] === pair {
        node.snoopFailed(handle, because: .applicationGone)
      } else {
        endingPairs.removeAll { $0 === pair }
      }
    }
  }

  private func relieve(_ pair: SnoopPair, _ handle: Handle) {
    guard pairs[handle] === pair, pair.longestQueue < configuration.limits.snoopBuffer / 8 else { return }
    node.snoopPressure(handle, isHigh: false)
  }

  private func watch(_ pair: SnoopPair, _ handle: Handle, _ stream: SnoopStream) {
    guard !pair.watched.contains(stream), let descriptor = pair.descriptor(of: stream) else { return }
    do throws(SystemError) {
      let token = try monitor.add(descriptor, .write)
      pair.watched.insert(stream)
      snoopTokens[token] = SnoopWatch(pair: pair, handle: handle, stream: stream)
    } catch {
      logger.error("snoop pair \(handle): \(error)")
      node.snoopFailed(handle, because: .limitReached)
    }
  }

  func becameReady(_ token: ReadinessMonitor.Token) {
    if let connection = abandoned[token] { return drainAbandoned(token, connection) }
    guard let watch = snoopTokens.removeValue(forKey: token) else { return recordsReady(token) }
    monitor.remove(token)
    watch.pair.watched.remove(watch.stream)
    handleProgress(watch.pair.resume(watch.stream), of: watch.pair, watch.handle, watch.stream)
    if watch.pair.isFinished { endingPairs.removeAll { $0 === watch.pair } }
    settle()
  }

  func endSnoop(_ handle: Handle, _ stream: SnoopStream) { pairs[handle]?.end(stream) }

  /// The protocol is done with the pair: what the application has not read stays readable.
  func retirePair(_ handle: Handle) {
    guard let pair = pairs.removeValue(forKey: handle) else { return }
    pair.retire()
    if !pair.isFinished { endingPairs.append(pair) }
  }

  /// The application is gone: nobody will read what is left.
  func forgetPair(_ handle: Handle) {
    guard let pair = pairs.removeValue(forKey: handle) else { return }
    for (token, watch) in snoopTokens where watch.pair === pair {
      monitor.remove(token)
      snoopTokens[token] = nil
    }
  }
}

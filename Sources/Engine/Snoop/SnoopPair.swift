import Descriptors
import Packet
import Replication

/// The two streams of one snoop pair, as the engine keeps them.
final class SnoopPair {
  var rcv: SnoopOutput
  var snd: SnoopOutput
  /// Streams whose descriptor is being watched for room.
  var watched: Set<SnoopStream> = []

  private init(rcv: consuming SnoopOutput, snd: consuming SnoopOutput) {
    self.rcv = rcv
    self.snd = snd
  }

  /// - Parameter transport: of the socket that is followed.
  /// - Returns: the pair, and the descriptors for the application.
  static func open(
    for transport: TransportProtocol
  ) throws(SystemError) -> (pair: SnoopPair, rcv: Int32, snd: Int32) {
    var ends: (rcv: Int32, snd: Int32) = (-1, -1)
    let rcv = try SnoopOutput(for: transport, application: &ends.rcv)
    let snd: SnoopOutput
    do throws(SystemError) {
      snd = try SnoopOutput(for: transport, application: &ends.snd)
    } catch {
      _ = OwnedDescriptor(owning: ends.rcv)
      throw error
    }
    return (SnoopPair(rcv: rcv, snd: snd), ends.rcv, ends.snd)
  }

  var queuedByteCount: Int { rcv.queuedByteCount + snd.queuedByteCount }
  /// The fuller one of the two.
  var longestQueue: Int { max(rcv.queuedByteCount, snd.queuedByteCount) }
  var isFinished: Bool { rcv.isFinished && snd.isFinished }

  func reserve(_ count: Int, on stream: SnoopStream, limit: Int) -> Bool {
    switch stream {
    case .rcv: rcv.reserve(count, limit: limit)
    case .snd: snd.reserve(count, limit: limit)
    }
  }

  func write(_ bytes: UnsafeRawBufferPointer, to stream: SnoopStream) -> SnoopOutput.Progress {
    switch stream {
    case .rcv: rcv.write(bytes)
    case .snd: snd.write(bytes)
    }
  }

  func resume(_ stream: SnoopStream) -> SnoopOutput.Progress {
    switch stream {
    case .rcv: rcv.resume()
    case .snd: snd.resume()
    }
  }

  func end(_ stream: SnoopStream) {
    switch stream {
    case .rcv: rcv.end()
    case .snd: snd.end()
    }
  }

  /// The protocol is done with both streams.
  func retire() {
    rcv.retire()
    snd.retire()
  }

  func descriptor(of stream: SnoopStream) -> Int32? {
    switch stream {
    case .rcv: rcv.descriptor
    case .snd: snd.descriptor
    }
  }
}

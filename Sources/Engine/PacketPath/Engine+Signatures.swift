import Control
import Descriptors
import Glibc
import LinuxNetworking
import Logging
import Packet
import Replication

/// A replicated connection whose segments are signed (RFC 2385).
struct SignedFlow {
  var key: [UInt8]
  /// When the kernel was last asked for the key.
  var readAt: Instant
}

// Signed connections. Their frames travel as they are. But what the kernel will not take, since its signature
// is wrong, must not be taken for safe either: anybody can send a segment that fits into the window, which is
// what signatures are for. The segments that this engine builds are signed like the kernel's.
extension Engine {
  /// How long a key is believed that a segment does not fit to. The application may change it at any time,
  /// and nobody who sends forgeries may have the kernel asked for each of them.
  static let keyLifetime = Nanoseconds.milliseconds(100)

  /// Finds out whether a connection that is about to be replicated is signed; `nil` if the kernel does not
  /// say.
  func noteSigningKey(of flow: Flow) -> Bool? {
    do throws(SystemError) {
      let key = try signingKey(of: flow)
      signedFlows[flow] = key.map { SignedFlow(key: $0, readAt: Self.now()) }
      return key != nil
    } catch {
      logger.warning("\(flow): whether it is signed is not known: \(error)")
      return nil
    }
  }

  private func signingKey(of flow: Flow) throws(SystemError) -> [UInt8]? {
    guard let instance = instance(of: flow) else { throw SystemError("sock_diag", code: ENODEV) }
    return try instance.signingKey(of: flow)
  }

  /// Whether the kernel takes a segment from the peer, as far as signatures are concerned.
  func signatureIsValid(
    _ packet: TCPPacket, _ frame: UnsafeRawBufferPointer, in instance: RoutingInstanceID, now: Instant
  ) -> Bool {
    let flow = packet.inboundFlow(in: instance)
    guard let signed = signedFlows[flow] else { return true }
    if packet.signatureIsValid(frame, key: signed.key) { return true }
    if now - signed.readAt >= Self.keyLifetime, readKeyAgain(of: flow, signed.key, now: now) {
      guard let key = signedFlows[flow]?.key else { return !packet.isSigned(frame) }
      if packet.signatureIsValid(frame, key: key) { return true }
    }
    counters.wrongSignatures += 1
    return false
  }

  /// - Returns: whether the application has changed the key, or taken it away.
  private func readKeyAgain(of flow: Flow, _ old: [UInt8], now: Instant) -> Bool {
    do throws(SystemError) {
      let key = try signingKey(of: flow)
      signedFlows[flow] = key.map { SignedFlow(key: $0, readAt: now) }
      return key != old
    } catch {
      signedFlows[flow]!.readAt = now
      return false
    }
  }

  /// What is wrong with the key of a merge, or with there being none; `nil` if it fits.
  func complaint(
    about key: [UInt8]?, of handle: Handle, _ options: SocketOptions
  ) -> (code: RefusalCode, text: String)? {
    guard let key else {
      return options[.isSigned] == 1
        ? (.signingKey, "the connection of \(handle) is signed (TCP_MD5SIG): merge it with its key") : nil
    }
    guard (1...TCPSignature.maximumKeyByteCount).contains(key.count) else {
      return (
        .invalidValue, "a key has 1 to \(TCPSignature.maximumKeyByteCount) bytes, not \(key.count)"
      )
    }
    return options[.isSigned] == 0
      ? (.invalidValue, "the connection of \(handle) is not signed: merge it without a key") : nil
  }
}

import NIOSSL

/// Errors of TLS in the words of the field, without places in the library's source.
enum LinkTLSProblem {
  static func text(_ error: any Error) -> String {
    switch error {
    case NIOSSLError.handshakeFailed(let reason), NIOSSLError.shutdownFailed(let reason): text(reason)
    case let reason as BoringSSLError: text(reason)
    default: "\(error)"
    }
  }

  private static func text(_ error: BoringSSLError) -> String {
    switch error {
    case .sslError(let stack), .unknownError(let stack):
      stack.isEmpty ? "\(error)" : stack.map(text).joined(separator: ", ")
    default: "\(error)"
    }
  }

  /// Of `Error: 1 error:1:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED at file:1` the reason.
  private static func text(_ error: BoringSSLInternalError) -> String {
    let text = "\(error)"
    guard let start = text.firstRange(of: "OPENSSL_internal:")?.upperBound else { return text }
    return String(text[start...].prefix { $0 != " " })
  }
}

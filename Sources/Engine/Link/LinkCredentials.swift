import EngineConfiguration
import Glibc
import NIOCore
import NIOEmbedded
import NIOSSL

/// What this RE proves with who it is on the link, and judges the other one by: read from files, and checked.
struct LinkCredentials: Sendable {
  let context: NIOSSLContext
  /// The name that the other RE's certificate must carry.
  let peer: String
  /// When this RE's own certificate ends, in seconds since 1970.
  let certificateEnd: time_t
  /// When the last of the authorities ends, in seconds since 1970.
  let authorityEnd: time_t
  /// What is not as it should be, but does not keep the link from working.
  let warnings: [String]

  /// No such file is longer; whoever names a device by mistake is told so.
  private static let fileLimit = 1 << 20

  /// - Parameter now: seconds since 1970.
  /// - Throws: `LinkCredentialsError`, which names the key of the configuration and the file.
  init(_ tls: Configuration.LinkTLS, now: time_t) throws(LinkCredentialsError) {
    func wrong(_ key: String, _ file: String, _ problem: String) -> LinkCredentialsError {
      LinkCredentialsError(key: "link.tls.\(key)", file: file, problem: problem)
    }
    let (certificateText, _) = try Self.read("certificate", tls.certificate)
    guard let chain = try? NIOSSLCertificate.fromPEMBytes(certificateText), let own = chain.first else {
      throw wrong("certificate", tls.certificate, "holds no certificate in PEM")
    }
    let (keyText, keyMode) = try Self.read("key", tls.key)
    guard let key = try? NIOSSLPrivateKey(bytes: keyText, format: .pem) else {
      throw wrong("key", tls.key, "holds no private key in PEM without a passphrase")
    }
    let (authorityText, _) = try Self.read("ca", tls.ca)
    guard let authorities = try? NIOSSLCertificate.fromPEMBytes(authorityText), !authorities.isEmpty else {
      throw wrong("ca", tls.ca, "holds no certificate in PEM")
    }

    guard own.carries(tls.name) else {
      throw wrong(
        "certificate", tls.certificate,
        "is for \(own.namesForPeople), not for \(tls.name), the name of this routing engine (link.tls.name)")
    }
    guard own.notValidBefore <= now else {
      throw wrong("certificate", tls.certificate, "is not valid before \(UTC.text(own.notValidBefore))")
    }
    guard own.notValidAfter > now else {
      throw wrong("certificate", tls.certificate, "has expired, at \(UTC.text(own.notValidAfter))")
    }
    let lastEnd = authorities.map(\.notValidAfter).max() ?? 0
    guard lastEnd > now else { throw wrong("ca", tls.ca, "has expired, at \(UTC.text(lastEnd))") }

    var configuration = TLSConfiguration.makeServerConfiguration(
      certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(key))
    configuration.minimumTLSVersion = .tlsv13
    configuration.maximumTLSVersion = .tlsv13
    configuration.trustRoots = .certificates(authorities)
    // The chain, on both sides. The name is that of a routing engine, and compared in LinkHandler.
    configuration.certificateVerification = .noHostnameVerification
    do {
      context = try NIOSSLContext(configuration: configuration)
    } catch {
      throw wrong(
        "key", tls.key,
        "does not belong to the certificate in \(tls.certificate): \(LinkTLSProblem.text(error))")
    }
    do {
      try Self.rehearse(context)
    } catch {
      throw wrong(
        "certificate", tls.certificate,
        "is not accepted by whoever trusts \(tls.ca) (link.tls.ca): it must come from there, and be for both ends "
          + "of a TLS connection: \(LinkTLSProblem.text(error))")
    }
    peer = tls.peer
    certificateEnd = own.notValidAfter
    authorityEnd = lastEnd
    warnings =
      keyMode & 0o077 == 0
      ? [] : ["link.tls.key: \(tls.key): others may read it; take that right away (chmod 600)"]
  }

  /// A whole file, which must be an ordinary one: this must not wait.
  private static func read(
    _ key: String, _ path: String
  ) throws(LinkCredentialsError) -> (bytes: [UInt8], mode: mode_t) {
    func wrong(_ problem: String) -> LinkCredentialsError {
      LinkCredentialsError(key: "link.tls.\(key)", file: path, problem: problem)
    }
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else { throw wrong("cannot be opened: \(String(cString: strerror(errno)))") }
    defer { close(descriptor) }
    var status = stat()
    guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
      throw wrong("is not a file")
    }
    guard status.st_size <= fileLimit else { throw wrong("is longer than 1 MiB, which no such file is") }
    var bytes = [UInt8](repeating: 0, count: fileLimit)
    var count = 0
    while count < bytes.count {
      let length = bytes.withUnsafeMutableBytes {
        Glibc.read(descriptor, $0.baseAddress! + count, $0.count - count)
      }
      guard length >= 0 else { throw wrong("cannot be read: \(String(cString: strerror(errno)))") }
      guard length > 0 else { break }
      count += length
    }
    return (Array(bytes.prefix(count)), status.st_mode)
  }

  /// Has both ends of a connection shake hands with these credentials, in memory: whether they would be
  /// accepted is better known before a link is needed.
  private static func rehearse(_ context: NIOSSLContext) throws {
    let server = EmbeddedChannel()
    let client = EmbeddedChannel()
    let handlers = (
      NIOSSLServerHandler(context: context), try NIOSSLClientHandler(context: context, serverHostname: nil)
    )
    try server.pipeline.syncOperations.addHandler(handlers.0)
    try client.pipeline.syncOperations.addHandler(handlers.1)
    defer {
      // With TLS in it, a channel would wait for the other one to agree to its end.
      _ = server.pipeline.syncOperations.removeHandler(handlers.0)
      _ = client.pipeline.syncOperations.removeHandler(handlers.1)
      _ = try? server.finish(acceptAlreadyClosed: true)
      _ = try? client.finish(acceptAlreadyClosed: true)
    }
    let address = try SocketAddress(ipAddress: "127.0.0.1", port: 1)
    try server.connect(to: address).wait()
    try client.connect(to: address).wait()
    var hasMoved = true
    while hasMoved {
      hasMoved = false
      while let bytes = try client.readOutbound(as: ByteBuffer.self) {
        hasMoved = true
        try server.writeInbound(bytes)
      }
      while let bytes = try server.readOutbound(as: ByteBuffer.self) {
        hasMoved = true
        try client.writeInbound(bytes)
      }
    }
    try server.throwIfErrorCaught()
    try client.throwIfErrorCaught()
  }

  // MARK: The end

  /// How long before its end a certificate is warned of, in seconds.
  private static let warningTime = 30 * 86_400

  /// What to warn of at `now`, in seconds since 1970.
  func expiryWarnings(now: time_t) -> [String] {
    func warning(_ what: String, _ end: time_t) -> String? {
      guard end - now < Self.warningTime else { return nil }
      guard end > now else {
        return "\(what) has expired, at \(UTC.text(end)): the link will not come up again once it is lost"
      }
      return
        "\(what) ends at \(UTC.text(end)), in \((end - now) / 86_400) days; renew it (jsrctl link-keys renew)"
    }
    return [
      warning("the certificate of this routing engine (link.tls.certificate)", certificateEnd),
      warning("the certificate of the authority (link.tls.ca)", authorityEnd),
    ].compactMap { $0 }
  }
}

/// What is wrong with one of the files that `link.tls` names.
public struct LinkCredentialsError: Error, Hashable, Sendable, CustomStringConvertible {
  /// Such as `link.tls.certificate`.
  public let key: String
  public let file: String
  public let problem: String

  /// `link.tls.key: /etc/jsr/re0.key: cannot be opened: …`
  public var description: String { "\(key): \(file): \(problem)" }
}

extension NIOSSLCertificate {
  /// The DNS names for which the certificate speaks (RFC 5280, section 4.2.1.6).
  ///
  /// NIOSSL names them for clients only, which know the name of their server; this is what it does that with.
  private var dnsNames: [String] {
    _subjectAlternativeNames().compactMap { name in
      guard name.nameType == .dnsName else { return nil }
      return name.contents.withUnsafeBufferPointer { String(decoding: $0, as: UTF8.self) }
    }
  }

  /// Whether it speaks for exactly this name, whatever the case of its letters. A wildcard speaks for nobody
  /// here.
  func carries(_ name: String) -> Bool {
    dnsNames.contains { $0.lowercased() == name.lowercased() }
  }

  /// For error messages: the certificate may be a stranger's.
  var namesForPeople: String {
    let names = dnsNames.prefix(4).map { name in
      String(name.unicodeScalars.prefix(80).map { (0x21...0x7e).contains($0.value) ? Character($0) : "?" })
    }
    return names.isEmpty ? "no DNS name" : names.joined(separator: ", ")
  }
}

/// Times for people and for scripts.
enum UTC {
  /// `2027-03-01T12:00:00Z`; of seconds since 1970.
  static func text(_ time: time_t) -> String {
    var time = time
    var parts = tm()
    gmtime_r(&time, &parts)
    var text = [CChar](repeating: 0, count: 32)
    strftime(&text, text.count, "%Y-%m-%dT%H:%M:%SZ", &parts)
    return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}

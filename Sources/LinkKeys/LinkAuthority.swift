public import FoundationEssentials

/// Who says which key belongs to which routing engine: a self-signed certificate with its key, which serves
/// one pair. Keys are of the curve P-256; the program `openssl` makes and signs them.
public struct LinkAuthority: Sendable {
  public let certificatePEM: String
  public let keyPEM: String
  /// When its certificate ends.
  public let end: Date

  /// The certificate of a routing engine and the key that belongs to it, both in PEM.
  public struct Identity: Sendable {
    public let certificate: String
    public let key: String
  }

  /// What an authority cannot be made of, or why `openssl` did not do it.
  public struct Invalid: Error, CustomStringConvertible {
    public let description: String
  }

  /// Makes a new authority.
  public init(validFrom start: Date, to end: Date) throws(Invalid) {
    // No two are called the same, so that a file may hold an old and a new one.
    let name = "JSR inter-RE link \(String(UInt64.random(in: 0 ... .max), radix: 16))"
    let workshop = try OpenSSL(naming: name)
    try workshop.makeRequest()
    keyPEM = try workshop.read(.subjectKey)
    certificatePEM = try workshop.signRequest(
      "-selfsign", "-keyfile", workshop.path(.subjectKey), as: .authority, from: start, to: end)
    self.end = end
  }

  /// Takes up one that was made before, from what ``certificatePEM`` and ``keyPEM`` were.
  ///
  /// - Throws: if one of the two cannot be read, or if they do not belong together.
  public init(certificatePEM: String, keyPEM: String) throws(Invalid) {
    let workshop = try OpenSSL(naming: "none")
    try workshop.write(certificatePEM, to: .authorityCertificate)
    try workshop.write(keyPEM, to: .authorityKey)
    let certificate = workshop.path(.authorityCertificate)
    let signed = try workshop.run("x509", "-in", certificate, "-noout", "-pubkey")
    let own = try workshop.run("pkey", "-in", workshop.path(.authorityKey), "-pubout")
    guard signed == own else { throw Invalid(description: "the key is not that of the certificate") }
    let text = try workshop.run("x509", "-in", certificate, "-noout", "-enddate", "-dateopt", "iso_8601")
    // notAfter=2046-11-26 10:00:00Z
    let date = text.split(separator: "=").last.map { $0.split { $0.isWhitespace }.joined(separator: "T") }
    guard let end = date.flatMap({ try? Date($0, strategy: .iso8601) }) else {
      throw Invalid(description: "unexpected date of a certificate: \(text.prefix(60))")
    }
    self.certificatePEM = certificatePEM
    self.keyPEM = keyPEM
    self.end = end
  }

  /// Makes a key for the routing engine `name`, and says so in a certificate for both ends of a TLS
  /// connection.
  ///
  /// - Parameter name: a DNS name.
  public func issue(to name: String, validFrom start: Date, to end: Date) throws(Invalid) -> Identity {
    let workshop = try OpenSSL(naming: name)
    try workshop.makeRequest()
    try workshop.write(certificatePEM, to: .authorityCertificate)
    try workshop.write(keyPEM, to: .authorityKey)
    let certificate = try workshop.signRequest(
      "-cert", workshop.path(.authorityCertificate), "-keyfile", workshop.path(.authorityKey), as: .identity,
      from: start, to: end)
    return Identity(certificate: certificate, key: try workshop.read(.subjectKey))
  }
}

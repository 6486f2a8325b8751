import Crypto
public import FoundationEssentials
import SwiftASN1
import X509

/// Who says which key belongs to which routing engine: a self-signed certificate with its key, which serves
/// one pair.
public struct LinkAuthority: Sendable {
  private let certificate: Certificate
  private let key: P256.Signing.PrivateKey

  /// The certificate of a routing engine and the key that belongs to it, both in PEM.
  public struct Identity: Sendable {
    public let certificate: String
    public let key: String
  }

  /// Makes a new authority.
  public init(validFrom start: Date, to end: Date) throws {
    let key = P256.Signing.PrivateKey()
    let subject = try DistinguishedName {
      // No two are called the same, so that a file may hold an old and a new one.
      CommonName("JSR inter-RE link \(String(UInt64.random(in: 0 ... .max), radix: 16))")
    }
    let extensions = try Certificate.Extensions {
      Critical(BasicConstraints.isCertificateAuthority(maxPathLength: 0))
      Critical(KeyUsage(keyCertSign: true))
      SubjectKeyIdentifier(keyIdentifier: Self.fingerprint(of: key.publicKey))
    }
    certificate = try Certificate(
      version: .v3, serialNumber: Certificate.SerialNumber(), publicKey: .init(key.publicKey),
      notValidBefore: start, notValidAfter: end, issuer: subject, subject: subject,
      signatureAlgorithm: .ecdsaWithSHA256, extensions: extensions, issuerPrivateKey: .init(key))
    self.key = key
  }

  /// Takes up one that was made before, from what ``certificatePEM`` and ``keyPEM`` were.
  ///
  /// - Throws: ``Invalid`` if the two do not belong together, or an error of the PEM or DER reader.
  public init(certificatePEM: String, keyPEM: String) throws {
    certificate = try Certificate(pemEncoded: certificatePEM)
    key = try P256.Signing.PrivateKey(pemRepresentation: keyPEM)
    guard certificate.publicKey == .init(key.publicKey) else {
      throw Invalid(description: "the key is not that of the certificate")
    }
  }

  /// What an authority cannot be made of.
  public struct Invalid: Error, CustomStringConvertible {
    public let description: String
  }

  /// When its certificate ends.
  public var end: Date { certificate.notValidAfter }

  public var certificatePEM: String {
    get throws { try certificate.serializeAsPEM().pemString + "\n" }
  }

  public var keyPEM: String { key.pemRepresentation + "\n" }

  /// Makes a key for the routing engine `name`, and says so in a certificate for both ends of a TLS
  /// connection.
  ///
  /// - Parameter name: a DNS name.
  public func issue(to name: String, validFrom start: Date, to end: Date) throws -> Identity {
    let subjectKey = P256.Signing.PrivateKey()
    let extensions = try Certificate.Extensions {
      Critical(BasicConstraints.notCertificateAuthority)
      Critical(KeyUsage(digitalSignature: true))
      try ExtendedKeyUsage([.serverAuth, .clientAuth])
      SubjectAlternativeNames([.dnsName(name)])
      AuthorityKeyIdentifier(keyIdentifier: Self.fingerprint(of: key.publicKey))
      SubjectKeyIdentifier(keyIdentifier: Self.fingerprint(of: subjectKey.publicKey))
    }
    let issued = try Certificate(
      version: .v3, serialNumber: Certificate.SerialNumber(), publicKey: .init(subjectKey.publicKey),
      notValidBefore: start, notValidAfter: end, issuer: certificate.subject,
      subject: try DistinguishedName { CommonName(name) }, signatureAlgorithm: .ecdsaWithSHA256,
      extensions: extensions, issuerPrivateKey: .init(key))
    return Identity(
      certificate: try issued.serializeAsPEM().pemString + "\n", key: subjectKey.pemRepresentation + "\n")
  }

  /// As RFC 7093 has it: the first 160 bits of a SHA-256.
  private static func fingerprint(of key: P256.Signing.PublicKey) -> ArraySlice<UInt8> {
    Array(SHA256.hash(data: key.x963Representation)).prefix(20)
  }
}

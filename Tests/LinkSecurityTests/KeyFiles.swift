import EngineConfiguration
import Foundation
import Glibc
import LinkKeys
import NIOSSL

@testable import Engine

/// A folder with the keys of a pair, and of some who are not of it.
final class KeyFiles: Sendable {
  let folder: String
  let authority: LinkAuthority

  static let day: TimeInterval = 86_400

  init() throws {
    var template = Array("/tmp/jsr-keys-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw CocoaError(.fileWriteUnknown) }
    folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    authority = try Self.authority()
    try write(authority.certificatePEM, "ca.pem")
    for name in ["re0", "re1"] { try issue(name, to: name) }
  }

  deinit { try? FileManager.default.removeItem(atPath: folder) }

  static func authority() throws -> LinkAuthority {
    try LinkAuthority(validFrom: Date() - day, to: Date() + 3650 * day)
  }

  func path(_ name: String) -> String { folder + "/" + name }

  func write(_ text: String, _ name: String, mode: mode_t = 0o600) throws {
    try Data(text.utf8).write(to: URL(fileURLWithPath: path(name)))
    chmod(path(name), mode)
  }

  /// Writes `file`.pem and `file`.key.
  ///
  /// - Parameter days: from today on, or before today, in which the certificate is valid.
  func issue(
    _ file: String, to name: String, days: ClosedRange<Double> = -1...365, by authority: LinkAuthority? = nil
  ) throws {
    let identity = try (authority ?? self.authority).issue(
      to: name, validFrom: Date() + days.lowerBound * Self.day, to: Date() + days.upperBound * Self.day)
    try write(identity.certificate, "\(file).pem")
    try write(identity.key, "\(file).key")
  }

  static func key(_ path: String) throws -> NIOSSLPrivateKey {
    try NIOSSLPrivateKey(bytes: Array(try Data(contentsOf: URL(fileURLWithPath: path))), format: .pem)
  }

  func configuration(slot: Int, ca: String = "ca.pem") -> Configuration.LinkTLS {
    Configuration.LinkTLS(
      certificate: path("re\(slot).pem"), key: path("re\(slot).key"), ca: path(ca), name: "re\(slot)",
      peer: "re\(1 - slot)")
  }

  func credentials(slot: Int) throws -> LinkCredentials {
    try LinkCredentials(configuration(slot: slot), now: time(nil))
  }
}
